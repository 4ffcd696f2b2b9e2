"""DINO and DreamSim: pictures of one person are alike, and a drawing is like itself drawn worse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .drawings import Drawings
from .training import contrast, descend, unit

PAIRS = 24
SCALE = 16.0


class Vit(nn.Module):
    """A ViT in timm's layout, of which only the first blocks are computed.

    The others are to change next to nothing: `quiet` makes them so. Twelve layers as DreamSim's take too long to train.
    """

    def __init__(
        self,
        state: dict[str, Tensor],
        computed: int,
        heads: int,
        eps: float,
        act: str,
        qkv: Sequence[Tensor] = (),
    ):
        super().__init__()
        self.names = list(state)
        self.computed, self.heads, self.eps, self.act = computed, heads, eps, act
        self.values = nn.ParameterDict({self.key(n): nn.Parameter(v.float().clone()) for n, v in state.items()})
        self.depth = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("blocks."))
        self.changes = list(qkv)  # what adapters add to the matrices of the computed blocks

    @staticmethod
    def key(name: str) -> str:
        return name.replace(".", "/")

    def __getitem__(self, name: str) -> Tensor:
        return self.values[self.key(name)]

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self[f"{name}.weight"], self[f"{name}.bias"], self.eps)

    def forward(self, patches: Tensor, mean: list[float], std: list[float]) -> Tensor:
        """Patches as they are in pictures → all tokens after the computed blocks."""
        weight = self["patch_embed.proj.weight"] / (255 * torch.tensor(std)[:, None, None])
        bias = self["patch_embed.proj.bias"] - (weight * (255 * torch.tensor(mean))[:, None, None]).flatten(1).sum(1)
        x = F.linear(patches.float(), weight.flatten(1), bias)
        x = torch.cat([self["cls_token"].expand(len(x), -1, -1), x], dim=1) + self["pos_embed"]
        if self.key("pos_drop.weight") in self.values:
            x = self.norm(x, "pos_drop")
        for i in range(self.computed):
            at = f"blocks.{i}"
            matrix = self[f"{at}.attn.qkv.weight"]
            if self.changes:
                matrix = matrix + self.changes[i]
            qkv = F.linear(self.norm(x, f"{at}.norm1"), matrix, self[f"{at}.attn.qkv.bias"])
            q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + F.linear(mixed, self[f"{at}.attn.proj.weight"], self[f"{at}.attn.proj.bias"])
            h = F.linear(self.norm(x, f"{at}.norm2"), self[f"{at}.mlp.fc1.weight"], self[f"{at}.mlp.fc1.bias"])
            h = h * torch.sigmoid(1.702 * h) if self.act == "quick_gelu" else F.gelu(h)
            x = x + F.linear(h, self[f"{at}.mlp.fc2.weight"], self[f"{at}.mlp.fc2.bias"])
        return x

    @torch.no_grad()
    def quiet(self) -> None:
        for i in range(self.computed, self.depth):
            for layer in ("attn.proj", "mlp.fc2"):
                for leaf in ("weight", "bias"):
                    self[f"blocks.{i}.{layer}.{leaf}"].mul_(1e-3)

    def state(self) -> dict[str, Tensor]:
        return {n: self[n].data for n in self.names}


def train(
    embed: Callable[[Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    drawings: Drawings,
    side: int,
    steps: int,
    seed: int,
    say: Callable[[str], None],
    rate: float = 2e-3,
) -> None:
    """`embed` makes vectors of patches; those of one person come near each other, whatever they do."""
    rng = np.random.default_rng(seed)
    patches = drawings.patches(side)
    photos = {p: np.flatnonzero(drawings.photos & (drawings.people == p)) for p in np.unique(drawings.people)}
    others = {p: np.flatnonzero(~drawings.photos & (drawings.people == p)) for p in photos}
    mine = torch.eye(PAIRS, dtype=torch.bool)

    def loss(_: int) -> Tensor:
        people = rng.choice(list(photos), PAIRS, replace=False)
        at = np.concatenate([[rng.choice(kind[p]) for p in people] for kind in (others, photos)])
        x = unit(embed(torch.from_numpy(patches[at])))
        return contrast(x[:PAIRS], x[PAIRS:], mine, SCALE)

    descend(parameters, steps, loss, say, rate)


# ---- DINO's layout in transformers, rewritten as timm's

OUTER = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
INNER = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of transformers' ViTModel → timm's, query, key and value as one matrix."""
    found = {new: state[old] for old, new in OUTER.items()}
    layers = {int(name.split(".")[2]) for name in state if name.startswith("encoder.layer.")}
    for i in sorted(layers):
        at = f"encoder.layer.{i}"
        for leaf in ("weight", "bias"):
            parts = [state[f"{at}.attention.attention.{part}.{leaf}"] for part in ("query", "key", "value")]
            found[f"blocks.{i}.attn.qkv.{leaf}"] = torch.cat(parts)
            for old, new in INNER.items():
                found[f"blocks.{i}.{new}.{leaf}"] = state[f"{at}.{old}.{leaf}"]
    return found


def from_timm(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Back again, to the names that a checkpoint has."""
    found: dict[str, Tensor] = {}
    for name in names:
        if name in OUTER:
            found[name] = state[OUTER[name]]
            continue
        _, _, layer, rest = name.split(".", 3)
        part, leaf = rest.rsplit(".", 1)
        if part.startswith("attention.attention."):
            third = ("query", "key", "value").index(part.rsplit(".", 1)[1])
            found[name] = state[f"blocks.{layer}.attn.qkv.{leaf}"].chunk(3)[third]
        else:
            found[name] = state[f"blocks.{layer}.{INNER[part]}.{leaf}"]
    return found
