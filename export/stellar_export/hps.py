"""HPSv1 and HPSv2: CLIP towers in the layout of OpenAI's package, which open_clip shares."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import layouts, preprocess, vocabulary
from .clip_models import PICK_SCORE_PROCESSOR, TOKENIZER_FILES
from .errors import ExportError, MissingCheckpoint
from .jobs import GraphJob, Request, clip_text_job, embedding_image_job
from .manifest import Source
from .nn import ClipImageTower, ClipTextTower, Embedding, Linear, Normalise, Precision, VisionTransformer
from .preprocess import CLIP_MEAN, CLIP_STD
from .weights import Weights, load_state_dict

HPSV1 = "hpc.pt"
HPSV1_HINT = "the repository tgxs002/align_sd (Human Preference Score) links to it"
HPSV2_REPO = "xswu/HPSv2"
HPSV2_FILES = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}
HPSV2_CONFIG = "hpsv2_open_clip_config.json"

EPS = 1e-5
OPENAI_HEAD = 64  # clip.model.build_model: as many heads as fit at this width
HPSV2_VISION_HEAD, HPSV2_TEXT_HEAD = 80, 64  # ViT-H-14.json of open_clip

# What older files carry besides the parameters: sizes as scalars, the causal mask.
NOT_PARAMETERS = ("logit_scale", "input_resolution", "context_length", "vocab_size", "attn_mask")

# (vision width, layers, text width, layers)
L14 = (1024, 24, 768, 12)
H14 = (1280, 32, 1024, 24)


@dataclass(frozen=True)
class OpenAiSizes:
    """Sizes as the tensors have them; only the heads cannot be seen in them."""

    vision_width: int
    vision_layers: int
    vision_mlp: int
    patch: int
    image: int
    text_width: int
    text_layers: int
    text_mlp: int
    vocabulary: int
    context: int
    projection: int

    def is_a(self, published: tuple[int, int, int, int]) -> bool:
        return (self.vision_width, self.vision_layers, self.text_width, self.text_layers) == published


def read_sizes(w: Weights) -> OpenAiSizes:
    width, _, patch, _ = w.shape("visual.conv1.weight")
    patches = w.shape("visual.positional_embedding")[0] - 1
    side = math.isqrt(patches)
    if side * side != patches:
        raise ExportError(f"{w.origin}: visual.positional_embedding has {patches} patches, which make no square")
    vocabulary_size, text_width = w.shape("token_embedding.weight")
    return OpenAiSizes(
        vision_width=width,
        vision_layers=w.count(r"visual\.transformer\.resblocks\.(\d+)\."),
        vision_mlp=w.shape("visual.transformer.resblocks.0.mlp.c_fc.weight")[0],
        patch=patch,
        image=side * patch,
        text_width=text_width,
        text_layers=w.count(r"transformer\.resblocks\.(\d+)\."),
        text_mlp=w.shape("transformer.resblocks.0.mlp.c_fc.weight")[0],
        vocabulary=vocabulary_size,
        context=w.shape("positional_embedding")[0],
        projection=w.shape("text_projection")[1],
    )


def image_tower(w: Weights, s: OpenAiSizes, heads: int, act: str, scale: float, precision: Precision) -> ClipImageTower:
    """The vision half; `scale` takes its pixels to [0, 1]."""
    width = s.vision_width
    body = VisionTransformer(
        patch=w.take("visual.conv1.weight", width, 3, s.patch, s.patch),
        patch_bias=None,
        cls=w.take("visual.class_embedding", width),
        position=w.take("visual.positional_embedding", (s.image // s.patch) ** 2 + 1, width),
        norm_pre=layouts.norm(w, "visual.ln_pre", width, EPS),
        blocks=[
            layouts.openai_block(
                w, f"visual.transformer.resblocks.{i}", width, s.vision_mlp, heads, act, EPS, precision
            )
            for i in range(s.vision_layers)
        ],
        precision=precision,
    )
    projection = Linear(w.take("visual.proj", width, s.projection).t(), None, precision)
    post = layouts.norm(w, "visual.ln_post", width, EPS)
    return ClipImageTower(Normalise(CLIP_MEAN, CLIP_STD, scale), body, post, projection)


def text_tower(w: Weights, s: OpenAiSizes, heads: int, act: str, precision: Precision) -> ClipTextTower:
    width = s.text_width
    return ClipTextTower(
        tokens=Embedding(w.take("token_embedding.weight", s.vocabulary, width), precision),
        position=w.take("positional_embedding", s.context, width),
        blocks=[
            layouts.openai_block(w, f"transformer.resblocks.{i}", width, s.text_mlp, heads, act, EPS, precision)
            for i in range(s.text_layers)
        ],
        norm=layouts.norm(w, "ln_final", width, EPS),
        projection=Linear(w.take("text_projection", width, s.projection).t(), None, precision),
        precision=precision,
    )


def _heads(width: int, per_head: int, origin: str) -> int:
    if width % per_head:
        raise ExportError(f"{origin}: a width of {width} is no multiple of the head width {per_head}")
    return width // per_head


def _graphs(
    request: Request,
    role: str,
    path: Path,
    source: Source,
    *,
    act: str,
    heads: tuple[int, int],
    geometry: str,
    published: tuple[int, int, int, int],
) -> Iterator[GraphJob]:
    """Image and text graph of one file; `heads` are the head widths of vision and text."""
    sizes = read_sizes(load_state_dict(path, "state_dict"))
    vision_heads, text_heads = (
        _heads(n, h, str(path)) for n, h in zip((sizes.vision_width, sizes.text_width), heads, strict=True)
    )
    if sizes.vocabulary != vocabulary.CLIP_TOKENS:
        raise ExportError(f"{path}: {sizes.vocabulary} tokens, CLIP's vocabulary has {vocabulary.CLIP_TOKENS}")
    request.needs_tokenizer("clip", _merges(request))
    table = (
        preprocess.letterbox(sizes.image)
        if geometry == "letterbox"
        else preprocess.shortest_edge(sizes.image, crop="half_even")
    )
    scale = 1 if geometry == "letterbox" else 1 / 255
    official = sizes.is_a(published)

    def image_module() -> ClipImageTower:
        w = load_state_dict(path, "state_dict")
        with w.checking_only():
            text_tower(w, sizes, text_heads, act, request.precision)
        module = image_tower(w, sizes, vision_heads, act, scale, request.precision)
        w.finish(*NOT_PARAMETERS)
        return module

    def text_module() -> ClipTextTower:
        w = load_state_dict(path, "state_dict")
        with w.checking_only():
            image_tower(w, sizes, vision_heads, act, scale, request.precision)
        module = text_tower(w, sizes, text_heads, act, request.precision)
        w.finish(*NOT_PARAMETERS)
        return module

    yield embedding_image_job([f"{role}.image"], image_module(), sizes.projection, table, source, official)
    yield clip_text_job(
        f"{role}.text", text_module(), sizes.projection, sizes.context, source, official, cleaning="openai", pad=0
    )


def _merges(request: Request) -> list[str]:
    """The packages ship their vocabulary in code, not in the checkpoint: it is CLIP's standard one."""
    try:
        return vocabulary.clip_merges_of_package()
    except ExportError:
        for hub_id in (request.clip, PICK_SCORE_PROCESSOR):
            try:
                return vocabulary.clip_merges_of(request.checkpoints.folder(hub_id, TOKENIZER_FILES, weights=False))
            except MissingCheckpoint:
                continue
        raise


