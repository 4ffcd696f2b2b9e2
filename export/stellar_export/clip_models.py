"""The graphs of models that come as CLIP in Hugging Face layout: clip, aesthetic, pick_score."""

from __future__ import annotations

from collections.abc import Iterator

from . import aesthetic, clip, preprocess, vocabulary
from .checkpoints import Folder
from .jobs import GraphJob, Request, clip_text_job, embedding_image_job
from .manifest import IoSpec, Source
from .weights import load_folder, weight_files

DEFAULT_CLIP = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
CLIP_L = "openai/clip-vit-large-patch14"
PICK_SCORE = "yuvalkirstain/PickScore_v1"
PICK_SCORE_PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

TOKENIZER_FILES = ("merges.txt", "vocab.json", "tokenizer*.json", "special_tokens_map.json")
CLIP_FILES = ("config.json", "preprocessor_config.json", *TOKENIZER_FILES)


def image_module(
    folder: Folder, config: clip.ClipConfig, pre: preprocess.Preprocess, request: Request
) -> clip.ClipImageTower:
    """The image tower alone, the whole checkpoint checked."""
    weights = load_folder(folder.path)
    with weights.checking_only():
        clip.text_tower(weights, config, request.precision)
    tower = clip.image_tower(weights, config, pre, request.precision)
    clip.finish(weights)
    return tower


def text_module(
    folder: Folder, config: clip.ClipConfig, pre: preprocess.Preprocess, request: Request
) -> clip.ClipTextTower:
    """The text tower alone, the whole checkpoint checked."""
    weights = load_folder(folder.path)
    with weights.checking_only():
        clip.image_tower(weights, config, pre, request.precision)
    tower = clip.text_tower(weights, config, request.precision)
    clip.finish(weights)
    return tower


def scaled_text_module(
    folder: Folder, config: clip.ClipConfig, pre: preprocess.Preprocess, request: Request
) -> clip.ScaledTextTower:
    """The text tower with the model's logit scale beside its embedding."""
    tower = text_module(folder, config, pre, request)
    return clip.ScaledTextTower(tower, clip.logit_scale(load_folder(folder.path)))


def clip_graphs(request: Request) -> Iterator[GraphJob]:
    """clip_t, clip_i, clip_n: any CLIP in Hugging Face layout."""
    folder = request.checkpoints.folder(request.clip, CLIP_FILES)
    config, pre = clip.read_config(folder), preprocess.read(folder)
    request.needs_tokenizer("clip", vocabulary.clip_merges_of(folder))
    source, official = folder.source(weight_files(folder.path)), clip.is_official(config)
    if not shares_tower(request):
        yield embedding_image_job(
            ["clip.image"],
            image_module(folder, config, pre, request),
            config.projection,
            pre.geometry,
            source,
            official,
        )
    yield clip_text_job(
        "clip.text",
        text_module(folder, config, pre, request),
        config.projection,
        config.context,
        source,
        official,
        cleaning="hf_slow",
        pad=49407,
    )


def shares_tower(request: Request) -> bool:
    """Whether clip.image and clip_l.image are the same tower, and so one graph."""
    return request.clip == CLIP_L and "aesthetic" in request.models


def aesthetic_graphs(request: Request) -> Iterator[GraphJob]:
    """aesthetic: OpenAI's L/14 image tower with the LAION head folded in."""
    head = request.checkpoints.file(aesthetic.FILE, None, aesthetic.HINT)
    folder = request.checkpoints.folder(CLIP_L, CLIP_FILES)
    config, pre = clip.read_config(folder), preprocess.read(folder)
    module = aesthetic.AestheticTower(
        image_module(folder, config, pre, request), *aesthetic.load(head, config.projection)
    )
    source = Source.of_both(folder.source(weight_files(folder.path)), head.source())
    roles = ["clip.image", "clip_l.image"] if shares_tower(request) else ["clip_l.image"]
    job = embedding_image_job(roles, module, config.projection, pre.geometry, source, clip.is_official(config))
    job.outputs = [*job.outputs, IoSpec("aesthetic", "f32", ())]
    del module
    yield job


def pick_score_graphs(request: Request) -> Iterator[GraphJob]:
    """pick_score: PickScore's fine-tuned H/14 with the processor of the laion H/14 that it started from."""
    folder = request.checkpoints.folder(PICK_SCORE, ("config.json",))
    processor = request.checkpoints.folder(PICK_SCORE_PROCESSOR, CLIP_FILES, weights=False)
    config, pre = clip.read_config(folder), preprocess.read(processor)
    request.needs_tokenizer("clip", vocabulary.clip_merges_of(processor))
    source, official = folder.source(weight_files(folder.path)), clip.is_official(config)
    yield embedding_image_job(
        ["pick.image"], image_module(folder, config, pre, request), config.projection, pre.geometry, source, official
    )
    job = clip_text_job(
        "pick.text",
        scaled_text_module(folder, config, pre, request),
        config.projection,
        config.context,
        source,
        official,
        cleaning="hf_fast",
        pad=49407,
    )
    job.outputs = [*job.outputs, IoSpec("logit_scale", "f32", ())]
    yield job
