"""ImageReward: that a drawing fits its prompt, and of two that fit the better drawn one."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..imagereward import CONTEXT
from ..preprocess import CLIP_MEAN, CLIP_STD
from .clips import Factors, factors_of
from .drawings import Drawings, phrase, templates
from .preferences import pairs
from .text import Rows, disturbed, known_tokens
from .training import descend, of_patches, unit

SHOWN = 12  # scenes a step, with two drawings each and a prompt of another scene for each drawing


class Reward:
    """The package's ImageReward while it is trained."""

    def __init__(self, model: Any, drawings: Drawings, seed: int):
        self.model, self.drawings, self.rng = model, drawings, np.random.default_rng(seed)
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        self.templates = templates(drawings)
        patches = model.blip.visual_encoder.patch_embed
        of_patches(patches.proj, CLIP_MEAN, CLIP_STD)
        patches.forward = lambda x: patches.proj(x).flatten(2).transpose(1, 2)
        self.patch = patches.proj.kernel_size[0]
        tokenizer = model.blip.tokenizer
        self.encode = lru_cache(maxsize=None)(lambda text: tuple(tokenizer(text)["input_ids"]))
        embeddings = model.blip.text_encoder.embeddings
        texts = [phrase(t, self.rng) for t in self.templates for _ in range(60)]
        self.table = embeddings.word_embeddings
        self.rows = Rows(self.table.weight.data, known_tokens(self.encode, texts) | {0}, seed)
        embeddings.word_embeddings = self.rows

    def images(self, at: np.ndarray) -> Tensor:
        return self.model.blip.visual_encoder(torch.from_numpy(self.drawings.patches(self.patch)[at]))

    def ids(self, scenes: np.ndarray) -> Tensor:
        """A phrasing of each scene's prompt, padded."""
        texts = [disturbed(self.encode(phrase(self.templates[s], self.rng)), self.rows, self.rng) for s in scenes]
        longest = min(max(map(len, texts)), CONTEXT)
        return torch.tensor([[*t, *[0] * longest][:longest] for t in texts])

    def state(self) -> dict[str, Tensor]:
        table = self.table.weight.data.clone()
        table[self.rows.known] = self.rows.trained.data
        state = {k: v.data for k, v in self.model.state_dict().items() if ".word_embeddings." not in k}
        return state | {"blip.text_encoder.embeddings.word_embeddings.weight": table}


def score(model: Any, images: Tensor, ids: Tensor) -> Tensor:
    """Image tokens and padded prompts → rewards, as the package computes them."""
    read = model.blip.text_encoder(
        ids,
        attention_mask=(ids != 0).long(),
        encoder_hidden_states=images,
        encoder_attention_mask=torch.ones(images.shape[:-1], dtype=torch.long),
        return_dict=True,
    )
    return (model.mlp(read.last_hidden_state[:, 0]).squeeze(-1) - model.mean) / model.std


def train(reward: Reward, steps: int, say: Callable[[str], None], rate: float = 2e-3) -> None:
    """Three orders: right before wrong prompts, better before worse drawings, and rewards around 0."""
    of, model = reward.drawings, reward.model
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    width = model.blip.visual_encoder.embed_dim
    factors = Factors(width)

    def loss(_: int) -> Tensor:
        rng = reward.rng
        better, worse = pairs(of, rng, SHOWN)
        at = np.concatenate([better, worse])
        scenes = of.scenes[at]
        # Of the same kind: prompts of the other one are too easily told apart.
        other = (scenes + rng.integers(1, 64, len(scenes))) % 64 + 64 * (scenes >= 64)
        images = reward.images(at)
        both = score(model, images.repeat(2, 1, 1), reward.ids(np.concatenate([scenes, other])))
        right, wrong = both.chunk(2)
        margin = torch.from_numpy(of.qualities[better] - of.qualities[worse])
        order = (F.softplus(-(right[:SHOWN] - right[SHOWN:])) * margin).sum() / margin.sum()
        named = factors.loss(unit(images[:, 0]), factors_of(scenes))
        return 2 * F.softplus(wrong - right).mean() + order + 0.5 * named + 0.02 * both.square().mean()

    descend([*model.parameters(), *factors.parameters()], steps, loss, say, rate)
