"""The few modules that all exported models are made of.

Written for the graphs that come out of them: linear weights are kept as `[in, out]`, so that a layer becomes one MatMul
and one Add; the projections of an attention are one matrix; every weight knows how it is stored and in which precision
it is used. Numerically they do what the original packages do, which the tests hold them to.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ExportError

# The first ONNX opsets that have Attention, and GELU as one node.
ATTENTION_OPSET, GELU_OPSET = 23, 20

# Below this many values a weight stays as it is: the Cast node would cost more than it saves.
COMPACT_FROM = 1024


@dataclass(frozen=True)
class Precision:
    """In which type weights are kept and arithmetic is done; norms, softmax and outputs are always float32."""

    name: str
    compute: torch.dtype
    quantised: bool = False
    """Whether products with weights are to be done in eight bits (`quantise.py`), for which modules are of float32."""


FP32 = Precision("fp32", torch.float32)
FP16 = Precision("fp16", torch.float16)
INT8 = Precision("int8", torch.float32, quantised=True)
PRECISIONS = {p.name: p for p in (FP32, FP16, INT8)}


def stored(tensor: Tensor, precision: Precision, compact: bool = True) -> nn.Parameter:
    """A weight in the smallest form that loses nothing: float16 where all values are float16 numbers.

    Most official checkpoints were trained or published in half precision, so this halves their graphs. Not `compact` are
    weights that will be stored in eight bits.
    """
    tensor = tensor.detach()
    if precision.compute == torch.float16 and tensor.device.type != "meta":
        if tensor.abs().max() > torch.finfo(torch.float16).max:
            raise ExportError("a weight is too large for half precision: build this model with --precision fp32")
        tensor = tensor.half()
    elif compact and tensor.device.type != "meta" and tensor.numel() >= COMPACT_FROM:
        half = tensor.half()
        if torch.equal(half.float(), tensor):
            tensor = half
    return nn.Parameter(tensor.contiguous(), requires_grad=False)


class Linear(nn.Module):
    """x·W + b with `weight` given as `[out, in]`, as all official layouts have it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: Precision):
        super().__init__()
        self.precision, self.compute = precision, precision.compute
        self.weight = stored(weight.t(), precision, compact=not precision.quantised)
        self.bias = None if bias is None else stored(bias, precision, compact=not precision.quantised)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.matmul(x, self.weight.to(self.compute))
        return x if self.bias is None else x + self.bias.to(self.compute)


class Conv(nn.Module):
    """A convolution, with its weight as the layouts have it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: Precision, stride: int = 1, padding: tuple[int, int] = (0, 0)):
        super().__init__()
        self.compute, self.stride, self.padding = precision.compute, stride, padding
        self.weight = stored(weight, precision)
        self.bias = None if bias is None else stored(bias, precision)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(self.compute)
        return F.conv2d(x.to(self.compute), self.weight.to(self.compute), bias, self.stride, self.padding)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, always computed in float32."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.weight.shape, self.weight, self.bias, self.eps).to(x.dtype)


class Embedding(nn.Module):
    """A table looked up by id. Equal rows are stored once, where that pays."""

    def __init__(self, table: Tensor, precision: Precision):
        super().__init__()
        self.compute = precision.compute
        self.row = None
        if table.device.type != "meta":
            rows, index = np.unique(table.numpy(), axis=0, return_inverse=True)
            if len(rows) * 2 <= len(table) and len(rows) <= 2**15:
                table = torch.from_numpy(rows)
                row = torch.from_numpy(index.reshape(-1).astype(np.uint8 if len(rows) <= 2**8 else np.int16))
                self.row = nn.Parameter(row, requires_grad=False)
        self.table = stored(table, precision)

    def forward(self, ids: Tensor) -> Tensor:
        if self.row is not None:
            ids = self.row[ids].long()
        return F.embedding(ids, self.table).to(self.compute)


def activation(name: str, x: Tensor) -> Tensor:
    """`gelu` is the exact one with erf; `quick_gelu` is OpenAI's x·σ(1.702·x)."""
    return x * torch.sigmoid(1.702 * x) if name == "quick_gelu" else F.gelu(x)


