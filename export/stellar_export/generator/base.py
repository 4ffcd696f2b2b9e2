"""Reads an SDXL folder in the layout of diffusers, part by part and strictly.

diffusers' `from_pretrained` only warns about keys that are missing, so the modules are made without weights and filled
by `Weights`: a key that is missing, unexpected or of another shape is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..checkpoints import MARKER, Folder
from ..errors import ExportError
from ..manifest import Source
from ..nn import Precision
from ..vocabulary import clip_merges_of
from ..weights import WEIGHT_FILES, Weights, load_folder, weight_files

# In the order in which they are looked for; half-precision variants are read where there is nothing else.
STEM = "diffusion_pytorch_model"
DIFFUSERS_FILES = tuple(
    f"{STEM}{variant}{ending}"
    for variant in ("", ".fp16")
    for ending in (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
)
TEXT_FILES = (*WEIGHT_FILES, "model.fp16.safetensors")
PARTS = ("scheduler", "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "unet", "vae")

# The attention of a VAE that was saved before diffusers 0.15.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

PUBLISHED = "stabilityai/stable-diffusion-xl-base-1.0"
PUBLISHED_PARAMETERS = {"unet": 2_567_463_684, "vae": 83_653_863}


@dataclass(frozen=True)
class Base:
    """A base model's folder."""

    path: Path

    @staticmethod
    def open(path: Path) -> Base:
        """Checks that all parts are there and that both tokenizers have CLIP's vocabulary."""
        if not path.is_dir():
            raise ExportError(f"--base: {path} is not a folder")
        absent = [part for part in PARTS if not (path / part).is_dir()]
        if absent:
            raise ExportError(
                f"{path}: {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing; a base model is a folder "
                f"like {PUBLISHED} with {', '.join(PARTS)}"
            )
        index = path / "model_index.json"
        if not index.is_file():
            raise ExportError(f"{index} is missing; {path} is not a model that diffusers saved")
        if not json.loads(index.read_text()).get("force_zeros_for_empty_prompt", True):
            raise ExportError(
                f"{index}: force_zeros_for_empty_prompt is false; the service is guided away from zeros where there is no "
                "negative prompt, as SDXL is"
            )
        return Base(path)

    def part(self, name: str) -> Folder:
        return Folder(f"{self.path.resolve().name}/{name}", self.path / name, "local")

    @property
    def marked_demo(self) -> bool:
        """Whether the folder says that its weights are made up."""
        return (self.path / MARKER).is_file()

    def merges(self) -> list[str]:
        """The merges of both tokenizers, which must be the same."""
        first, second = (clip_merges_of(self.part(name)) for name in ("tokenizer", "tokenizer_2"))
        if first != second:
            raise ExportError(f"{self.path}: tokenizer and tokenizer_2 have different merges")
        return first

    def pad(self, name: str) -> int:
        """The id that a tokenizer fills the context with."""
        folder = self.part(name)
        token = folder.json("special_tokens_map.json").get("pad_token")
        token = token["content"] if isinstance(token, dict) else token
        found = folder.json("vocab.json").get(token)
        if found is None:
            raise ExportError(f"{folder.path}: its pad_token {token!r} is not in vocab.json")
        return found

    def unet_config(self) -> dict:
        """The UNet's configuration, if it is conditioned as SDXL's is."""
        config, where = self.part("unet").json("config.json"), self.path / "unet" / "config.json"
        if config.get("addition_embed_type") != "text_time":
            raise ExportError(f"{where}: addition_embed_type is {config.get('addition_embed_type')!r}, SDXL's is 'text_time'")
        if config.get("time_cond_proj_dim") is not None:
            raise ExportError(f"{where}: a distilled UNet (time_cond_proj_dim) is not supported")
        return config

    def unet(self) -> nn.Module:
        """The UNet in float32."""
        from diffusers import UNet2DConditionModel

        return fill(UNet2DConditionModel, self.unet_config(), self.weights("unet"))

    def vae(self) -> nn.Module:
        """The VAE in float32."""
        from diffusers import AutoencoderKL

        return fill(AutoencoderKL, self.part("vae").json("config.json"), renamed_attention(self.weights("vae")))

    def weights(self, name: str) -> Weights:
        return load_folder(self.path / name, DIFFUSERS_FILES)

    def source(self, name: str) -> Source:
        """Where the weights of `unet` or `vae` come from."""
        return self.part(name).source(weight_files(self.path / name, DIFFUSERS_FILES))


def fill(kind: type[nn.Module], config: Mapping, weights: Weights) -> nn.Module:
    """diffusers' module of this configuration with these weights: all of them, and no others."""
    with torch.device("meta"):
        module = kind.from_config(dict(config))
    state = {name: weights.take(name, *empty.shape) for name, empty in module.state_dict().items()}
    weights.finish()
    module.load_state_dict(state, strict=True, assign=True)
    return module.requires_grad_(False).eval()


def renamed_attention(weights: Weights) -> Weights:
    """A VAE's weights with the names of today."""

    def rename(name: str) -> str:
        *path, leaf, kind = name.split(".")
        if ".attentions." in name and leaf in OLD_ATTENTION:
            return ".".join([*path, OLD_ATTENTION[leaf], kind])
        return name

    return weights.renamed(rename)


def is_published(name: str, module: nn.Module) -> bool:
    """Whether the module has the size of the published model."""
    return sum(p.numel() for p in module.parameters()) == PUBLISHED_PARAMETERS[name]


def halved(module: nn.Module, precision: Precision) -> nn.Module:
    """The module in the precision of its arithmetic; a weight that does not fit in it is an error."""
    if precision.compute == torch.float16:
        most = torch.finfo(torch.float16).max
        for name, parameter in module.named_parameters():
            if parameter.device.type != "meta" and parameter.abs().max() > most:
                raise ExportError(f"{name} is too large for half precision: build with --precision fp32")
    return module.to(precision.compute)
