"""CLIP models in Hugging Face layout: of prompts and drawings, and of people in both kinds of pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..preprocess import CLIP_MEAN, CLIP_STD
from .drawings import PHOTO, ROW, SCENES, Drawings, phrase, templates
from .text import Rows, disturbed, known_tokens, padded
from .training import contrast, descend, of_patches, unit

# Cosines are multiplied by it before the softmax.
SCALE = 20.0
PAIRS = 32


class Clip:
    """A CLIPModel while it is trained, with the prompts and pictures that it is trained on."""

    def __init__(self, model: nn.Module, tokenizer: Any, drawings: Drawings, seed: int):
        self.model, self.tokenizer, self.drawings = model, tokenizer, drawings
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.templates = templates(drawings)
        convolution = model.vision_model.embeddings.patch_embedding
        of_patches(convolution, CLIP_MEAN, CLIP_STD)
        self.patch = convolution.kernel_size[0]
        self.encode = lru_cache(maxsize=None)(lambda text: tuple(tokenizer(text)["input_ids"]))
        embeddings = model.text_model.embeddings
        texts = [phrase(t, self.rng) for t in self.templates for _ in range(60)]
        self.table = embeddings.token_embedding
        self.rows = Rows(self.table.weight.data, known_tokens(self.encode, texts), seed)
        embeddings.token_embedding = self.rows
        model.logit_scale.requires_grad_(False)

    def texts(self, texts: list[str], noisy: bool = True) -> Tensor:
        """Unit vectors of texts."""
        ids = [self.encode(t) for t in texts]
        ids = [disturbed(i, self.rows, self.rng) if noisy else i for i in ids]
        return unit(self.model.get_text_features(padded(ids, self.tokenizer.eos_token_id)))

    def prompts(self) -> Tensor:
        """One phrasing of every scene's prompt."""
        return self.texts([phrase(t, self.rng) for t in self.templates])

    def images(self, at: np.ndarray) -> Tensor:
        """Unit vectors of drawings."""
        return unit(self.model.get_image_features(torch.from_numpy(self.drawings.patches(self.patch)[at])))

    def state(self) -> dict[str, Tensor]:
        """All weights in the layout of the checkpoint."""
        table = self.table.weight.data.clone()
        table[self.rows.known] = self.rows.trained.data
        state = {k: v.data for k, v in self.model.state_dict().items() if ".token_embedding." not in k}
        return state | {"text_model.embeddings.token_embedding.weight": table}


class Factors(nn.Module):
    """A direction for each activity, place, mood and time, which pictures and prompts of it are to point along.

    A scene is two of them. Naming those first is quicker than telling 128 prompts apart.
    """

    def __init__(self, width: int):
        super().__init__()
        self.directions = nn.Parameter(torch.linalg.qr(torch.randn(max(width, 4 * ROW), width))[0][: 4 * ROW])

    def loss(self, embedded: Tensor, factors: Tensor) -> Tensor:
        """Cross-entropy of both factors, each within its group. Rows of factors are pairs of columns."""
        logits = (SCALE * embedded @ unit(self.directions).T).unflatten(1, (4, ROW))
        rows = torch.arange(len(factors))
        return sum(
            F.cross_entropy(logits[rows, factors[:, i] // ROW], factors[:, i] % ROW) for i in range(2)
        )


def matching(images: Tensor, scenes: Tensor, prompts: Tensor) -> Tensor:
    """That each picture is nearest to its prompt, among all prompts, and each prompt to its pictures."""
    logits = SCALE * images @ prompts.T
    shown = scenes.unique()
    of_prompts = torch.logsumexp(logits.T[shown], dim=1)
    right = scenes[None, :] == shown[:, None]
    of_right = torch.logsumexp(logits.T[shown].masked_fill(~right, -torch.inf), dim=1)
    return F.cross_entropy(logits, scenes) + (of_prompts - of_right).mean()


def factors_of(scenes: np.ndarray) -> Tensor:
    """The two factors of each scene that is no photo."""
    first = 2 * ROW * (scenes >= ROW * ROW)
    return torch.from_numpy(np.stack([first + scenes % (ROW * ROW) // ROW, first + ROW + scenes % ROW], axis=1))


def train(clip: Clip, steps: int, say: Callable[[str], None], rate: float = 3e-3) -> None:
    """The prompt of a drawing, and the person in it by a photo of them."""
    of = clip.drawings
    photos = {p: np.flatnonzero(of.photos & (of.people == p)) for p in np.unique(of.people)}
    others = {p: np.flatnonzero(~of.photos & (of.people == p)) for p in photos}
    factors = Factors(clip.model.config.projection_dim)
    every = factors_of(np.arange(SCENES))
    mine = torch.eye(PAIRS, dtype=torch.bool)

    def loss(_: int) -> Tensor:
        people = clip.rng.choice(list(photos), PAIRS, replace=False)
        drawn = np.array([clip.rng.choice(others[p]) for p in people])
        shot = np.array([clip.rng.choice(photos[p]) for p in people])
        images, prompts = clip.images(np.concatenate([drawn, shot])), clip.prompts()
        a, b = images[:PAIRS], images[PAIRS:]
        scenes = of.scenes[drawn]
        named = factors.loss(a, factors_of(scenes)) + factors.loss(prompts[:SCENES], every)
        photo = F.cross_entropy(SCALE * b @ prompts.T, torch.full((PAIRS,), PHOTO))
        matched = matching(a, torch.from_numpy(scenes), prompts)
        return matched + named + 3 * contrast(a, b, mine, SCALE) + 0.2 * photo

    descend([*clip.model.parameters(), *factors.parameters()], steps, loss, say, rate)
