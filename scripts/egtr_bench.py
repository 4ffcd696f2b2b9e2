#!/usr/bin/env python3
"""Measures EGTR at full size: the exported graph against the reference of the exporter's tests.

    .runtime/export/bin/python scripts/egtr_bench.py ROOT PACK [--threads 1] [--rounds 2]

ROOT is a folder of checkpoints with `files/egtr`, PACK the pack made from it. The reference uses the Deformable DETR of
transformers and computes relations subject by subject in double precision. Each side runs in its own process, so that
its peak memory is its own, with one image of 1024x768 at a time (800x1066 for the model). On a shared machine, compare
CPU time.
"""

import sys
from pathlib import Path

from side_by_side import main, measure, synthetic_image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "export"))


def photo():
    from PIL import Image

    return Image.fromarray(synthetic_image(1024)[:768])


def few(classes, relation) -> list[float]:
    """A few numbers of the outputs, for comparing both sides."""
    return [*classes[0, :20].tolist(), *relation[0, 1, :20].tolist()]


def original(root: Path, threads: int, rounds: int) -> dict:
    import torch
    from stellar_export.checkpoints import Checkpoints
    from stellar_export.reference.egtr import scene_grapher

    torch.set_num_threads(threads)

    def run(see):
        found = see(photo())
        return few(found.classes, found.relation)

    return measure(lambda: scene_grapher(Checkpoints(root)), run, rounds)


def graph(root: Path, pack: Path, threads: int, rounds: int) -> dict:
    import numpy as np
    import onnxruntime as ort
    from PIL import Image

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # as in the service
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    def run(session):
        pixels = np.asarray(photo().resize((1066, 800), Image.Resampling.BILINEAR))
        found = session.run(["classes", "relation"], {"pixels": pixels[None]})
        return few(*(output[0] for output in found))

    def load():
        return ort.InferenceSession(pack / "graphs/relations.onnx", options, providers=["CPUExecutionProvider"])

    return measure(load, run, rounds)


if __name__ == "__main__":
    main(__doc__, original, graph)