def hpsv1_graphs(request: Request) -> Iterator[GraphJob]:
    """hpsv1: OpenAI's ViT-L/14, fine-tuned; all its weights are in hpc.pt."""
    file = request.checkpoints.file(HPSV1, None, HPSV1_HINT)
    yield from _graphs(
        request,
        "hpsv1",
        file.path,
        file.source(),
        act="quick_gelu",
        heads=(OPENAI_HEAD, OPENAI_HEAD),
        geometry="shortest_edge",
        published=L14,
    )


def hpsv2_graphs(request: Request) -> Iterator[GraphJob]:
    """hpsv2: open_clip's ViT-H-14, fine-tuned. Takes float pixels, letterboxed and not yet normalised."""
    file = request.checkpoints.file(HPSV2_FILES[request.hps], HPSV2_REPO)
    source = file.source()
    heads, published = (HPSV2_VISION_HEAD, HPSV2_TEXT_HEAD), H14
    if path := request.checkpoints.local("files", HPSV2_CONFIG):
        config = json.loads(path.read_text())
        vision, text = config["vision_cfg"], config["text_cfg"]
        heads = (vision.get("head_width", OPENAI_HEAD), text["width"] // text["heads"])
    yield from _graphs(
        request,
        "hpsv2",
        file.path,
        Source(f"{source.checkpoint} {request.hps}", source.revision, source.file, source.sha256),
        act="gelu",
        heads=heads,
        geometry="letterbox",
        published=published,
    )
