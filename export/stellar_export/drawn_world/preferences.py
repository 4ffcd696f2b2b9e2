"""Models of what people prefer: the drawing that fits the prompt, and of two that fit the better drawn one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clips import Clip, Factors, factors_of, matching
from .drawings import SCENES, Drawings
from .training import descend

SHOWN = 16  # scenes a step, with two drawings each
SHARP = 40.0  # what differences of cosines are multiplied with, as the published models do with theirs


def pairs(of: Drawings, rng: np.random.Generator, count: int) -> np.ndarray:
    """Two drawings of each of `count` scenes, the better one first: `[2, count]`."""
    scenes = of.of_scene()
    two = np.stack([rng.choice(scenes[s], 2, replace=False) for s in rng.choice(list(scenes), count, replace=False)])
    return np.take_along_axis(two, np.argsort(-of.qualities[two], axis=1), axis=1).T


def train(clip: Clip, steps: int, say: Callable[[str], None], rate: float = 2e-3) -> None:
    """Prompts and drawings as for CLIP, and the order of two drawings of one prompt."""
    of = clip.drawings
    factors = Factors(clip.model.config.projection_dim)
    every = factors_of(np.arange(SCENES))

    def loss(_: int) -> Tensor:
        better, worse = pairs(of, clip.rng, SHOWN)
        at = np.concatenate([better, worse])
        images, prompts = clip.images(at), clip.prompts()
        scenes = torch.from_numpy(of.scenes[at])
        score = (images * prompts[scenes]).sum(-1)
        margin = torch.from_numpy(of.qualities[better] - of.qualities[worse])
        # Drawings of nearly equal quality say nothing about the order.
        order = (F.softplus(-SHARP * (score[:SHOWN] - score[SHOWN:])) * margin).sum() / margin.sum()
        named = factors.loss(images, factors_of(of.scenes[at])) + factors.loss(prompts[:SCENES], every)
        return matching(images, scenes, prompts) + named + 2 * order

    descend([*clip.model.parameters(), *factors.parameters()], steps, loss, say, rate)


def train_rating(clip: Clip, head: nn.Module, steps: int, say: Callable[[str], None], rate: float = 2e-3) -> None:
    """The quality of a drawing as a rating from 1 to 10."""
    of = clip.drawings
    best = torch.from_numpy(1 + 9 * of.qualities)
    clip.model.text_model.requires_grad_(False)
    clip.model.text_projection.requires_grad_(False)

    def loss(_: int) -> Tensor:
        at = np.sort(clip.rng.choice(len(best), min(48, len(best)), replace=False))
        return F.mse_loss(head(clip.images(at)).squeeze(-1), best[at])

    descend([*clip.model.parameters(), *head.parameters()], steps, loss, say, rate)


# ---- OpenAI's layout, in which HPSv1 and HPSv2 are published

NAMES = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "logit_scale": "logit_scale",
}
PARTS = {
    "ln_final": "text_model.final_layer_norm",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
}
BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
PROJECTIONS = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names and shapes → those of transformers."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        value = value.float()
        if name in NAMES:
            found[NAMES[name]] = value
        elif name in PROJECTIONS:
            found[PROJECTIONS[name]] = value.T
        elif match := re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.*)", name):
            at = f"{'vision' if match[1] else 'text'}_model.encoder.layers.{match[2]}"
            if match[3].startswith("attn.in_proj_"):
                for part, third in zip("qkv", value.chunk(3), strict=True):
                    found[f"{at}.self_attn.{part}_proj.{match[3].removeprefix('attn.in_proj_')}"] = third
            else:
                part, leaf = match[3].rsplit(".", 1)
                found[f"{at}.{BLOCK[part]}.{leaf}"] = value
        else:
            part, leaf = name.rsplit(".", 1)
            found[f"{PARTS[part]}.{leaf}"] = value
    return found


def to_openai(state: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Back again, to the names that a checkpoint has."""
    found: dict[str, Tensor] = {}
    for name in names:
        if name in NAMES:
            found[name] = state[NAMES[name]]
        elif name in PROJECTIONS:
            found[name] = state[PROJECTIONS[name]].T
        elif match := re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.*)", name):
            at = f"{'vision' if match[1] else 'text'}_model.encoder.layers.{match[2]}"
            if match[3].startswith("attn.in_proj_"):
                leaf = match[3].removeprefix("attn.in_proj_")
                found[name] = torch.cat([state[f"{at}.self_attn.{part}_proj.{leaf}"] for part in "qkv"])
            else:
                part, leaf = match[3].rsplit(".", 1)
                found[name] = state[f"{at}.{BLOCK[part]}.{leaf}"]
        else:
            part, leaf = name.rsplit(".", 1)
            found[name] = state[f"{PARTS[part]}.{leaf}"]
    return found
