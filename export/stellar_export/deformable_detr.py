"""Deformable DETR: objects in a picture of any size, by attention to few places instead of all.

Written from the paper (Zhu et al., *Deformable DETR*, ICLR 2021) and the tensors of transformers' layout. Pictures come
unpadded, so there are no masks and no ratios of what is valid. Sampling is ONNX's GridSample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import layouts
from .nn import Conv, Normalise, Precision
from .resnet import ResNet
from .weights import Weights

# Feature maps that the trunk gives; the further levels are convolutions of the last one.
OF_TRUNK = 3

GROUPS = 32
NORM_EPS = 1e-5
TEMPERATURE = 10_000.0

# Added to a count of rows or columns before it divides, as the original does.
POSITION_EPS = 1e-6

# An inverse sigmoid keeps this far from 0 and 1.
INVERSE_EPS = 1e-5


@dataclass(frozen=True)
class Config:
    """The sizes of a detector; a level is a feature map, a point is a place that a head looks at in it."""

    width: int
    heads: int
    queries: int
    encoder_layers: int
    decoder_layers: int
    encoder_mlp: int
    decoder_mlp: int
    levels: int
    encoder_points: int
    decoder_points: int
    classes: int


def position_maps(height: int, width: int, channels: int) -> Tensor:
    """Where a place is, as sines and cosines of its row (first half of the channels) and column: `[H·W, channels]`."""
    half = channels // 2
    period = TEMPERATURE ** (2 * torch.div(torch.arange(half, dtype=torch.float32), 2, rounding_mode="trunc") / half)

    def waves(count: int) -> Tensor:
        at = (torch.arange(1, count + 1, dtype=torch.float32) - 0.5) / (count + POSITION_EPS) * (2 * math.pi)
        angle = at[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)

    rows = waves(height)[:, None].expand(height, width, half)
    columns = waves(width)[None].expand(height, width, half)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def centres(height: int, width: int) -> Tensor:
    """The middle of each place of a feature map in parts of the picture, x and y: `[H·W, 2]`."""
    y = (torch.arange(height, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float32) + 0.5) / width
    grid = torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)], dim=-1)
    return grid.flatten(0, 1)


class DeformableAttention(nn.Module):
    """Each token looks at a few points around its reference in each level, and says itself where and how much."""

    def __init__(self, w: Weights, at: str, width: int, heads: int, levels: int, points: int, precision: Precision):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        spots = heads * levels * points
        self.offsets = layouts.linear(w, f"{at}.sampling_offsets", 2 * spots, width, precision)
        self.weights = layouts.linear(w, f"{at}.attention_weights", spots, width, precision)
        self.value = layouts.linear(w, f"{at}.value_proj", width, width, precision)
        self.out = layouts.linear(w, f"{at}.output_proj", width, width, precision)

    def forward(self, asking: Tensor, tokens: Tensor, reference: Tensor, sides: list[tuple[int, int]]) -> Tensor:
        """`asking` `[N,A,d]` about `tokens` `[N,T,d]`; `reference` `[1,A,2]` in parts of the picture.

        Tokens are the levels' places one after the other, `sides` the levels' rows and columns.
        """
        n, count, width = asking.shape
        heads, levels, points = self.heads, self.levels, self.points
        values = self.value(tokens).split([rows * columns for rows, columns in sides], dim=1)
        # [N, A, heads, levels, points, …] → heads before tokens, as the sampling takes them.
        offsets = self.offsets(asking).reshape(n, count, heads, levels, points, 2).transpose(1, 2)
        weights = torch.softmax(self.weights(asking).reshape(n, count, heads, levels * points), dim=-1).transpose(1, 2)
        mixed: Tensor | None = None
        for level, (rows, columns) in enumerate(sides):
            value = values[level].transpose(1, 2).reshape(n * heads, width // heads, rows, columns)
            x, y = offsets[:, :, :, level].unbind(-1)
            places = reference[:, None, :, None] + torch.stack([x / columns, y / rows], dim=-1)
            grid = (2 * places - 1).reshape(n * heads, count, points, 2)
            seen = F.grid_sample(value, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            share = weights[..., level * points : (level + 1) * points].reshape(n * heads, 1, count, points)
            part = (seen * share).sum(-1)
            mixed = part if mixed is None else mixed + part
        return self.out(mixed.reshape(n, width, count).transpose(1, 2))


class FeedForward(nn.Module):
    """Two layers with ReLU between them, added to their input and normalised."""

    def __init__(self, w: Weights, at: str, width: int, inner: int, precision: Precision):
        super().__init__()
        self.fc1 = layouts.linear(w, f"{at}.fc1", inner, width, precision)
        self.fc2 = layouts.linear(w, f"{at}.fc2", width, inner, precision)
        self.norm = layouts.norm(w, f"{at}.final_layer_norm", width, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.fc2(F.relu(self.fc1(x))))


class EncoderLayer(nn.Module):
    """Places of all levels look at each other."""

    def __init__(self, w: Weights, at: str, c: Config, precision: Precision):
        super().__init__()
        self.attention = DeformableAttention(
            w, f"{at}.self_attn", c.width, c.heads, c.levels, c.encoder_points, precision
        )
        self.norm = layouts.norm(w, f"{at}.self_attn_layer_norm", c.width, NORM_EPS)
        self.mlp = FeedForward(w, at, c.width, c.encoder_mlp, precision)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, sides: list[tuple[int, int]]) -> Tensor:
        return self.mlp(self.norm(x + self.attention(x + position, x, reference, sides)))


def attend_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention of `[N, heads, L, d]` tensors → `[N, L, heads·d]`, in operators of any opset."""
    logits = torch.matmul(q * (q.shape[-1] ** -0.5), k.transpose(-1, -2))
    return torch.matmul(torch.softmax(logits, dim=-1), v).transpose(1, 2).flatten(2)


