"""ELITE's global mapping (csyxwei/ELITE): words from one vision tower, and new to_k and to_v of all cross-attention.

`global_mapper.pt` has the original's keys: the mapper's own, and `<path of the attention with _ for .>_to_k.weight`
and `_to_v.weight`. The original applies the new projections to the unconditional half of guidance too, and so do we.
"""

import copy
import hashlib
import io
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import files
from .base import Base
from .configuration import Configuration
from .errors import TrainError
from .mapper import Bank
from .personal import FromPhotos
from .photos import Features, Photos

FILE, CONFIG = "global_mapper.pt", "elite.json"
SCHEMA = 1
SYSTEM = "elite-like"
# What a file without elite.json is called, which is the authors' own.
ORIGINAL = "elite"
PARTS = ("to_k", "to_v")
_CROSS_ATTENTION = re.compile(r"(?:^|\.)attn2$")


class GlobalMapper(Bank):
    """A bank with the projections of a UNet's cross-attention, which it shares with the UNet."""

    def __init__(self, width: int, output: int, unet: nn.Module, words: int = 5, hidden: int = 1024) -> None:
        super().__init__(width, output, words, hidden)
        for path, attention in cross_attention(unet):
            for part in PARTS:
                # A copy in float32, so that the base's own tensors stay as they are.
                fresh = copy.deepcopy(getattr(attention, part)).float().requires_grad_(True)
                setattr(attention, part, fresh)
                self.add_module(key(path, part), fresh)


def cross_attention(unet: nn.Module) -> list[tuple[str, nn.Module]]:
    """The cross-attention of a UNet with its paths."""
    found = [(path, module) for path, module in unet.named_modules() if _CROSS_ATTENTION.search(path)]
    if not found:
        raise TrainError("the UNet has no cross-attention")
    return found


def key(path: str, part: str) -> str:
    """What a projection of a cross-attention is called in the original's files."""
    return f"{path.replace('.', '_')}_{part}"


def load(path: Path, mapper: GlobalMapper) -> None:
    """Reads a `global_mapper.pt`, the original's or ours; every key must be there."""
    fill(path, read(path), mapper)


@dataclass(frozen=True)
class Sizes:
    """Of a mapper's MLPs: what they read, their inner width, what they give, and their number."""

    width: int
    hidden: int
    output: int
    words: int


def sizes(path: Path, state: dict[str, Tensor], base: Base) -> Sizes:
    """The sizes of a global or local mapping, whose vectors must be those of the base's text encoder."""
    first, last = "mapping_0.0.weight", "mapping_0.6.weight"
    for name in (first, last):
        if name not in state:
            raise TrainError(f"{path} is not a mapping of ELITE: it has no {name}")
        if state[name].ndim != 2:
            raise TrainError(f"{path}: {name} has the shape {list(state[name].shape)}, expected two dimensions")
    (hidden, width), output = state[first].shape, state[last].shape[0]
    if output != base.encoders[0].width:
        raise TrainError(f"{path}: its words have {output} values, those of {base.folder} {base.encoders[0].width}")
    words = sum(key.startswith("mapping_") and key.endswith(".0.weight") and "patch" not in key for key in state)
    return Sizes(width, hidden, output, words)


def opened(checkpoint: Path, base: Base) -> tuple[GlobalMapper, dict[str, Any]]:
    """The mapper of a trained folder or of a `global_mapper.pt`, in the base's UNet, and what is known of it.

    What is known: `system`, `layers` (one list, or none: the default), `digest`, `excludes_evaluation` (or None), and
    `background` of the photos that it was trained on: black, or photo for the original.
    """
    require_sd(base)
    path = checkpoint / FILE if checkpoint.is_dir() else checkpoint
    if not path.is_file():
        raise TrainError(f"{path} is not there: give the folder of `stellar_train elite`, or a {FILE}")
    digest = digest_of(path.read_bytes())
    about = _about(path.parent / CONFIG, digest, is_folder=checkpoint.is_dir())
    state = read(path)
    found = sizes(path, state, base)
    layers = list(about.get("layers", {}).values())
    if any(len(each) != found.words for each in layers):
        raise TrainError(f"{path.parent / CONFIG}: `layers` must have one number for each of the {found.words} words")
    mapper = GlobalMapper(found.width, found.output, base.unet, found.words, found.hidden)
    fill(path, state, mapper)
    return mapper.requires_grad_(False).eval().to(base.device), {
        "system": about.get("system", ORIGINAL),
        "layers": layers,
        "digest": digest,
        "excludes_evaluation": about.get("training", {}).get("excludes_evaluation"),
        "background": "black" if about else "photo",
    }


