"""Builds a generator pack: the graphs of an SDXL base model and of the words of a photo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import clip, jobs, layouts, pack, preprocess
from ..checkpoints import Folder
from ..errors import ExportError
from ..jobs import GraphJob
from ..manifest import IoSpec, Source
from ..nn import FP16, FP32, Embedding, Linear, Precision
from ..onnx_graph import EXTERNAL_ABOVE, Probe
from ..weights import POSITION_IDS, Weights, load_folder, weight_files
from . import scheduler
from .base import TEXT_FILES, Base, halved, is_published
from .mask import MaskModel
from .modules import Decoder, Denoiser, WordsInText
from .splice import CONTEXT, PLACEHOLDER
from .words import SIDE, PhotoWords, checkpoint_files, encoder, trained

IMAGE_ENCODERS = ("image_encoder", "image_encoder_2")
LARGEST_SIDE = 2048
# Two halves of each picture, and a few pictures at a time.
DENOISER_BATCH = 8


def looseness(precision: Precision) -> float:
    """Hidden states, noise and pictures are of a few units, and layers widen what half precision rounds."""
    return 20 if precision == FP16 else 4


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    base: Path
    stellarnet: Path | None = None
    """A trained checkpoint; without it the pack has no words of photos."""
    image_encoders: tuple[Path | None, Path | None] = (None, None)
    """Folders of the image encoders, where they are not beside the base model."""
    precision: Precision = FP32
    gpu: bool = False
    external_above: int = EXTERNAL_ABOVE
    flops: bool = False
    goldens: bool = True
    mask_model: Path | None = None
    """A U²-Net as rembg publishes it; without it the pack makes no masks."""
    notice: str | None = None


def build(options: Options, out: Path, name: str, say: Callable[[str], None] = print) -> None:
    """Builds the pack `out`, or leaves what was there untouched."""
    base = Base.open(options.base)
    masks = MaskModel.read(options.mask_model, any_side=base.marked_demo) if options.mask_model else None
    with pack.replaced(out) as part:
        builder = pack.Builder(part, options.precision, options.external_above, say, options.gpu, options.flops)
        builder.needs_tokenizer("clip", base.merges())
        for job in graphs(base, options):
            builder.add(job)
        if masks:
            job = masks.job()
            expected = [[masks.expected(probe.inputs["pixels"])] for probe in job.probes]
            builder.add_model(job, masks.graph(), expected)
        manifest = builder.manifest(name, base.marked_demo)
        manifest.generator = describe(base, options, builder)
        if options.goldens:
            from . import goldens

            manifest.goldens = goldens.write(builder, base, options, say)
        pack.finish(part, manifest, options.notice)
    pack.summarise(out, manifest, say)


def graphs(base: Base, options: Options) -> Iterator[GraphJob]:
    """One graph after the other, so that one tower is in memory at a time."""
    config = base.unet_config()
    first, second = (text_config(base, name) for name in ("text_encoder", "text_encoder_2"))
    widths = (first.tower.width, second.tower.width)
    if config["cross_attention_dim"] != sum(widths):
        raise ExportError(
            f"{base.path}: the UNet takes contexts of {config['cross_attention_dim']} values, "
            f"the text encoders give {widths[0]} + {widths[1]}"
        )
    if options.stellarnet:
        yield words_job(base, options, widths)
    for text in (first, second):
        yield text_job(base, text, options.precision)
    yield denoiser_job(base, options, sum(widths), second.projection)
    yield decoder_job(base)


# ---- the words of a photo


def encoder_folder(base: Base, options: Options, name: str) -> Folder:
    """Where an image encoder is: in the folder that the command line names, or beside the base model."""
    given = options.image_encoders[IMAGE_ENCODERS.index(name)]
    path = given or base.path / name
    if not path.is_dir():
        flag = "--" + name.replace("_", "-")
        raise ExportError(f"{path} is not a folder: the words were trained with this image encoder; give {flag}")
    return Folder(path.resolve().name if given else f"{base.path.resolve().name}/{name}", path, "local")


def words_job(base: Base, options: Options, widths: tuple[int, int]) -> GraphJob:
    mapper, config = trained(options.stellarnet, widths)
    unknown = [name for name in config["encoders"] if name not in IMAGE_ENCODERS]
    if unknown:
        raise ExportError(f"{options.stellarnet}: encoders {unknown} are not known, only {', '.join(IMAGE_ENCODERS)}")
    encoders, official = {}, True
    source = Folder(config["system"], options.stellarnet, "local").source(checkpoint_files(options.stellarnet))
    for name in config["encoders"]:
        folder = encoder_folder(base, options, name)
        encoders[name] = encoder(folder, config["layers"][name], options.precision)
        official &= encoders[name].official
        source = Source.of_both(source, folder.source(weight_files(folder.path)))
        expected = next(iter(mapper.get_submodule(name)["1"].parameters())).shape[1]
        if encoders[name].width != expected:
            raise ExportError(
                f"{folder.path}: hidden states of {encoders[name].width} values, "
                f"{options.stellarnet} was trained with {expected}"
            )
    outputs = [IoSpec(f"words_{i}", "f32", (config["words"], width)) for i, width in enumerate(widths, 1)]
    geometry = preprocess.exact(SIDE, SIDE, "bicubic")
    job = jobs.image_job(["generator.words"], PhotoWords(encoders, mapper), outputs, geometry, source, official)
    job.compact, job.looseness = True, looseness(options.precision)
    return job


# ---- texts


@dataclass(frozen=True)
class TextConfig:
    """The sizes of a text encoder."""

    name: str
    tower: clip.Tower
    vocabulary: int
    projection: int

    @property
    def pooled(self) -> bool:
        """Whether SDXL takes a pooled state of it."""
        return self.name == "text_encoder_2"


def text_config(base: Base, name: str) -> TextConfig:
    folder = base.part(name)
    config, where = {**clip.TEXT_DEFAULTS, **folder.json("config.json")}, str(folder.path / "config.json")
    context = config["max_position_embeddings"]
    if context != CONTEXT:
        raise ExportError(f"{where}: max_position_embeddings is {context}, expected {CONTEXT}")
    return TextConfig(name, clip.tower(config, where), config["vocab_size"], config.get("projection_dim", 512))


def text_module(w: Weights, text: TextConfig, precision: Precision) -> WordsInText:
    """Takes all weights of a text encoder; the second one also gives the pooled state."""
    t, at = text.tower, "text_model"
    sizes = (t.width, t.mlp, t.heads, t.act, t.eps, precision)
    tokens = Embedding(w.take(f"{at}.embeddings.token_embedding.weight", text.vocabulary, t.width), precision)
    position = w.take(f"{at}.embeddings.position_embedding.weight", CONTEXT, t.width)
    blocks = [layouts.hf_clip_block(w, f"{at}.encoder.layers.{i}", *sizes) for i in range(t.layers - 1)]

    def last():
        return (
            layouts.hf_clip_block(w, f"{at}.encoder.layers.{t.layers - 1}", *sizes),
            layouts.norm(w, f"{at}.final_layer_norm", t.width, t.eps),
        )

    head = None
    if text.pooled:
        projection = w.take("text_projection.weight", text.projection, t.width)
        head = (*last(), Linear(projection, None, precision))
    else:
        # SDXL takes the states before the last layer, and nothing else of the first encoder.
        with w.checking_only():
            last()
    w.finish(POSITION_IDS)
    return WordsInText(tokens, position, blocks, precision, head)


def text_job(base: Base, text: TextConfig, precision: Precision) -> GraphJob:
    """The text encoder of either kind."""
    folder, t, second = base.part(text.name), text.tower, text.pooled
    hidden = IoSpec("hidden", "f32", (CONTEXT, t.width))
    tokenizer = "tokenizer_2" if second else "tokenizer"
    return GraphJob(
        roles=["generator.text_2" if second else "generator.text_1"],
        kind="joint",
        module=text_module(load_folder(folder.path, TEXT_FILES), text, precision),
        inputs=[
            IoSpec("input_ids", "i64", (CONTEXT,)),
            IoSpec("words", "f32", (-1, t.width)),
            IoSpec("at", "i64", ()),
            IoSpec("eos", "i64", ()),
        ],
        outputs=[hidden, IoSpec("pooled", "f32", (text.projection,))] if second else [hidden],
        example=text_probe(2, 5, t.width, 0),
        probes=[text_probe(1, 5, t.width, 1), text_probe(3, 5, t.width, 2), text_probe(3, 1, t.width, 3)],
        source=folder.source(weight_files(folder.path, TEXT_FILES)),
        official=(t.width, t.layers) in {(768, 12), (1280, 32)},
        text=dict(tokenizer="clip", cleaning="hf_slow", context=CONTEXT, pad=base.pad(tokenizer)),
        max_batch=32,
        longest=CONTEXT - 2,
        compact=True,
        looseness=looseness(precision),
    )


def text_probe(batch: int, words: int, width: int, seed: int) -> Probe:
    """Prompts with words at the begin, in the middle and at no place at all."""
    rng = np.random.default_rng(seed)
    ids = jobs.clip_ids(batch, CONTEXT, CONTEXT, seed).inputs["input_ids"]
    at = np.array([(4, 1, -1)[(i + seed) % 3] for i in range(batch)], np.int64)
    eos = rng.integers(words + 5, CONTEXT, batch).astype(np.int64)
    vectors = rng.standard_normal((batch, words, width)).astype(np.float32)
    return Probe({"input_ids": ids, "words": vectors, "at": at, "eos": eos})


# ---- pictures


def denoiser_job(base: Base, options: Options, context: int, pooled: int) -> GraphJob:
    unet = base.unet()
    source, official = base.source("unet"), is_published("unet", unet)
    if options.stellarnet:
        source = Source.of_both(source, fuse_lora(unet, options.stellarnet))
    channels = unet.config.in_channels
    return GraphJob(
        roles=["generator.denoiser"],
        kind="joint",
        module=Denoiser(halved(unet, options.precision), options.precision),
        inputs=[
            IoSpec("sample", "f32", (channels, -1, -1)),
            IoSpec("timestep", "f32", ()),
            IoSpec("context", "f32", (CONTEXT, context)),
            IoSpec("pooled", "f32", (pooled,)),
            IoSpec("time_ids", "f32", (6,)),
        ],
        outputs=[IoSpec("noise", "f32", (channels, -1, -1))],
        example=denoiser_probe(2, channels, (8, 12), context, pooled, 0),
        probes=[
            denoiser_probe(1, channels, (8, 8), context, pooled, 1),
            denoiser_probe(3, channels, (16, 12), context, pooled, 2),
        ],
        source=source,
        official=official,
        max_batch=DENOISER_BATCH,
        free=True,
        compact=True,
        attention=True,
        looseness=looseness(options.precision),
    )


def denoiser_probe(batch: int, channels: int, sides: tuple[int, int], context: int, pooled: int, seed: int) -> Probe:
    """Noise at different timesteps."""
    rng = np.random.default_rng(seed)
    height, width = (8.0 * side for side in sides)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((batch, *shape)).astype(np.float32)

    return Probe(
        {
            "sample": normal(channels, *sides),
            "timestep": np.array([(991, 481, 1)[i % 3] for i in range(batch)], np.float32),
            "context": normal(CONTEXT, context),
            "pooled": normal(pooled),
            "time_ids": np.array([[height, width, 0, 0, height, width]] * batch, np.float32),
        }
    )


def fuse_lora(unet, checkpoint: Path) -> Source:
    """Adds the trained adapters to the UNet's weights; returns where they come from."""
    import json

    from stellar_train.errors import TrainError
    from stellar_train.lora import FILE, fuse
    from stellar_train.mapper import CONFIG

    config = json.loads((checkpoint / CONFIG).read_text())
    try:
        fuse(unet, checkpoint / FILE, config.get("lora_alpha"))
    except TrainError as error:
        raise ExportError(f"{checkpoint / FILE}: {error}") from error
    return Folder(config["system"], checkpoint, "local").source([checkpoint / FILE])


