#!/usr/bin/env python3
"""Measures the demo pack's face nets against facenet-pytorch's modules, exported unchanged, in ONNX Runtime.

    .runtime/export/bin/python scripts/mtcnn_bench.py

One thread, tiles and crops in the sizes and batches of the service, alternating rounds; CPU time per item.
"""

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from facenet_pytorch.models import mtcnn
from torch import nn

PACK = Path(__file__).parents[1] / "packs/demo/graphs"
ROUNDS = 21
# Net, side, batch: tiles of a pyramid level, then crops.
CASES = [("pnet", 266, 1), ("pnet", 266, 4), ("rnet", 24, 8), ("rnet", 24, 64), ("onet", 48, 8), ("onet", 48, 32)]


class Plain(nn.Module):
    """The package's net with the input of our graphs; it turns its two logits into a probability."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, pixels):
        return self.net((pixels.permute(0, 3, 1, 2) - 127.5) * 0.0078125)


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False  # as in the service
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def exported(name: str, side: int, batch: int, folder: Path) -> ort.InferenceSession:
    net = {"pnet": mtcnn.PNet, "rnet": mtcnn.RNet, "onet": mtcnn.ONet}[name]().eval()
    path = folder / f"{name}-{batch}.onnx"
    example = (torch.zeros(batch, side, side, 3),)
    torch.onnx.export(Plain(net), example, path, dynamo=True, opset_version=18, verbose=False)
    return session(path)


def main() -> None:
    warnings.simplefilter("ignore")  # of the exporter, about torch
    print("net, side, batch: as exported, ours (ms a piece), times, probabilities within")
    with tempfile.TemporaryDirectory() as folder:
        for name, side, batch in CASES:
            plain, ours = exported(name, side, batch, Path(folder)), session(PACK / f"faces.{name}.onnx")
            pixels = np.random.default_rng(0).uniform(0, 255, (batch, side, side, 3)).astype(np.float32)
            spent = {plain: [], ours: []}
            for _ in range(ROUNDS):
                for graph, times in spent.items():
                    start = time.process_time()
                    graph.run(None, {"pixels": pixels})
                    times.append(time.process_time() - start)
            a, b = (np.array(times) * 1e3 / batch for times in spent.values())
            # The package returns corrections first and both probabilities last.
            worst = np.abs(plain.run(None, {"pixels": pixels})[-1][:, 1] - ours.run(["prob"], {"pixels": pixels})[0]).max()
            print(
                f"{name} {side:3} {batch:2}: {np.median(a):.3f} {np.median(b):.3f} "
                f"{np.median(a / b):.2f} {worst:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
