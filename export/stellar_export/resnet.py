"""ResNet as a trunk of feature maps, in timm's and torchvision's layout, its batch norms at rest and folded."""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from . import layouts
from .nn import Conv, Precision
from .weights import Weights

# PyTorch's default, which the published ResNets were trained with.
BATCH_NORM_EPS = 1e-5

# Layers a stage of ResNet-50, and the width of its first convolution.
RESNET_50 = ((3, 4, 6, 3), 64)

# A bottleneck's last convolution is this many times wider than its others.
EXPANSION = 4


def unit(w: Weights, conv: str, norm: str, out: int, into: int, kernel: int, stride: int, precision: Precision) -> Conv:
    """A convolution of a square kernel without a bias, and the batch norm behind it."""
    weight = w.take(f"{conv}.weight", out, into, kernel, kernel)
    scale, shift = layouts.batch_norm(w, norm, out, BATCH_NORM_EPS)
    half = kernel // 2
    folded = (weight.double() * scale[:, None, None, None]).float()
    return Conv(folded, shift.float(), precision, stride, (half, half))


class Bottleneck(nn.Module):
    """Three convolutions around which the input goes; the middle one has the stride."""

    def __init__(self, w: Weights, at: str, into: int, width: int, stride: int, precision: Precision):
        super().__init__()
        out = EXPANSION * width
        self.units = nn.ModuleList(
            unit(w, f"{at}.conv{i}", f"{at}.bn{i}", *shape, precision)
            for i, shape in ((1, (width, into, 1, 1)), (2, (width, width, 3, stride)), (3, (out, width, 1, 1)))
        )
        around = f"{at}.downsample"
        self.around = (
            unit(w, f"{around}.0", f"{around}.1", out, into, 1, stride, precision)
            if f"{around}.0.weight" in w
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.units
        return F.relu(third(F.relu(second(F.relu(first(x))))) + self.around(x))


class ResNet(nn.Module):
    """Pictures `f32[N,3,H,W]` → the feature maps of its last three stages: an eighth, a 16th and a 32nd of the sides.

    Widths and depths are those of the tensors under `at`.
    """

    def __init__(self, w: Weights, at: str, precision: Precision):
        super().__init__()
        width = w.shape(f"{at}.conv1.weight")[0]
        depths = tuple(w.count(rf"{re.escape(at)}\.layer{stage}\.(\d+)\.") for stage in range(1, 5))
        self.sizes = (depths, width)
        self.stem = unit(w, f"{at}.conv1", f"{at}.bn1", width, 3, 7, 2, precision)
        self.stages, into = nn.ModuleList(), width
        for stage, depth in enumerate(depths):
            inner, blocks = width << stage, []
            for i in range(max(depth, 1)):  # of a stage that is not there, the first key is missing
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(Bottleneck(w, f"{at}.layer{stage + 1}.{i}", into, inner, stride, precision))
                into = EXPANSION * inner
            self.stages.append(nn.Sequential(*blocks))
        self.widths = [EXPANSION * width << stage for stage in (1, 2, 3)]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1:]
