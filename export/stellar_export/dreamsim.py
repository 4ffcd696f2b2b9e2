"""DreamSim's ensemble: DINO, CLIP and open_clip ViT-B/16 as one graph, their LoRA merged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from . import layouts, preprocess
from .errors import ExportError, MissingCheckpoint
from .jobs import GraphJob, Request, embedding_image_job
from .manifest import Source, sha256_of_all
from .nn import LayerNorm, Linear, Normalise, Precision, VisionTransformer, normalised
from .preprocess import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from .weights import Weights, load_pickle, load_state_dict, of_state_dict

CACHE = ".dreamsim_cache"
DINO = "dino_vitbase16_pretrain.pth"
BRANCHES = ("clip", "open_clip")
ADAPTER = "ensemble_lora"
SIZES = "dreamsim_tiny.json"
HINT = "dreamsim_ensemble_checkpoint.zip of release v0.2.0-checkpoints of ssundaram21/dreamsim, unpacked"
DINO_HINT = "the repository facebookresearch/dino publishes it"

DINO_LAYERS = 12  # dreamsim takes the output of block 11 by number
SIDE, PATCH = 224, 16
PUBLISHED = dict(embed_dim=768, depth=12, num_heads=12)


class Branch(nn.Module):
    """One ViT: its own normalisation, class token, optional final norm and projection."""

    def __init__(
        self, normalise: Normalise, body: VisionTransformer, norm: LayerNorm | None, projection: Linear | None
    ):
        super().__init__()
        self.normalise, self.body, self.norm, self.projection = normalise, body, norm, projection

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.body.class_token(self.normalise(pixels))
        if self.norm is not None:
            x = self.norm(x)
        return (x if self.projection is None else self.projection(x)).float()


class DreamSim(nn.Module):
    """Pixels → the three features one after the other, less their mean, at unit length."""

    def __init__(self, branches: Sequence[Branch]):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, pixels: Tensor) -> Tensor:
        x = torch.cat([branch(pixels) for branch in self.branches], dim=-1)
        return normalised(x - x.mean(dim=-1, keepdim=True))


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter of the fused query, key and value matrices."""

    weights: Weights
    rank: int
    scale: float

    def change(self, branch: int, block: int, width: int) -> Tensor:
        """What the adapter adds to a matrix: (alpha/r)·B·A, in float64."""
        at = f"base_model.model.extractor_list.{branch}.model.blocks.{block}.attn.qkv"
        a = self.weights.take(f"{at}.lora_A.weight", self.rank, width).double()
        b = self.weights.take(f"{at}.lora_B.weight", 3 * width, self.rank).double()
        return self.scale * (b @ a)


def load_lora(folder: Path) -> Lora:
    """The adapter as peft saves it. What would change the sum in a way that is not done here is refused."""
    where = folder / "adapter_config.json"
    config = json.loads(where.read_text())
    plain = dict(
        bias="none",
        fan_in_fan_out=False,
        modules_to_save=None,
        rank_pattern={},
        alpha_pattern={},
        layers_to_transform=None,
        use_rslora=False,
        use_dora=False,
    )
    for key, value in plain.items():
        if config.get(key, value) not in (value, None):
            raise ExportError(f"{where}: {key} = {config[key]!r} is not supported")
    if list(config["target_modules"]) != ["qkv"]:
        raise ExportError(f"{where}: target_modules {config['target_modules']} are not ['qkv']")
    path = adapter_file(folder)
    state = load_file(path) if path.suffix == ".safetensors" else load_pickle(path)
    return Lora(of_state_dict(str(path), state), config["r"], config["lora_alpha"] / config["r"])


def adapter_file(folder: Path) -> Path:
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise ExportError(f"{folder}: no adapter_model.safetensors and no adapter_model.bin")


