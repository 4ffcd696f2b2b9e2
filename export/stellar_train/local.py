"""ELITE's local mapping (csyxwei/ELITE, `train_local.py`): inference with the authors' `local_mapper.pt`.

Each patch of the person in the photo becomes a vector, and cross-attention looks at these vectors too. What it finds is
added where the word of the photo is looked at: Attention(q, k, v) + λ·m·Attention(q, k_local, v_local), where m is the
attention map of the word over its largest value. The original divides by the largest value of the whole batch; here
each image has its own, so that images do not depend on others.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from . import elite
from .base import Base
from .errors import TrainError
from .mapper import Bank

FILE = "local_mapper.pt"


class LocalMapper(Bank):
    """Vectors [B, patches, output] of a photo's patches, and the projections that cross-attention reads them with."""

    def __init__(self, width: int, output: int, unet: nn.Module, words: int = 5, hidden: int = 1024) -> None:
        super().__init__(width, output, words, hidden)
        for path, attention in elite.cross_attention(unet):
            for part in elite.PARTS:
                like = getattr(attention, part)
                self.add_module(elite.key(path, part), nn.Linear(like.in_features, like.out_features, bias=False))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        found = [
            getattr(self, f"mapping_{i}")(state[:, :1]) + getattr(self, f"mapping_patch_{i}")(state[:, 1:])
            for i, state in enumerate(states)
        ]
        return torch.stack(found).mean(dim=0)


class Local:
    """A local mapping in the cross-attention of a base's UNet."""

    def __init__(self, path: Path, base: Base, strength: float) -> None:
        if strength < 0:
            raise TrainError(f"model.strength = {strength}: it must be at least 0")
        if not path.is_file():
            raise TrainError(f"{path} is not there: give the original's {FILE}, or leave model.local_mapper empty")
        state = elite.read(path)
        sizes = elite.sizes(path, state, base)
        self.mapper = LocalMapper(sizes.width, sizes.output, base.unet, sizes.words, sizes.hidden)
        elite.fill(path, state, self.mapper)
        self.mapper.requires_grad_(False).eval().to(base.device)
        self.strength = strength
        self.digest = elite.digest_of(path.read_bytes())
        self.vectors: Tensor | None = None
        self.at = 0
        for place, attention in elite.cross_attention(base.unet):
            attention.set_processor(_Attention(self, *(getattr(self.mapper, elite.key(place, p)) for p in elite.PARTS)))

    def of(self, states: Sequence[Tensor], mask: Image.Image | None) -> Tensor:
        """The vectors [1, patches, output] of a photo on black; those outside its mask are 0."""
        vectors = self.mapper(states)
        if mask is None:
            return vectors
        side = round(vectors.shape[1] ** 0.5)
        return vectors * patches(mask, side).to(vectors.device)[None, :, None]

    @contextmanager
    def looked_at(self, vectors: Tensor, at: int) -> Iterator[None]:
        """Conditional halves of what is generated meanwhile look at `vectors` where they look at position `at`."""
        self.vectors, self.at = vectors, at
        try:
            yield
        finally:
            self.vectors = None


def patches(mask: Image.Image, side: int) -> Tensor:
    """1 for each patch [side²] whose first pixel is in the mask, else 0: as torch's nearest neighbours choose it."""
    pixels = torch.from_numpy(np.array(mask)).float()[None, None]
    return (torch.nn.functional.interpolate(pixels, (side, side), mode="nearest") > 0).float().flatten()


class _Attention:
    """A processor of diffusers' `Attention`."""

    def __init__(self, local: Local, to_k: nn.Module, to_v: nn.Module) -> None:
        self.local, self.to_k, self.to_v = local, to_k, to_v

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        heads = attn.head_to_batch_dim
        query = heads(attn.to_q(hidden_states))
        key, value = heads(attn.to_k(encoder_hidden_states)), heads(attn.to_v(encoder_hidden_states))
        chances = attn.get_attention_scores(query, key, attention_mask)
        found = torch.bmm(chances, value)
        if (vectors := self.local.vectors) is not None:
            # The conditional half is the last one; without guidance there is no other.
            rows = len(vectors) * attn.heads
            word = chances[-rows:, :, self.local.at]
            largest = word.reshape(len(vectors), -1).amax(dim=1).repeat_interleave(attn.heads)
            share = self.local.strength * word / largest[:, None]
            near = attn.get_attention_scores(query[-rows:], heads(self.to_k(vectors)))
            added = torch.bmm(near * share[:, :, None], heads(self.to_v(vectors)))
            found = torch.cat([found[:-rows], found[-rows:] + added])
        out = attn.to_out[0](attn.batch_to_head_dim(found))
        return attn.to_out[1](out) / attn.rescale_output_factor
