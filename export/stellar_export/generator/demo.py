"""The demo generator pack: a tiny random SDXL and random words; `python -m stellar_export demo-generator` builds it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from .. import pack
from ..demo import MIT
from . import tiny_sdxl
from .export import IMAGE_ENCODERS, Options
from .export import build as build_pack

SEED = 0
WORDS = 5
HIDDEN = 16
LORA_RANK = 4
# Of the image encoders' four layers; -1 is the last one.
LAYERS = [1, 2, 3, 4, -1]

NOTICE = f"""\
The weights in this pack are random numbers: its pictures mean nothing. Of others are:

tokenizers/clip-merges.txt
    The vocabulary of CLIP. Copyright (c) 2021 OpenAI. MIT License, below.
goldens/astronaut-face.jpg, brick-225x180.jpg, chelsea.webp, rocket.jpg, turned.jpg
    Public domain or CC0; export/stellar_export/pictures/README.md of the repository
    of stellar-score names the source of each. turned.jpg is astronaut-face.jpg in small.

{MIT}"""


def build(out: Path, say: Callable[[str], None]) -> None:
    """Makes the checkpoints and builds the pack `out` from them."""
    pack.refuse_to_overwrite(out)
    with tempfile.TemporaryDirectory(prefix="stellar-export-") as scratch:
        options = checkpoints(Path(scratch))
        build_pack(options, out, "demo-generator", say)


def checkpoints(root: Path) -> Options:
    """Writes base model and trained checkpoint under `root`."""
    base, stellarnet = root / "base", root / "stellarnet"
    tiny_sdxl.make(base, SEED)
    random_stellarnet(base, stellarnet, SEED)
    return Options(base, stellarnet, notice=NOTICE)


def random_stellarnet(base: Path, out: Path, seed: int, hidden: int = HIDDEN) -> None:
    """A StellarNet checkpoint of random float16 numbers for a tiny base model, whose adapters do something."""
    from diffusers import UNet2DConditionModel

    from stellar_train import lora, mapper

    out.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = {name: json.loads((base / name / "config.json").read_text())["hidden_size"] for name in IMAGE_ENCODERS}
        words = mapper.Mapper(widths, tiny_sdxl.TEXT_WIDTHS, WORDS, hidden)
        unet = UNet2DConditionModel(**tiny_sdxl.UNET)
        lora.inject(unet, LORA_RANK, LORA_RANK, seed)
        for _, layer in lora.layers(unet):
            torch.nn.init.kaiming_uniform_(layer.down)
            torch.nn.init.uniform_(layer.up, -0.2, 0.2)
    state, adapters = words.state_dict(), lora.state(unet)
    save_file({k: v.half().float() for k, v in state.items()}, out / mapper.WEIGHTS)
    save_file({k: v.half().float() for k, v in adapters.items()}, out / lora.FILE)
    config = dict(
        schema=mapper.SCHEMA,
        system="stellarnet-like",
        words=WORDS,
        hidden=hidden,
        encoders=list(IMAGE_ENCODERS),
        layers={name: LAYERS for name in IMAGE_ENCODERS},
        lora_rank=LORA_RANK,
        lora_alpha=LORA_RANK,
        training=None,
    )
    (out / mapper.CONFIG).write_text(json.dumps(config, indent=1) + "\n")