class DecoderLayer(nn.Module):
    """Queries look at each other, then at the picture; what they asked each other is handed out with the result."""

    def __init__(self, w: Weights, at: str, c: Config, precision: Precision):
        super().__init__()
        self.heads = c.heads
        self.q, self.k, self.v, self.out = (
            layouts.linear(w, f"{at}.self_attn.{p}_proj", c.width, c.width, precision) for p in ("q", "k", "v", "out")
        )
        self.norm = layouts.norm(w, f"{at}.self_attn_layer_norm", c.width, NORM_EPS)
        self.attention = DeformableAttention(
            w, f"{at}.encoder_attn", c.width, c.heads, c.levels, c.decoder_points, precision
        )
        self.norm2 = layouts.norm(w, f"{at}.encoder_attn_layer_norm", c.width, NORM_EPS)
        self.mlp = FeedForward(w, at, c.width, c.decoder_mlp, precision)

    def forward(
        self, x: Tensor, position: Tensor, tokens: Tensor, reference: Tensor, sides: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The queries, and the unscaled queries and keys `[N,Q,d]` of their attention to each other."""
        n, count, width = x.shape
        q, k, v = self.q(x + position), self.k(x + position), self.v(x)
        by_head = [t.reshape(n, count, self.heads, width // self.heads).transpose(1, 2) for t in (q, k, v)]
        x = self.norm(x + self.out(attend_by_head(*by_head)))
        x = self.norm2(x + self.attention(x + position, tokens, reference, sides))
        return self.mlp(x), q, k


class Head(nn.Module):
    """Three layers with ReLU between them: `at.layers.{0,1,2}`."""

    def __init__(self, w: Weights, at: str, into: int, width: int, out: int, precision: Precision):
        super().__init__()
        self.layers = nn.ModuleList(
            layouts.linear(w, f"{at}.layers.{i}", b, a, precision)
            for i, (a, b) in enumerate(((into, width), (width, width), (width, out)))
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.layers
        return third(F.relu(second(F.relu(first(x)))))


class Projection(nn.Module):
    """A feature map to the detector's width: a convolution and a group norm."""

    def __init__(self, w: Weights, at: str, into: int, width: int, kernel: int, stride: int, precision: Precision):
        super().__init__()
        half = kernel // 2
        weight, bias = w.take(f"{at}.0.weight", width, into, kernel, kernel), w.take(f"{at}.0.bias", width)
        self.conv = Conv(weight, bias, precision, stride, (half, half))
        self.weight, self.bias = (
            nn.Parameter(w.take(f"{at}.1.{n}", width), requires_grad=False) for n in ("weight", "bias")
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(self.conv(x).float(), GROUPS, self.weight, self.bias, NORM_EPS)


@dataclass
class Objects:
    """What the decoder says of each query, `[N,Q,…]`."""

    states: Tensor
    logits: Tensor
    boxes: Tensor
    asked: list[Tensor]
    """Queries of each layer's self-attention, unscaled."""
    answered: list[Tensor]
    """Keys of the same."""


class Detector(nn.Module):
    """Pixels `u8[N,H,W,3]` → objects: a logit of each class and a box, without refinement from layer to layer."""

    def __init__(
        self, w: Weights, at: str, c: Config, normalise: Normalise, precision: Precision, trunk: Precision
    ):
        """`at` is what its keys begin with: `at.model.…`, `at.class_embed.N`, `at.bbox_embed.N`. `trunk` is its precision."""
        super().__init__()
        self.config, self.normalise = c, normalise
        model = f"{at}.model"
        self.trunk = ResNet(w, f"{model}.backbone.conv_encoder.model", trunk)
        last = self.trunk.widths[-1]
        shapes = [(into, 1, 1) for into in self.trunk.widths]
        shapes += [(last if i == 0 else c.width, 3, 2) for i in range(c.levels - OF_TRUNK)]
        self.projections = nn.ModuleList(
            Projection(w, f"{model}.input_proj.{i}", into, c.width, kernel, stride, precision)
            for i, (into, kernel, stride) in enumerate(shapes)
        )
        self.level = nn.Parameter(w.take(f"{model}.level_embed", c.levels, c.width), requires_grad=False)
        self.encoder = nn.ModuleList(
            EncoderLayer(w, f"{model}.encoder.layers.{i}", c, precision) for i in range(c.encoder_layers)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(w, f"{model}.decoder.layers.{i}", c, precision) for i in range(c.decoder_layers)
        )
        embedding = w.take(f"{model}.query_position_embeddings.weight", c.queries, 2 * c.width)
        position, start = embedding.split(c.width, dim=1)
        refer = layouts.linear(w, f"{model}.reference_points", 2, c.width, precision)
        # Where a query looks does not depend on the picture, without refinement.
        reference = torch.sigmoid(refer(position))
        inside = torch.stack([reference, 1 - reference]).clamp(min=INVERSE_EPS)
        origin = F.pad(torch.log(inside[0] / inside[1]), (0, 2))
        self.position, self.start, self.reference, self.origin = (
            nn.Parameter(t[None].clone(), requires_grad=False) for t in (position, start, reference, origin)
        )
        # The file has the heads once a layer, all the same tensors; the last one's result is the model's.
        for i in range(c.decoder_layers):
            self.classes = layouts.linear(w, f"{at}.class_embed.{i}", c.classes, c.width, precision)
            self.boxes = Head(w, f"{at}.bbox_embed.{i}", c.width, c.width, 4, precision)

    def feature_maps(self, pixels: Tensor) -> list[Tensor]:
        """The levels `[N,d,H,W]`, finest first."""
        maps = self.trunk(self.normalise(pixels))
        levels = [project(x) for project, x in zip(self.projections, maps, strict=False)]
        x = maps[-1]
        for project in self.projections[OF_TRUNK:]:
            x = project(x)
            levels.append(x)
        return levels

    def forward(self, pixels: Tensor) -> Objects:
        maps = self.feature_maps(pixels)
        sides = [(x.shape[2], x.shape[3]) for x in maps]
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
        places = [position_maps(*side, self.config.width) + self.level[i] for i, side in enumerate(sides)]
        position = torch.cat(places)[None]
        reference = torch.cat([centres(*side) for side in sides])[None]
        for layer in self.encoder:
            tokens = layer(tokens, position, reference, sides)
        x = self.start.expand(pixels.shape[0], -1, -1)
        asked, answered = [], []
        for layer in self.decoder:
            x, q, k = layer(x, self.position, tokens, self.reference, sides)
            asked.append(q)
            answered.append(k)
        return Objects(x, self.classes(x), torch.sigmoid(self.boxes(x) + self.origin), asked, answered)
