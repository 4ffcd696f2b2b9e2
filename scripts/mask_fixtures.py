#!/usr/bin/env python3
"""Writes tests/data/mask/: a graph that finds the person of a photo, its table of a manifest, and expected masks.

    make export-setup
    .runtime/export/bin/python scripts/mask_fixtures.py

The model has random weights and rembg's interface. The masks are computed as rembg computes them, with Pillow and the
model alone, never with the graph that wraps it. From half of the range on, a pixel is the person.
"""

import pathlib
import sys
import tempfile

import numpy as np
from PIL import Image, ImageOps

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "export"))

from stellar_export.generator import tiny_mask  # noqa: E402
from stellar_export.generator.mask import ROLE, MaskModel  # noqa: E402
from stellar_export.manifest import Manifest  # noqa: E402
from stellar_export.nn import FP32  # noqa: E402
from stellar_export.pack import Builder  # noqa: E402

OUT = ROOT / "tests/data/mask"
PHOTOS = ROOT / "packs/demo-generator/goldens"
SIDE, WIDTH = 32, 4


def expected(model: MaskModel, path: pathlib.Path) -> Image.Image:
    """The mask of a photo."""
    photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    small = np.asarray(photo.resize((model.side, model.side), Image.Resampling.LANCZOS))
    levels = (model.expected(small[None])[0] * 255).astype(np.uint8)
    large = Image.fromarray(levels).resize(photo.size, Image.Resampling.LANCZOS)
    return large.point(lambda level: 255 if level >= 128 else 0)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "tiny.onnx"
        tiny_mask.make(path, SIDE, WIDTH)
        model = MaskModel.read(path, any_side=True)
        builder = Builder(pathlib.Path(scratch), FP32, 1 << 30, print)
        job = model.job()
        builder.add_model(job, model.graph(), [[model.expected(probe.inputs["pixels"])] for probe in job.probes])
        (OUT / f"{ROLE}.onnx").write_bytes((pathlib.Path(scratch) / "graphs" / f"{ROLE}.onnx").read_bytes())
    table = Manifest("", "", "", graphs=builder.graphs).dumps()
    (OUT / "graph.toml").write_text(table[table.index("[[graph]]") :])
    for name in ("astronaut-face.jpg", "rocket.jpg", "turned.jpg"):
        expected(model, PHOTOS / name).save(OUT / f"{pathlib.Path(name).stem}.png", optimize=True)


if __name__ == "__main__":
    main()
