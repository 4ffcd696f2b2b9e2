"""Faces: the three networks of MTCNN, and InceptionResnetV1 for their embeddings, in facenet-pytorch's layout.

The cascade around the networks (pyramid, thresholds, suppression, crops) is the service's; here are only the
convolutions. MTCNN's weights come with the facenet-pytorch package, which is not imported: it asks for older releases
of everything.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import layouts
from .checkpoints import Checkpoints
from .errors import ExportError, MissingCheckpoint
from .jobs import GraphJob, Request, pictures
from .manifest import IoSpec, Source, sha256_of
from .nn import FP32, Conv, Linear, Precision, normalised
from .onnx_graph import Probe
from .weights import Weights, load_state_dict

PACKAGE = "facenet-pytorch 2.6.0"
EMBEDDING = ("torch", "checkpoints", "20180402-114759-vggface2.pt")

# Width of what the published model gives, and of its first convolution.
PUBLISHED = (512, 32)

# BatchNorm's epsilon in the TensorFlow original, which the weights were ported from.
BATCH_NORM_EPS = 1e-3

# Files that MTCNN was published with; other ones make a pack a demo pack.
MTCNN_SHA256 = {
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}


class Standardise(nn.Module):
    """Levels `[N,H,W,3]` from 0 to 255 → `f32[N,3,H,W]` around 0: (x − 127.5) · scale."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.float() - 127.5
        return (x if self.scale == 1 else x * self.scale).permute(0, 3, 1, 2)


# ---- MTCNN