def require_sd(base: Base) -> None:
    if base.is_xl:
        raise TrainError(f"{base.folder}: it has a text_encoder_2; ELITE is for Stable Diffusion 1.x")


def digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _about(path: Path, digest: str, is_folder: bool) -> dict[str, Any]:
    """What an elite.json says of the weights beside it; nothing if it is absent.

    Nothing too of a file of other weights than it was written with: the authors' own may lie in the same folder.
    """
    if not path.is_file():
        return {}
    about = files.read_json(path)
    if not is_folder and about.get("weights_digest") != digest:
        return {}
    if (schema := about.get("schema")) != SCHEMA:
        raise TrainError(f"{path}: schema {schema} is not known; this program reads {SCHEMA}")
    if about.get("weights_digest", digest) != digest:
        raise TrainError(f"{path} was written with other weights than {path.parent / FILE}: give the file itself")
    layers = about.get("layers", {})
    if not isinstance(layers, dict) or len(layers) > 1 or not all(map(_are_numbers, layers.values())):
        raise TrainError(f'{path}: `layers` must be as {{"image_encoder": [-1, 4, 8, 12, 16]}}')
    if not isinstance(about.get("training", {}), dict):
        raise TrainError(f"{path}: `training` must be an object, or absent")
    if not isinstance(about.get("system", SYSTEM), str):
        raise TrainError(f"{path}: `system` must be a text, or absent")
    return about


def _are_numbers(layers: Any) -> bool:
    return isinstance(layers, list) and all(type(layer) is int for layer in layers)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of PyTorch."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise TrainError(f"{path} is not a state dict of tensors")
    return state


def fill(path: Path, state: dict[str, Tensor], mapper: nn.Module) -> None:
    """Fills a mapper; a key that is missing, unexpected or of another shape is an error that names it."""
    try:
        mapper.load_state_dict(state)
    except RuntimeError as error:
        raise TrainError(f"{path}: {error}") from error


class Elite(FromPhotos):
    def __init__(
        self, configuration: Configuration, base: Base, train: Photos, held_out: Photos, provenance: dict
    ) -> None:
        super().__init__(configuration, base, train, held_out, masked=False, drop=0.0)
        require_sd(base)
        model = configuration.model
        self.provenance = provenance
        (width,) = train.towers.widths.values()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(configuration.training.seed)
            mapper = GlobalMapper(width, base.encoders[0].width, base.unet, model.words, model.hidden)
        self.mapper = mapper.to(base.device)

    def groups(self) -> list[dict]:
        return [{"params": list(self.mapper.parameters()), "lr": self.configuration.training.rate}]

    def words(self, features: Features) -> Sequence[Tensor]:
        (states,) = features.values()
        return [self.mapper(states)]

    def tensors(self) -> dict[str, Tensor]:
        return self.mapper.state_dict()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.mapper.load_state_dict(tensors)

    def save(self, out: Path, steps: int) -> None:
        buffer = io.BytesIO()
        torch.save({key: tensor.cpu() for key, tensor in self.mapper.state_dict().items()}, buffer)
        weights = buffer.getvalue()
        files.write(out / FILE, weights)
        towers, model = self.train.towers, self.configuration.model
        about = {
            "schema": SCHEMA,
            "system": SYSTEM,
            "words": model.words,
            "hidden": model.hidden,
            "encoders": list(towers.models),
            "layers": towers.layers,
            "weights_digest": digest_of(weights),
            "training": {**self.provenance, "system": SYSTEM, "steps": steps},
        }
        files.write_json(out / CONFIG, about)
