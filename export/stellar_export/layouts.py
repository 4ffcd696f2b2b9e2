"""Where the official layouts keep the parts of a transformer layer."""

from __future__ import annotations

import torch
from torch import Tensor

from .nn import Block, LayerNorm, Linear, Precision, SelfAttention
from .weights import Weights


def linear(w: Weights, name: str, out: int, into: int, precision: Precision, bias: bool = True) -> Linear:
    """`name.weight` as `[out, in]` and `name.bias`."""
    return Linear(w.take(f"{name}.weight", out, into), w.take(f"{name}.bias", out) if bias else None, precision)


def norm(w: Weights, name: str, width: int, eps: float) -> LayerNorm:
    return LayerNorm(w.take(f"{name}.weight", width), w.take(f"{name}.bias", width), eps)


def batch_norm(w: Weights, at: str, width: int, eps: float) -> tuple[Tensor, Tensor]:
    """Batch norm at rest as a factor and a summand for each channel, in float64."""
    gamma, beta, mean, var = (w.take(f"{at}.{n}", width).double() for n in ("weight", "bias", "running_mean", "running_var"))
    scale = gamma / torch.sqrt(var + eps)
    return scale, beta - mean * scale


def hf_clip_block(
    w: Weights, at: str, width: int, mlp: int, heads: int, act: str, eps: float, precision: Precision
) -> Block:
    """One `encoder.layers.N` of a transformers CLIP tower: query, key and value apart."""
    qkv = [
        (w.take(f"{at}.self_attn.{p}_proj.weight", width, width), w.take(f"{at}.self_attn.{p}_proj.bias", width))
        for p in "qkv"
    ]
    return Block(
        norm(w, f"{at}.layer_norm1", width, eps),
        SelfAttention(
            Linear(torch.cat([a for a, _ in qkv]), torch.cat([b for _, b in qkv]), precision),
            linear(w, f"{at}.self_attn.out_proj", width, width, precision),
            heads,
        ),
        norm(w, f"{at}.layer_norm2", width, eps),
        linear(w, f"{at}.mlp.fc1", mlp, width, precision),
        linear(w, f"{at}.mlp.fc2", width, mlp, precision),
        act,
    )


def openai_block(
    w: Weights, at: str, width: int, mlp: int, heads: int, act: str, eps: float, precision: Precision
) -> Block:
    """One `resblocks.N` of OpenAI's CLIP and of open_clip."""
    qkv = Linear(
        w.take(f"{at}.attn.in_proj_weight", 3 * width, width), w.take(f"{at}.attn.in_proj_bias", 3 * width), precision
    )
    return Block(
        norm(w, f"{at}.ln_1", width, eps),
        SelfAttention(qkv, linear(w, f"{at}.attn.out_proj", width, width, precision), heads),
        norm(w, f"{at}.ln_2", width, eps),
        linear(w, f"{at}.mlp.c_fc", mlp, width, precision),
        linear(w, f"{at}.mlp.c_proj", width, mlp, precision),
        act,
    )


def timm_block(
    w: Weights,
    at: str,
    width: int,
    mlp: int,
    heads: int,
    act: str,
    eps: float,
    precision: Precision,
    qkv_change: torch.Tensor | None = None,
) -> Block:
    """One `blocks.N` of timm, DINO and BLIP; `qkv_change` is added to the fused query, key and value matrix."""
    qkv = w.take(f"{at}.attn.qkv.weight", 3 * width, width)
    if qkv_change is not None and qkv.device.type != "meta":
        qkv = (qkv.double() + qkv_change).float()
    return Block(
        norm(w, f"{at}.norm1", width, eps),
        SelfAttention(
            Linear(qkv, w.take(f"{at}.attn.qkv.bias", 3 * width), precision),
            linear(w, f"{at}.attn.proj", width, width, precision),
            heads,
        ),
        norm(w, f"{at}.norm2", width, eps),
        linear(w, f"{at}.mlp.fc1", mlp, width, precision),
        linear(w, f"{at}.mlp.fc2", width, mlp, precision),
        act,
    )


def hf_vit_block(
    w: Weights, at: str, width: int, mlp: int, heads: int, act: str, eps: float, precision: Precision
) -> Block:
    """One `encoder.layer.N` of a transformers ViT."""
    parts = ("query", "key", "value")
    weight = torch.cat([w.take(f"{at}.attention.attention.{p}.weight", width, width) for p in parts])
    bias = torch.cat([w.take(f"{at}.attention.attention.{p}.bias", width) for p in parts])
    return Block(
        norm(w, f"{at}.layernorm_before", width, eps),
        SelfAttention(
            Linear(weight, bias, precision), linear(w, f"{at}.attention.output.dense", width, width, precision), heads
        ),
        norm(w, f"{at}.layernorm_after", width, eps),
        linear(w, f"{at}.intermediate.dense", mlp, width, precision),
        linear(w, f"{at}.output.dense", width, mlp, precision),
        act,
    )
