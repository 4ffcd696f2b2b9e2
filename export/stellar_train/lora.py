"""Low-rank adapters of a diffusers UNet, without PEFT: W·x + (alpha/rank)·B·A·x.

Files are diffusers' `pytorch_lora_weights.safetensors`: `unet.<module path>.lora.down.weight` is A [rank, in] and
`.lora.up.weight` is B [out, rank]. Newer PEFT writes `lora_A`/`lora_B`; both are read. Where a file states no alpha,
alpha is the rank, as in diffusers.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import TrainError

FILE = "pytorch_lora_weights.safetensors"
TARGETS = re.compile(r"(?:^|\.)attn[12]\.(?:to_q|to_k|to_v|to_out\.0)$")
_KEY = re.compile(r"^unet\.(?P<path>.+?)\.(?:lora\.)?(?P<part>lora_A|lora_B|down|up)\.weight$")
_ALPHA = re.compile(r"^unet\.(?P<path>.+?)\.(?:lora\.)?alpha$")
_DOWN = {"down": True, "lora_A": True, "up": False, "lora_B": False}


class LoraLinear(nn.Module):
    """A frozen linear layer with a trainable low-rank addition. The base layer's tensors are never written to."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        # The gaussian of PEFT's `init_lora_weights="gaussian"`: standard deviation 1/rank.
        down = torch.randn(rank, base.in_features, generator=generator) / rank
        self.down = nn.Parameter(down.to(base.weight.device))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        added = nn.functional.linear(nn.functional.linear(x.to(self.down.dtype), self.down), self.up)
        result = self.base(x)
        return result + (self.scale * added).to(result.dtype)


def inject(unet: nn.Module, rank: int = 4, alpha: float = 4, seed: int = 0) -> list[nn.Parameter]:
    """Puts adapters into to_q, to_k, to_v and to_out.0 of attn1 and attn2; returns their parameters in a fixed order.

    B is zero, so the UNet's output is unchanged at first. Everything else of the UNet is frozen.
    """
    if rank < 1:
        raise TrainError(f"LoRA rank {rank}: it must be at least 1")
    unet.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    parameters: list[nn.Parameter] = []
    paths = [path for path, module in unet.named_modules() if TARGETS.search(path) and isinstance(module, nn.Linear)]
    if not paths:
        raise TrainError("the UNet has no attention projections to adapt, or it has adapters already")
    for path in paths:
        parent, _, name = path.rpartition(".")
        layer = LoraLinear(unet.get_submodule(path), rank, alpha, generator)
        setattr(unet.get_submodule(parent), name, layer)
        parameters += [layer.down, layer.up]
    return parameters


def layers(unet: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The adapters of a UNet with the paths of the layers they adapt."""
    return ((path, module) for path, module in unet.named_modules() if isinstance(module, LoraLinear))


def state(unet: nn.Module) -> dict[str, Tensor]:
    """The adapters of a UNet under diffusers' keys."""
    found: dict[str, Tensor] = {}
    for path, layer in layers(unet):
        found[f"unet.{path}.lora.down.weight"] = layer.down.detach().cpu().clone()
        found[f"unet.{path}.lora.up.weight"] = layer.up.detach().cpu().clone()
    return found


def load(source: Path | Mapping[str, Tensor], alpha: float | None = None) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Reads a file or state dict: module path → (A [rank, in], B [out, rank], alpha/rank).

    `alpha`: what the checkpoint's configuration says; an alpha in the file itself has precedence, and without either
    it is the rank.
    """
    tensors = load_file(source / FILE if source.is_dir() else source) if isinstance(source, Path) else source
    halves: dict[str, dict[bool, Tensor]] = {}
    alphas: dict[str, float] = {}
    for key, tensor in tensors.items():
        if match := _KEY.match(key):
            halves.setdefault(match["path"], {})[_DOWN[match["part"]]] = tensor.float()
        elif match := _ALPHA.match(key):
            alphas[match["path"]] = float(tensor)
        else:
            raise TrainError(f"LoRA key {key} is not of a UNet's linear layer; only adapters of the UNet are supported")
    found = {}
    for path, pair in halves.items():
        if len(pair) != 2:
            raise TrainError(f"LoRA of {path}: the {'up' if True in pair else 'down'} weight is missing")
        down, up = pair[True], pair[False]
        if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
            raise TrainError(f"LoRA of {path}: shapes {list(down.shape)} and {list(up.shape)} do not fit")
        rank = down.shape[0]
        found[path] = (down, up, alphas.get(path, rank if alpha is None else alpha) / rank)
    if not found:
        raise TrainError("the LoRA file has no adapters")
    return found


def restore(unet: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fills injected adapters from diffusers' keys; both must have the same layers."""
    loaded, present = load(tensors), dict(layers(unet))
    if loaded.keys() != present.keys():
        odd = sorted(loaded.keys() ^ present.keys())
        raise TrainError(f"the LoRA file and the UNet have different layers, for example {odd[0]}")
    with torch.no_grad():
        for path, layer in present.items():
            down, up, _ = loaded[path]
            if down.shape != layer.down.shape or up.shape != layer.up.shape:
                raise TrainError(
                    f"LoRA of {path}: rank {down.shape[0]} instead of {layer.down.shape[0]}, or other sizes"
                )
            layer.down.copy_(down)
            layer.up.copy_(up)


def remove(unet: nn.Module) -> None:
    """Takes the adapters out again; the base's layers were never changed."""
    for path, layer in list(layers(unet)):
        parent, _, name = path.rpartition(".")
        setattr(unet.get_submodule(parent), name, layer.base)


@torch.no_grad()
def fuse(unet: nn.Module, source: Path | Mapping[str, Tensor], alpha: float | None = None) -> int:
    """Adds (alpha/rank)·B·A to the weights of a plain UNet, in float32; returns how many layers changed."""
    loaded = load(source, alpha)
    modules = dict(unet.named_modules())
    for path, (down, up, scale) in loaded.items():
        layer = modules.get(path)
        if not isinstance(layer, nn.Linear):
            raise TrainError(f"LoRA of {path}: the UNet has no such linear layer")
        if layer.weight.shape != (up.shape[0], down.shape[1]):
            raise TrainError(f"LoRA of {path}: it is for {up.shape[0]}×{down.shape[1]}, not {list(layer.weight.shape)}")
        weight = layer.weight
        added = (scale * (up @ down)).to(weight.device)
        weight.copy_((weight.float() + added).to(weight.dtype))
    return len(loaded)