ACTIVATIONS = ("gelu", "quick_gelu")


class AttentionForm(enum.Enum):
    """What computes attention in a graph."""

    NODE = "ONNX's Attention, which is a kernel of its own on a GPU and slow on a processor"
    RUNTIMES = "ONNX Runtime's MultiHeadAttention, which is a kernel of its own on a processor"


class Attentive(nn.Module):
    """A module with attention somewhere in it."""

    form = AttentionForm.RUNTIMES


def attentive(module: nn.Module) -> list[Attentive]:
    """The parts of a module that have attention in them."""
    return [part for part in module.modules() if isinstance(part, Attentive)]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    form: AttentionForm,
    mask: Tensor | None = None,
    causal: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention of `[N, L, heads·d]` tensors, which is one node of a graph.

    The node takes and gives the heads side by side, as matrix products do, so that nothing is transposed between them.
    `mask` is additive, `[N, 1, L, L]` and of the tensors' type; a kernel without a mask is faster, so `causal` has none.
    `bias` is that of query, key and value, one after the other, where it has not been added to them.
    """
    exporting, of = torch.onnx.is_in_onnx_export(), dict(dtype=q.dtype, shape=q.shape)
    if exporting and form == AttentionForm.RUNTIMES:
        given = (q, k, v, bias) if mask is None else (q, k, v, bias, None, mask)
        attributes = dict(num_heads=heads, unidirectional=int(causal))
        return torch.onnx.ops.symbolic("com.microsoft::MultiHeadAttention", given, attributes, version=1, **of)
    if bias is not None:
        q, k, v = (t + b for t, b in zip((q, k, v), bias.chunk(3), strict=True))
    if exporting:
        given = (q, k, v) if mask is None else (q, k, v, mask)
        attributes = dict(q_num_heads=heads, kv_num_heads=heads, is_causal=int(causal))
        if q.dtype != torch.float32:
            attributes["softmax_precision"] = int(ir.DataType.FLOAT)
        return torch.onnx.ops.symbolic("Attention", given, attributes, version=ATTENTION_OPSET, **of)
    by_head = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v)]
    return F.scaled_dot_product_attention(*by_head, attn_mask=mask, is_causal=causal).transpose(1, 2).flatten(2)


class SelfAttention(Attentive):
    """Multi-head self-attention with query, key and value in one matrix."""

    causal = False
    """Whether a token sees only those before it."""

    def __init__(self, qkv: Linear, out: Linear, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv: Linear | None = qkv
        self.apart, self.bias = None, None
        self.out = out

    def split(self) -> None:
        """Makes three products of one, and leaves their biases to the attention.

        On a processor in single precision this is faster than one product, whose result has to be cut in three.
        """
        parts = [Linear(w, None, self.qkv.precision) for w in self.qkv.weight.t().chunk(3)]
        self.apart, self.bias = nn.ModuleList(parts), self.qkv.bias
        self.qkv = None

    def mixed(self, x: Tensor) -> Tensor:
        """What each token takes from the others, before the projection."""
        if self.qkv is not None:
            return attend(*self.qkv(x).chunk(3, dim=-1), self.heads, self.form, causal=self.causal)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return attend(*(part(x) for part in self.apart), self.heads, self.form, causal=self.causal, bias=bias)


def split_products(module: nn.Module) -> None:
    """Has every self-attention of a module compute query, key and value one by one."""
    for part in attentive(module):
        if isinstance(part, SelfAttention):
            part.split()


class Block(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, norm1: LayerNorm, attn: SelfAttention, norm2: LayerNorm, fc1: Linear, fc2: Linear, act: str):
        super().__init__()
        self.norm1, self.attn, self.norm2, self.fc1, self.fc2, self.act = norm1, attn, norm2, fc1, fc2, act

    def forward(self, x: Tensor) -> Tensor:
        return self._finish(x, self.attn.mixed(self.norm1(x)))

    def at(self, x: Tensor, kept: Callable[[Tensor], Tensor]) -> Tensor:
        """The layer's result for some tokens alone: `kept` takes them out of `[N, L, width]`.

        Of the last layer of a tower that is all that is needed, and three quarters of its arithmetic are saved.
        """
        return self._finish(kept(x), kept(self.attn.mixed(self.norm1(x))))

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.attn.out(mixed)
        return x + self.fc2(activation(self.act, self.fc1(self.norm2(x))))


class Normalise(nn.Module):
    """RGB bytes `u8[N,H,W,3]` → standardised `f32[N,3,H,W]`: x·scale, minus mean, by std, as image processors do."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], scale: float = 1 / 255):
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.float()
        if self.scale != 1:
            x = x * self.scale
        return ((x - self.mean) / self.std).permute(0, 3, 1, 2)