def decoder_job(base: Base) -> GraphJob:
    vae = base.vae()
    channels = vae.config.latent_channels

    def probe(batch: int, height: int, width: int, seed: int) -> Probe:
        latents = 5 * np.random.default_rng(seed).standard_normal((batch, channels, height, width))
        return Probe({"latents": latents.astype(np.float32)})

    return GraphJob(
        roles=["generator.decoder"],
        kind="joint",
        module=Decoder(vae),
        inputs=[IoSpec("latents", "f32", (channels, -1, -1))],
        outputs=[IoSpec("image", "f32", (vae.config.out_channels, -1, -1))],
        example=probe(2, 8, 12, 0),
        probes=[probe(1, 8, 8, 1), probe(3, 16, 12, 2)],
        source=base.source("vae"),
        official=is_published("vae", vae),
        # Attention over all pixels of the latents of one large picture is 1 GB.
        max_batch=1,
        free=True,
        compact=True,
        attention=True,
        # Values leave the range of half precision.
        precision=FP32,
        looseness=looseness(FP32),
    )


# ---- the manifest's table


def describe(base: Base, options: Options, builder: pack.Builder) -> dict:
    """The table `[generator]`, whose files are written here."""
    unet, vae = base.unet_config(), base.vae_config()
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    table = dict(system="sdxl", placeholder=PLACEHOLDER, words=0)
    training = None
    if options.stellarnet:
        from stellar_train.mapper import load

        config = load(options.stellarnet)[1]
        table |= dict(system=config["system"], words=config["words"])
        training = config.get("training")
    table |= dict(
        latent_channels=vae["latent_channels"],
        latent_factor=factor,
        scaling_factor=vae["scaling_factor"],
        side_multiple=factor * 2 ** (len(unet["block_out_channels"]) - 1),
        default_side=factor * unet["sample_size"],
        largest_side=LARGEST_SIDE,
    )
    folder = base.part("scheduler")
    steps = scheduler.table(folder.json("scheduler_config.json"), str(folder.path / "scheduler_config.json"))
    table["scheduler"] = builder.write_json(steps, "scheduler.json")
    if training is not None:
        table["training"] = builder.write_json(training, "training.json")
    return table
