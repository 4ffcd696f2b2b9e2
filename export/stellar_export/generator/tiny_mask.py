"""A tiny segmentation model with the interface of rembg's U²-Net, for tests and demonstrations."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

SIDE = 64
WIDTH = 8


class TinyMask(nn.Module):
    """Two levels down and up again; logits of the foreground for normalised pictures [N, 3, side, side]."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.ReLU(), nn.Conv2d(o, o, 3, 1, 1), nn.ReLU())
            for i, o in ((3, width), (width, 2 * width), (2 * width, 2 * width))
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 1, 1), nn.ReLU())
            for i, o in ((4 * width, 2 * width), (3 * width, width), (width + 3, width))
        )
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        kept, x = [pictures], pictures
        for part in self.down:
            x = part(x)
            kept.append(x)
        kept.pop()
        for part in self.up:
            beside = kept.pop()
            x = nn.functional.interpolate(x, size=beside.shape[2:], mode="nearest")
            x = part(torch.cat([x, beside], 1))
        return self.out(x)


class _Published(nn.Module):
    """The form of the published files: a sigmoid, and a second output, which is not used."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.sigmoid(self.inner(pictures))
        return mask, 1 - mask


def save(module: nn.Module, path: Path, side: int = SIDE, batches: bool = False) -> None:
    """Writes the ONNX file; of one picture at a time, as the published ones, unless it `batches`."""
    batch = {"pictures": {0: torch.export.Dim("batch", min=1)}} if batches else None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Published(module).eval(),
            (torch.zeros(2 if batches else 1, 3, side, side),),
            str(path),
            dynamo=True,
            external_data=False,
            dynamic_shapes=batch,
            input_names=["input.1"],
            output_names=["d0", "d1"],
            verbose=False,
        )


def make(path: Path, side: int = SIDE, width: int = WIDTH, seed: int = 0, batches: bool = False) -> None:
    """Writes a model of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = TinyMask(width)
    save(module, path, side, batches)