def body(
    w: Weights,
    sizes: dict,
    branch: int,
    layers: int,
    act: str,
    eps: float,
    pre: LayerNorm | None,
    lora: Lora,
    precision: Precision,
) -> VisionTransformer:
    width = sizes["embed_dim"]
    return VisionTransformer(
        patch=w.take("patch_embed.proj.weight", width, 3, PATCH, PATCH),
        patch_bias=w.take("patch_embed.proj.bias", width),
        cls=w.take("cls_token", 1, 1, width),
        position=w.take("pos_embed", 1, (SIDE // PATCH) ** 2 + 1, width),
        norm_pre=pre,
        blocks=[
            layouts.timm_block(
                w,
                f"blocks.{i}",
                width,
                4 * width,
                sizes["num_heads"],
                act,
                eps,
                precision,
                lora.change(branch, i, width),
            )
            for i in range(layers)
        ],
        precision=precision,
    )


def dino_branch(path: Path, sizes: dict, lora: Lora, precision: Precision) -> Branch:
    """The class token before the final norm, which is loaded but not used."""
    w, eps = load_state_dict(path), 1e-6
    vit = body(w, sizes, 0, sizes["depth"], "gelu", eps, None, lora, precision)
    vit.blocks = vit.blocks[:DINO_LAYERS]
    layouts.norm(w, "norm", sizes["embed_dim"], eps)
    w.finish()
    return Branch(Normalise(IMAGENET_MEAN, IMAGENET_STD), vit, None, None)


def clip_branch(path: Path, index: int, act: str, sizes: dict, lora: Lora, precision: Precision) -> Branch:
    """A CLIP tower rewritten as DINO's ViT: its first norm sits where DINO has a dropout."""
    w, width, eps = load_state_dict(path, "state_dict"), sizes["embed_dim"], 1e-5
    pre = layouts.norm(w, "pos_drop", width, eps)
    vit = body(w, sizes, index, sizes["depth"], act, eps, pre, lora, precision)
    norm = layouts.norm(w, "norm", width, eps)
    projection = Linear(w.take("proj", width, w.shape("proj")[1]).t(), None, precision)
    w.finish()
    return Branch(Normalise(CLIP_MEAN, CLIP_STD), vit, norm, projection)


def graphs(request: Request) -> Iterator[GraphJob]:
    """dreamsim: 1 − cosine of mean-centred features."""
    dino = request.checkpoints.file(DINO, None, DINO_HINT)
    cache = request.checkpoints.local("hub", CACHE)
    towers = [f"{b}_vitb16_pretrain.pth.tar" for b in BRANCHES]
    absent = [n for n in (*towers, ADAPTER) if cache is None or not (cache / n).exists()]
    if absent:
        place = (request.checkpoints.root or Path("CHECKPOINTS")) / "hub" / CACHE
        raise MissingCheckpoint(f"{place} lacks {', '.join(absent)}; it is not on the hub: {HINT}")
    sizes = dict(PUBLISHED)
    if path := request.checkpoints.local("files", SIZES):
        sizes |= json.loads(path.read_text())
    if sizes["depth"] < DINO_LAYERS:
        raise ExportError(f"{dino.path}: depth {sizes['depth']}, DreamSim takes the output of block {DINO_LAYERS - 1}")
    lora = load_lora(cache / ADAPTER)
    module = DreamSim(
        [
            dino_branch(dino.path, sizes, lora, request.precision),
            clip_branch(cache / towers[0], 1, "quick_gelu", sizes, lora, request.precision),
            clip_branch(cache / towers[1], 2, "gelu", sizes, lora, request.precision),
        ]
    )
    lora.weights.finish()
    width = sum(sizes["embed_dim"] if b.projection is None else b.projection.weight.shape[1] for b in module.branches)
    files = [dino.path, *(cache / t for t in towers), adapter_file(cache / ADAPTER)]
    source = Source("ssundaram21/dreamsim ensemble", "local", " + ".join(f.name for f in files), sha256_of_all(files))
    geometry = preprocess.exact(SIDE, SIDE, "bicubic")
    job = embedding_image_job(["dreamsim.image"], module, width, geometry, source, sizes == PUBLISHED)
    del module
    yield job
