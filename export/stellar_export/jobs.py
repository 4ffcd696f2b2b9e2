"""What a model family hands to the builder: one job a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from .checkpoints import Checkpoints
from .manifest import IoSpec, Source
from .nn import Precision
from .onnx_graph import Probe, Settled


@dataclass
class GraphJob:
    """A module ready to be exported, and what the manifest says of it."""

    roles: Sequence[str]
    kind: str
    module: nn.Module | None
    inputs: Sequence[IoSpec]
    outputs: Sequence[IoSpec]
    example: Probe
    """Inputs that the module is traced with."""
    probes: Sequence[Probe]
    """Inputs on which the graph is held to the module."""
    source: Source
    official: bool
    """Whether the sizes are those of the published model; a pack with other sizes is a demo pack."""
    geometry: dict | None = None
    text: dict | None = None
    max_batch: int = 16
    longest: int | None = None
    """Upper limit of a dynamic length."""
    shortest: int = 1
    """Lower limit of a dynamic length."""
    free: bool = False
    """Whether dynamic lengths are traced without limits: for graphs that halve them, where the tracer would ask whether
    they are odd. The probes then have to cover what it cannot promise."""
    looseness: float = 1
    """Times the tolerance of unit-length embeddings: more for outputs of larger values."""
    backend: str | None = None
    """The model in a scene graph."""
    labels: dict | None = None
    """The names of a scene graph's `classes` and `predicates`."""
    precision: Precision | None = None
    """Of the arithmetic, where it is not what was asked for."""
    compact: bool = False
    """Whether weights that are float16 numbers are still to be stored as such: for modules that are not of `nn.py`."""
    attention: bool = False
    """Whether torch's own attention becomes one node in a graph for GPUs."""
    settled: Settled | None = None
    """Which outputs the graph is held to, where the last bits decide about some."""


@dataclass
class Request:
    """What the command line asked for."""

    checkpoints: Checkpoints
    precision: Precision
    clip: str
    models: Sequence[str]
    needs_tokenizer: Callable[[str, list[str]], None]
    """Called with a tokenizer's name and its lines by each family that needs it."""
    hps: str = "v2.0"
    gpu: bool = False
    """Whether the graphs are for GPUs."""
    say: Callable[[str], None] = field(default=print)


Family = Callable[[Request], Iterator[GraphJob]]


def pictures(batch: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Pictures with structure at several scales: noise alone would leave the attention nothing to look at."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    made = []
    for _ in range(batch):
        freq, phase = rng.uniform(0.005, 0.2, (3, 2)), rng.uniform(0, 6.28, 3)
        waves = np.stack([np.sin(x * f[0] + y * f[1] + p) for f, p in zip(freq, phase, strict=True)], axis=-1)
        made.append(np.clip(127 + 90 * waves + rng.normal(0, 15, (height, width, 3)), 0, 255))
    return np.stack(made).astype(np.uint8)


def picture_probe(batch: int, height: int, width: int, seed: int = 0, floats: bool = False) -> Probe:
    """Pictures as a graph takes them: bytes, or floats of which a few leave [0, 1] as a bicubic resize makes them."""
    pixels = pictures(batch, height, width, seed)
    return Probe({"pixels": (pixels / 240.0 - 0.03).astype(np.float32) if floats else pixels})


def clip_ids(batch: int, length: int, context: int, seed: int = 0) -> Probe:
    """Token ids of prompts of this many tokens, a shorter one among them padded with the end token."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(256, 49405, (batch, min(length, context)))
    ids[:, 0], ids[:, -1] = 49406, 49407
    if batch > 1 and length > 4:
        ids[1, length // 2 :] = 49407
    return Probe({"input_ids": ids.astype(np.int64)})


def image_job(
    roles: Sequence[str],
    module: nn.Module,
    outputs: Sequence[IoSpec],
    geometry: dict,
    source: Source,
    official: bool,
) -> GraphJob:
    """The job of a graph that takes one picture."""
    height, width, floats = geometry["height"], geometry["width"], geometry["dtype"] == "f32"
    return GraphJob(
        roles=roles,
        kind="image",
        module=module,
        inputs=[IoSpec("pixels", geometry["dtype"], (height, width, 3))],
        outputs=outputs,
        example=picture_probe(2, height, width, 0, floats),
        probes=[picture_probe(1, height, width, 1, floats), picture_probe(3, height, width, 2, floats)],
        source=source,
        official=official,
        geometry=geometry,
    )


def embedding_image_job(
    roles: Sequence[str], module: nn.Module, width: int, geometry: dict, source: Source, official: bool
) -> GraphJob:
    """The job of an image tower with one embedding."""
    return image_job(roles, module, [IoSpec("embedding", "f32", (width,))], geometry, source, official)


def clip_text_job(
    role: str, module: nn.Module, width: int, context: int, source: Source, official: bool, *, cleaning: str, pad: int
) -> GraphJob:
    """The job of a CLIP text tower; `cleaning` and `pad` are those of the package that defines the score."""
    lengths = sorted({min(n, context) for n in (3, 16, 77)})
    return GraphJob(
        roles=[role],
        kind="text",
        module=module,
        inputs=[IoSpec("input_ids", "i64", (-1,))],
        outputs=[IoSpec("embedding", "f32", (width,))],
        example=clip_ids(2, min(11, context), context),
        probes=[clip_ids(b, n, context, n) for n in lengths for b in (1, 3)],
        source=source,
        official=official,
        text=dict(tokenizer="clip", cleaning=cleaning, context=context, pad=pad),
        max_batch=32,
        longest=context,
    )