class Slopes(nn.Module):
    """PReLU, as a·x + (1 − a)·relu(x).

    The same numbers to a bit or two. ONNX Runtime has these operators in the blocked layout of its convolutions; its
    PRelu it has not, so that one costs two changes of layout and more than the convolution before it.
    """

    def __init__(self, slope: Tensor, axes: int):
        """`axes` is how many follow the channels."""
        super().__init__()
        slope = slope.reshape(-1, *[1] * axes)
        self.slope = nn.Parameter(slope, requires_grad=False)
        self.rest = nn.Parameter(1 - slope, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.slope + F.relu(x) * self.rest


class Stage(nn.Module):
    """Convolution, PReLU with a slope for each channel and, if `pool` is not 0, the maximum of such windows, two apart.

    Windows at the end are taken even if they are not whole, as Caffe does, where the weights are from.
    """

    def __init__(self, w: Weights, number: int, shape: tuple[int, ...], pool: int, precision: Precision):
        super().__init__()
        self.conv = Conv(w.take(f"conv{number}.weight", *shape), w.take(f"conv{number}.bias", shape[0]), precision)
        self.slopes = Slopes(w.take(f"prelu{number}.weight", shape[0]), 2)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.slopes(self.conv(x).float())
        return F.max_pool2d(x, self.pool, 2, ceil_mode=True) if self.pool else x


class PooledFirst(nn.Module):
    """A [`Stage`] that takes the maximum before PReLU, which is then computed for a quarter of the places.

    The maximum of a window commutes with a slope of at least 0, which keeps the order. With a negative slope PReLU is
    max(x, a·x), and its maximum that of the windows' largest x and largest a·x: a channel more, by the convolution
    itself. What remains is linear in the maxima z and in the positive part of a linear map of them, so three
    convolutions of one place: keep·z + share·relu(rise·z).
    """

    def __init__(self, w: Weights, number: int, shape: tuple[int, ...], pool: int, precision: Precision, scale: float):
        super().__init__()
        weight, bias = w.take(f"conv{number}.weight", *shape), w.take(f"conv{number}.bias", shape[0])
        slope, self.pool = w.take(f"prelu{number}.weight", shape[0]), pool
        falling = torch.nonzero(slope < 0).flatten()
        twice = torch.cat([weight, slope[falling, None, None, None] * weight[falling]]) * scale
        self.conv = Conv(twice, torch.cat([bias, slope[falling] * bias[falling]]), precision)
        channels = torch.arange(len(slope))
        other = len(slope) + torch.arange(len(falling))
        keep, rise = torch.zeros(2, len(slope), len(twice))
        rise[channels, channels] = 1.0
        rise[falling, other] = -1.0  # max(p, q) = q + relu(p − q)
        keep[channels, channels] = torch.where(slope < 0, 0.0, slope)
        keep[falling, other] = 1.0
        share = torch.diag(torch.where(slope < 0, 1.0, 1 - slope))
        self.keep, self.rise, self.share = (
            nn.Parameter(m[:, :, None, None].clone(), requires_grad=False) for m in (keep, rise, share)
        )

    def forward(self, x: Tensor) -> Tensor:
        z = F.max_pool2d(self.conv(x).float(), self.pool, 2, ceil_mode=True)
        return F.conv2d(z, self.keep) + F.conv2d(F.relu(F.conv2d(z, self.rise)), self.share)


def softmax_of_two(x: Tensor) -> Tensor:
    """The probability of the second class, of logits along axis 1."""
    return torch.softmax(x.float(), dim=1)[:, 1]


class ProposalNet(nn.Module):
    """P-Net: a pyramid level of any size from 12×12 → probability and box correction for every second pixel.

    Most of a photo's faces are this net's time, so it is written for ONNX Runtime's convolutions: the last PReLU is
    part of the heads, which are one convolution, and the softmax of two logits is the logistic of their difference.
    """

    def __init__(self, w: Weights, precision: Precision):
        super().__init__()
        # A power of two goes into the first weights without a rounding; in half precision they would become too small.
        inside = 0.0078125 if precision.compute == torch.float32 else 1.0
        self.standardise = Standardise(0.0078125 / inside)
        self.first = PooledFirst(w, 1, (10, 3, 3, 3), 2, precision, inside)
        self.second = Stage(w, 2, (16, 10, 3, 3), 0, precision)
        self.third = Conv(w.take("conv3.weight", 32, 16, 3, 3), w.take("conv3.bias", 32), precision)
        slope = w.take("prelu3.weight", 32)[:, None, None]
        prob, prob_bias = w.take("conv4_1.weight", 2, 32, 1, 1), w.take("conv4_1.bias", 2)
        reg, reg_bias = w.take("conv4_2.weight", 4, 32, 1, 1), w.take("conv4_2.bias", 4)
        weight = torch.cat([reg, prob[1:] - prob[:1]])
        bias = torch.cat([reg_bias, prob_bias[1:] - prob_bias[:1]])
        self.linear = Conv(weight * slope, bias, precision)
        self.positive = Conv(weight * (1 - slope), None, precision)
        w.finish()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.third(self.second(self.first(self.standardise(pixels))))
        x = (self.linear(x) + self.positive(F.relu(x))).float()
        return torch.sigmoid(x[:, 4]), x[:, :4]


class CropNet(nn.Module):
    """R-Net and O-Net: a square crop → probability, box correction and, of O-Net, five landmarks (x's, then y's)."""

    def __init__(self, w: Weights, shapes: list[tuple[tuple[int, ...], int]], flat: int, hidden: int, heads: dict[str, int], precision: Precision):
        super().__init__()
        self.compute = precision.compute
        self.standardise = Standardise(0.0078125)
        self.stages = nn.ModuleList(Stage(w, i + 1, shape, pool, precision) for i, (shape, pool) in enumerate(shapes))
        n = len(shapes) + 1
        self.dense = Linear(w.take(f"dense{n}.weight", hidden, flat), w.take(f"dense{n}.bias", hidden), precision)
        self.slopes = Slopes(w.take(f"prelu{n}.weight", hidden), 0)
        self.heads = nn.ModuleList(
            Linear(w.take(f"dense{n + 1}_{i + 1}.weight", out, hidden), w.take(f"dense{n + 1}_{i + 1}.bias", out), precision)
            for i, out in enumerate(heads.values())
        )
        w.finish()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        x = self.standardise(pixels)
        for stage in self.stages:
            x = stage(x)
        # Caffe's order within the flat vector: columns, rows, channels.
        x = self.narrowed(x.permute(0, 3, 2, 1).flatten(1))
        x = self.narrowed(self.slopes(self.dense(x).float()))
        prob, *rest = (head(x) for head in self.heads)
        return softmax_of_two(prob), *(r.float() for r in rest)

    def narrowed(self, x: Tensor) -> Tensor:
        """As the dense layers compute; at single precision the graph has no cast."""
        return x if x.dtype == self.compute else x.to(self.compute)


def refine_net(w: Weights, precision: Precision) -> CropNet:
    shapes = [((28, 3, 3, 3), 3), ((48, 28, 3, 3), 3), ((64, 48, 2, 2), 0)]
    return CropNet(w, shapes, 576, 128, {"prob": 2, "reg": 4}, precision)


def output_net(w: Weights, precision: Precision) -> CropNet:
    shapes = [((32, 3, 3, 3), 3), ((64, 32, 3, 3), 3), ((64, 64, 3, 3), 2), ((128, 64, 2, 2), 0)]
    return CropNet(w, shapes, 1152, 256, {"prob": 2, "reg": 4, "landmarks": 10}, precision)


# ---- InceptionResnetV1


class Unit(nn.Module):
    """Convolution, batch norm (folded into it) and ReLU: `at.conv.weight`, `at.bn.*`."""

    def __init__(self, w: Weights, at: str, into: int, kernel: tuple[int, int], precision: Precision, stride: int = 1, padding: tuple[int, int] = (0, 0)):
        super().__init__()
        self.width = w.shape(f"{at}.conv.weight")[0]
        weight = w.take(f"{at}.conv.weight", self.width, into, *kernel)
        scale, shift = layouts.batch_norm(w, f"{at}.bn", self.width, BATCH_NORM_EPS)
        self.conv = Conv((weight.double() * scale[:, None, None, None]).float(), shift.float(), precision, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Branches(nn.Module):
    """Chains of units side by side, their results one after the other along the channels."""

    def __init__(self, chains: list[list[Unit]]):
        super().__init__()
        self.chains = nn.ModuleList(nn.Sequential(*chain) for chain in chains)
        self.width = sum(chain[-1].width for chain in chains)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([chain(x) for chain in self.chains], dim=1)


class Residual(nn.Module):
    """x + scale · conv(branches(x)), through ReLU unless it is the last one."""

    def __init__(self, w: Weights, at: str, width: int, kernels: list[list[tuple[int, int]]], scale: float, precision: Precision, relu: bool = True):
        super().__init__()
        self.branches = Branches([chain(w, f"{at}.branch{i}", width, k, precision) for i, k in enumerate(kernels)])
        weight = w.take(f"{at}.conv2d.weight", width, self.branches.width, 1, 1)
        self.conv = Conv(weight, w.take(f"{at}.conv2d.bias", width), precision)
        self.scale, self.relu = scale, relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.branches(x)) * self.scale + x
        return F.relu(x) if self.relu else x


class Reduction(nn.Module):
    """Branches of stride 2 and, beside them, the maximum of 3×3 windows."""

    def __init__(self, branches: Branches, into: int):
        super().__init__()
        self.branches, self.width = branches, branches.width + into

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branches(x), F.max_pool2d(x, 3, 2)], dim=1)


