"""The face embedding, trained to tell the people of the drawn world apart by what MTCNN would cut out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from .drawings import Drawings
from .training import contrast, descend, unit

SIDE = 160  # of a face
PAIRS = 20
SCALE = 16.0
VISIBLE = (0, 1, 4, 5, 6, 7)  # of the eight attributes, those that drawings show


class Crops:
    """Faces of the drawings, a little off their boxes, as a detector's are."""

    def __init__(self, drawings: Drawings, rng: np.random.Generator):
        self.rng = rng
        self.pictures = [drawings.open(at) for at in range(len(drawings.records))]
        self.faces = [r.face for r in drawings.records]

    def pixels(self, at: np.ndarray) -> Tensor:
        """`f32[N,3,160,160]` around 0, as facenet-pytorch standardises."""
        crops = np.empty((len(at), SIDE, SIDE, 3), np.uint8)
        for i, number in enumerate(at):
            picture, (left, top, right, bottom) = self.pictures[number], self.faces[number]
            width, height = right - left, bottom - top
            shift = self.rng.uniform(-0.12, 0.12, 4) * [width, height, width, height]
            box = (np.array([left, top, right, bottom]) + shift) * picture.width
            box = tuple(box.clip(0, picture.width))
            crops[i] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box))
        return (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 127.5) / 128


def train(path: Path, drawings: Drawings, steps: int, seed: int, say: Callable[[str], None]) -> dict[str, Tensor]:
    """Starts from the checkpoint at `path`; returns the weights in its layout."""
    from ..reference.faces import embedding_model

    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model, crops = embedding_model(path), Crops(drawings, rng)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.train()
    model.dropout.p = 0.0
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 0.1
    attributes = torch.tensor([[r.attributes[i] for i in VISIBLE] for r in drawings.records], dtype=torch.float32)
    probe = nn.Linear(512, len(VISIBLE))
    photos = {p: np.flatnonzero(drawings.photos & (drawings.people == p)) for p in np.unique(drawings.people)}
    others = {p: np.flatnonzero(~drawings.photos & (drawings.people == p)) for p in photos}
    eye = torch.eye(PAIRS, dtype=torch.bool)

    def loss(_: int) -> Tensor:
        people = rng.choice(list(photos), PAIRS, replace=False)
        at = np.concatenate([[rng.choice(kind[p]) for p in people] for kind in (others, photos)])
        embedded = unit(model(crops.pixels(at)))
        seen = F.binary_cross_entropy_with_logits(probe(8 * embedded), attributes[at])
        return contrast(embedded[:PAIRS], embedded[PAIRS:], eye, SCALE) + 0.5 * seen

    descend([*model.parameters(), *probe.parameters()], steps, loss, say)
    return {k: v.data for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
