"""The LAION aesthetic predictor's head: five linear layers without activations, so one affine map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .checkpoints import File
from .nn import ClipImageTower
from .weights import Weights, load_state_dict

FILE = "sac+logos+ava1-l14-linearMSE.pth"
HINT = "the repository christophschuhmann/improved-aesthetic-predictor publishes it"
LAYERS = (0, 2, 4, 6, 7)  # the numbers between are dropouts


def fold(w: Weights, into: int, layers: tuple[int, ...] = LAYERS, at: str = "layers") -> tuple[Tensor, Tensor]:
    """The weight `[into]` and bias of the affine map that the layers make together, computed in float64."""
    weight = torch.eye(into, dtype=torch.float64)
    bias = torch.zeros(into, dtype=torch.float64)
    width = into
    for n, layer in enumerate(layers):
        out = 1 if n == len(layers) - 1 else w.shape(f"{at}.{layer}.weight")[0]
        a = w.take(f"{at}.{layer}.weight", out, width).double()
        b = w.take(f"{at}.{layer}.bias", out).double()
        weight, bias, width = a @ weight.to(a.device), a @ bias.to(a.device) + b, out
    return weight[0], bias[0]


def load(file: File, embedding: int) -> tuple[Tensor, Tensor]:
    """The folded head; `embedding` is the width of the CLIP embedding that it is to sit on."""
    w = load_state_dict(file.path)
    folded = fold(w, embedding)
    w.finish()
    return folded


class AestheticTower(nn.Module):
    """Pixels → CLIP embedding and aesthetic score."""

    def __init__(self, tower: ClipImageTower, weight: Tensor, bias: Tensor):
        super().__init__()
        self.tower = tower
        self.weight = nn.Parameter(weight.float(), requires_grad=False)
        self.bias = nn.Parameter(bias.float(), requires_grad=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.tower(pixels)
        return embedding, (embedding * self.weight).sum(dim=-1) + self.bias