def chain(w: Weights, at: str, into: int, kernels: list[tuple[int, int]], precision: Precision, last_stride: int = 1) -> list[Unit]:
    """Units one after the other; `at` itself if there is one, else `at.0`, `at.1` and so on. Stride 2 has no padding."""
    units = []
    for i, (h, v) in enumerate(kernels):
        stride = last_stride if i == len(kernels) - 1 else 1
        padding = (h // 2, v // 2) if stride == 1 else (0, 0)
        units.append(Unit(w, at if len(kernels) == 1 else f"{at}.{i}", into, (h, v), precision, stride, padding))
        into = units[-1].width
    return units


class FaceTower(nn.Module):
    """Face crops `u8[N,160,160,3]` → L2-normalised embedding."""

    def __init__(self, w: Weights, precision: Precision):
        super().__init__()
        self.standardise = Standardise(1 / 128)
        one, three = (1, 1), (3, 3)
        layers: list[nn.Module] = []
        width = 3

        def unit(name: str, kernel: tuple[int, int], stride: int = 1, padding: int = 0) -> None:
            nonlocal width
            layers.append(Unit(w, name, width, kernel, precision, stride, (padding, padding)))
            width = layers[-1].width

        def blocks(name: str, kernels: list[list[tuple[int, int]]], scale: float) -> None:
            depth = w.count(rf"{name}\.(\d+)\.")
            layers.extend(Residual(w, f"{name}.{i}", width, kernels, scale, precision) for i in range(depth))

        def reduction(name: str, kernels: list[list[tuple[int, int]]]) -> None:
            nonlocal width
            sides = [chain(w, f"{name}.branch{i}", width, k, precision, last_stride=2) for i, k in enumerate(kernels)]
            layers.append(Reduction(Branches(sides), width))
            width = layers[-1].width

        unit("conv2d_1a", three, stride=2)
        unit("conv2d_2a", three)
        unit("conv2d_2b", three, padding=1)
        layers.append(nn.MaxPool2d(3, 2))
        unit("conv2d_3b", one)
        unit("conv2d_4a", three)
        unit("conv2d_4b", three, stride=2)
        blocks("repeat_1", [[one], [one, three], [one, three, three]], 0.17)
        reduction("mixed_6a", [[three], [one, three, three]])
        blocks("repeat_2", [[one], [one, (1, 7), (7, 1)]], 0.10)
        reduction("mixed_7a", [[one, three], [one, three], [one, three, three]])
        last = [[one], [one, (1, 3), (3, 1)]]
        blocks("repeat_3", last, 0.20)
        layers.append(Residual(w, "block8", width, last, 1.0, precision, relu=False))
        self.layers = nn.Sequential(*layers)
        out = w.shape("last_linear.weight")[0]
        scale, shift = layouts.batch_norm(w, "last_bn", out, BATCH_NORM_EPS)
        weight = w.take("last_linear.weight", out, width).double() * scale[:, None]
        self.last = Linear(weight.float(), shift.float(), precision)
        # The classes of the training set, and counters of training steps.
        w.finish(r"logits\..*", r".*num_batches_tracked")
        self.sizes = (out, layers[0].width)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.layers(self.standardise(pixels))
        return normalised(self.last(x.mean(dim=(2, 3))))


# ---- jobs


def mtcnn_file(checkpoints: Checkpoints, name: str) -> Path:
    """A weight file of MTCNN: under the root's `files/`, else from the installed package."""
    if path := checkpoints.local("files", name):
        return path
    package = importlib.util.find_spec("facenet_pytorch")
    for place in package.submodule_search_locations or [] if package else []:
        if (path := Path(place, "data", name)).is_file():
            return path
    raise MissingCheckpoint(
        f"{name} is neither under files/ of the root nor in an installed facenet-pytorch: "
        f"pip install --no-deps {PACKAGE.replace(' ', '==')}"
    )


def region_job(role: str, module: nn.Module, dtype: str, sides: list[tuple[int, int]], outputs: list[IoSpec], source: Source, official: bool, max_batch: int, precision: Precision, looseness: float = 1) -> GraphJob:
    """The job of a graph over regions of pictures; several `sides` make the sides dynamic."""
    height, width = sides[0] if len(sides) == 1 else (-1, -1)

    def probe(batch: int, height: int, width: int, seed: int) -> Probe:
        levels = pictures(batch, height, width, seed)
        return Probe({"pixels": levels if dtype == "u8" else levels.astype(np.float32)})

    return GraphJob(
        roles=[role],
        kind="region",
        module=module,
        inputs=[IoSpec("pixels", dtype, (height, width, 3))],
        outputs=outputs,
        example=probe(2, *sides[0], 0),
        probes=[probe(1 + 2 * (i % 2), *s, i + 1) for i, s in enumerate(sides * (2 if len(sides) == 1 else 1))],
        source=source,
        official=official,
        max_batch=max_batch,
        shortest=12,
        looseness=looseness,
        precision=precision,
    )


def graphs(request: Request) -> Iterator[GraphJob]:
    """ips, sis and aps: faces and their embeddings."""

    def mtcnn(name: str) -> tuple[Weights, Source, bool]:
        path = mtcnn_file(request.checkpoints, name)
        digest = sha256_of(path)
        return load_state_dict(path), Source(PACKAGE, "2.6.0", name, digest), digest == MTCNN_SHA256[name]

    # Convolutions gain nothing from eight bits, and boxes need more.
    p = FP32 if request.precision.quantised else request.precision
    # The cascade's networks stay on the processor where the others have a GPU.
    cascade = FP32 if request.gpu else p
    embedding = request.checkpoints.local(*EMBEDDING)
    if embedding is None:
        where = Path(request.checkpoints.root or "CHECKPOINTS", *EMBEDDING)
        raise MissingCheckpoint(f"{where} is missing; it is not on the hub: a release file of timesler/facenet-pytorch")
    prob, reg = IoSpec("prob", "f32", ()), IoSpec("reg", "f32", (4,))
    w, source, official = mtcnn("pnet.pt")
    maps = [IoSpec("prob", "f32", (-1, -1)), IoSpec("reg", "f32", (4, -1, -1))]
    # The second side is odd, where the last pooling window is not whole; the third is the smallest.
    yield region_job("faces.pnet", ProposalNet(w, cascade), "f32", [(64, 80), (61, 37), (12, 12), (30, 13)], maps, source, official, 4, cascade)
    w, source, official = mtcnn("rnet.pt")
    yield region_job("faces.rnet", refine_net(w, cascade), "f32", [(24, 24)], [prob, reg], source, official, 64, cascade)
    w, source, official = mtcnn("onet.pt")
    landmarks = IoSpec("landmarks", "f32", (10,))
    yield region_job("faces.onet", output_net(w, cascade), "f32", [(48, 48)], [prob, reg, landmarks], source, official, 32, cascade)
    try:
        tower = FaceTower(load_state_dict(embedding), p)
    except IndexError as error:
        raise ExportError(f"{embedding}: a weight has fewer dimensions than in the published layout") from error
    source = Source("20180402-114759-vggface2", "local", embedding.name, sha256_of(embedding))
    out = IoSpec("embedding", "f32", (tower.sizes[0],))
    yield region_job("faces.embedding", tower, "u8", [(160, 160)], [out], source, tower.sizes == PUBLISHED, 16, p)


# ---- the layout, for random checkpoints


def embedding_spec(divisor: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of InceptionResnetV1 with every width but the last one divided, the unused classes left out."""
    spec: dict[str, tuple[int, ...]] = {}

    def norm(at: str, width: int) -> None:
        spec.update({f"{at}.{n}": (width,) for n in ("weight", "bias", "running_mean", "running_var")})

    def unit(at: str, into: int, out: int, kernel: tuple[int, int]) -> None:
        spec[f"{at}.conv.weight"] = (out // divisor, into if into == 3 else into // divisor, *kernel)
        norm(f"{at}.bn", out // divisor)

    def units(at: str, into: int, *layers: tuple[int, tuple[int, int]]) -> None:
        for i, (out, kernel) in enumerate(layers):
            unit(at if len(layers) == 1 else f"{at}.{i}", into, out, kernel)
            into = out

    def residual(at: str, width: int, inner: int, kernels: list[list[tuple[int, int]]]) -> None:
        for i, k in enumerate(kernels):
            units(f"{at}.branch{i}", width, *((inner, each) for each in k))
        spec[f"{at}.conv2d.weight"] = (width // divisor, len(kernels) * inner // divisor, 1, 1)
        spec[f"{at}.conv2d.bias"] = (width // divisor,)

    one, three = (1, 1), (3, 3)
    for name, into, out, kernel in (
        ("1a", 3, 32, three),
        ("2a", 32, 32, three),
        ("2b", 32, 64, three),
        ("3b", 64, 80, one),
        ("4a", 80, 192, three),
        ("4b", 192, 256, three),
    ):
        unit(f"conv2d_{name}", into, out, kernel)
    for i in range(5):
        residual(f"repeat_1.{i}", 256, 32, [[one], [one, three], [one, three, three]])
    unit("mixed_6a.branch0", 256, 384, three)
    units("mixed_6a.branch1", 256, (192, one), (192, three), (256, three))
    for i in range(10):
        residual(f"repeat_2.{i}", 896, 128, [[one], [one, (1, 7), (7, 1)]])
    units("mixed_7a.branch0", 896, (256, one), (384, three))
    units("mixed_7a.branch1", 896, (256, one), (256, three))
    units("mixed_7a.branch2", 896, (256, one), (256, three), (256, three))
    last = [[one], [one, (1, 3), (3, 1)]]
    for i in range(5):
        residual(f"repeat_3.{i}", 1792, 192, last)
    residual("block8", 1792, 192, last)
    spec["last_linear.weight"] = (512, 1792 // divisor)
    norm("last_bn", 512)
    return spec


def is_batch_norm(name: str) -> bool:
    return re.search(r"(\.bn|last_bn)\.", name) is not None
