"""What all trainers share: the optimiser's schedule, and the sums that they make small."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def descend(
    parameters: Iterable[nn.Parameter],
    steps: int,
    loss: Callable[[int], Tensor],
    say: Callable[[str], None],
    rate: float = 2e-3,
) -> None:
    """Adam with a short warm-up and a cosine down to nothing."""
    trained = [p for p in parameters if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=1e-3, betas=(0.9, 0.98))
    began, mean = time.monotonic(), 0.0
    for step in range(steps):
        share = min(1.0, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate * share
        optimiser.zero_grad()
        value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        mean = value.item() if step == 0 else 0.95 * mean + 0.05 * value.item()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            say(f"    step {step + 1} of {steps}: loss {mean:.3f}, {time.monotonic() - began:.0f} s")


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def contrast(a: Tensor, b: Tensor, alike: Tensor, scale: float) -> Tensor:
    """Both directions of the contrastive loss between unit vectors; `alike[i, j]` says that i and j are of one kind."""

    def one(logits: Tensor, alike: Tensor) -> Tensor:
        of_kind = torch.logsumexp(logits.masked_fill(~alike, -torch.inf), dim=1)
        return (torch.logsumexp(logits, dim=1) - of_kind).mean()

    logits = scale * a @ b.T
    return 0.5 * (one(logits, alike) + one(logits.T, alike.T))


def of_patches(convolution: nn.Conv2d, mean: list[float], std: list[float]) -> None:
    """Makes it take patches that are cut already, `u8[N,P,3·side·side]`, and normalise them by its own weights.

    Most of the time of a small tower would otherwise go into pixels.
    """
    deviation = 255 * torch.tensor(std)[:, None, None]
    centre = 255 * torch.tensor(mean)[:, None, None]

    def forward(patches: Tensor) -> Tensor:
        weight = convolution.weight / deviation
        bias = -(weight * centre).flatten(1).sum(1)
        if convolution.bias is not None:
            bias = bias + convolution.bias
        x = F.linear(patches.float(), weight.flatten(1), bias)
        side = round(x.shape[1] ** 0.5)
        return x.transpose(1, 2).unflatten(2, (side, side))

    convolution.forward = forward


def fast_attention(attention: nn.Module) -> None:
    """The same attention of transformers' CLIP towers as one kernel, which never holds all weights at once."""

    def forward(hidden_states: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        q, k, v = (
            layer(hidden_states).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return attention.out_proj(mixed), None

    attention.forward = forward
