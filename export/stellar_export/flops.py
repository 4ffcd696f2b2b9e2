"""How much arithmetic a graph is."""

from __future__ import annotations

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .jobs import GraphJob

# Free sides of an item, as the service's `bench graphs` sets them (`GraphSpec::sample`).
SIDE, QUERIES = 64, 8

DTYPES = {"u8": torch.uint8, "i64": torch.int64, "f32": torch.float32}


def item_shapes(job: GraphJob) -> list[tuple[int, ...]]:
    """The shapes of one item's inputs: of texts of the whole context, of the largest common picture, of a few queries."""
    geometry = job.geometry or {}
    if job.text:
        sides = (job.text["context"],) * 2
    elif job.kind == "grounding":
        sides = (QUERIES, QUERIES)
    elif geometry.get("resize") == "bounded":
        sides = (geometry["shortest"], geometry["longest"])
    else:
        sides = (SIDE, SIDE)
    return [
        tuple(sides[min(i, 1)] if side == -1 else side for i, side in enumerate(spec.shape)) for spec in job.inputs
    ]


def count(module: nn.Module, job: GraphJob) -> int:
    """Additions and multiplications of the matrix products, convolutions and attentions for one item.

    Nothing is computed. What is done value by value, norms and sampling are not counted, as is usual; causal attention
    is counted as if every token saw all.
    """
    # The counter knows the attention of plain products, not the processor's kernel.
    plain = sdpa_kernel(SDPBackend.MATH)
    with torch.no_grad(), plain, FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        module(
            *(
                torch.empty((1, *shape), dtype=DTYPES[spec.dtype])
                for shape, spec in zip(item_shapes(job), job.inputs, strict=True)
            )
        )
    return counter.get_total_flops()