class VisionTransformer(nn.Module):
    """Patches, class token, positions, layers: `f32[N,3,H,W]` → tokens `[N, 1+patches, width]`."""

    def __init__(
        self,
        patch: Tensor,
        patch_bias: Tensor | None,
        cls: Tensor,
        position: Tensor,
        norm_pre: LayerNorm | None,
        blocks: Sequence[Block],
        precision: Precision,
    ):
        super().__init__()
        self.compute = precision.compute
        self.stride = patch.shape[-1]
        self.patch = stored(patch, precision)
        self.patch_bias = None if patch_bias is None else stored(patch_bias, precision)
        self.cls = stored(cls.reshape(1, 1, -1), precision)
        self.position = stored(position, precision)
        self.norm_pre = norm_pre
        self.blocks = nn.ModuleList(blocks)

    def embed(self, x: Tensor) -> Tensor:
        """Tokens before the first layer."""
        bias = None if self.patch_bias is None else self.patch_bias.to(self.compute)
        x = F.conv2d(x.to(self.compute), self.patch.to(self.compute), bias, stride=self.stride)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.to(self.compute).expand(x.shape[0], -1, -1), x], dim=1) + self.position.to(self.compute)
        return x if self.norm_pre is None else self.norm_pre(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x

    def class_token(self, x: Tensor) -> Tensor:
        """The first token after all layers, `[N, width]`."""
        x = self.embed(x)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.blocks[-1].at(x, lambda tokens: tokens[:, 0])

    def states(self, x: Tensor) -> list[Tensor]:
        """Tokens before the first layer and after each."""
        found = [self.embed(x)]
        for block in self.blocks:
            found.append(block(found[-1]))
        return found


def normalised(x: Tensor) -> Tensor:
    """Unit length along the last axis, in float32."""
    x = x.float()
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


class ClipImageTower(nn.Module):
    """Pixels → L2-normalised image embedding of a CLIP model."""

    def __init__(self, normalise: Normalise, body: VisionTransformer, norm_post: LayerNorm, projection: Linear):
        super().__init__()
        self.normalise, self.body, self.norm_post, self.projection = normalise, body, norm_post, projection

    def forward(self, pixels: Tensor) -> Tensor:
        return normalised(self.projection(self.norm_post(self.body.class_token(self.normalise(pixels)))))


class ClipTextTower(Attentive):
    """Token ids `i64[N,L]`, L at most the context → L2-normalised text embedding of a CLIP model.

    The state at the first end-of-text token is taken, which has the largest id. Attention is causal, so what follows it
    cannot change the result.
    """

    def __init__(
        self,
        tokens: Embedding,
        position: Tensor,
        blocks: Sequence[Block],
        norm: LayerNorm,
        projection: Linear,
        precision: Precision,
    ):
        super().__init__()
        self.compute = precision.compute
        self.tokens = tokens
        self.position = stored(position, precision)
        self.blocks = nn.ModuleList(blocks)
        for block in self.blocks:
            block.attn.causal = True
        self.norm = norm
        self.projection = projection

    def forward(self, input_ids: Tensor) -> Tensor:
        n, length = input_ids.shape
        x = self.tokens(input_ids) + self.position.to(self.compute)[:length]
        for block in self.blocks[:-1]:
            x = block(x)
        # ONNX Runtime has ArgMax for floats alone on a GPU; ids are exact in them.
        end = (input_ids.float() if self.form == AttentionForm.NODE else input_ids).argmax(dim=-1)
        x = self.blocks[-1].at(x, lambda tokens: tokens[torch.arange(n), end])
        return normalised(self.projection(self.norm(x)))
