"""ELITE's global mapping (csyxwei/ELITE): words from one vision tower, and new to_k and to_v of all cross-attention.

`global_mapper.pt` has the original's keys: the mapper's own, and `<path of the attention with _ for .>_to_k.weight`
and `_to_v.weight`. The original applies the new projections to the unconditional half of guidance too, and so do we.
"""

import copy
import io
import re
from collections.abc import Sequence
from pathlib import Path

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
SYSTEM = "elite-like"
_CROSS_ATTENTION = re.compile(r"(?:^|\.)attn2$")


class GlobalMapper(Bank):
    """A bank with the projections of a UNet's cross-attention, which it shares with the UNet."""

    def __init__(self, width: int, output: int, unet: nn.Module, words: int = 5, hidden: int = 1024) -> None:
        super().__init__(width, output, words, hidden)
        found = [(path, module) for path, module in unet.named_modules() if _CROSS_ATTENTION.search(path)]
        if not found:
            raise TrainError("the UNet has no cross-attention")
        for path, attention in found:
            for part in ("to_k", "to_v"):
                # A copy in float32, so that the base's own tensors stay as they are.
                fresh = copy.deepcopy(getattr(attention, part)).float().requires_grad_(True)
                setattr(attention, part, fresh)
                self.add_module(f"{path.replace('.', '_')}_{part}", fresh)


def load(path: Path, mapper: GlobalMapper) -> None:
    """Reads a `global_mapper.pt`, the original's or ours; every key must be there."""
    try:
        mapper.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise TrainError(f"{path}: {error}") from error


class Elite(FromPhotos):
    def __init__(
        self, configuration: Configuration, base: Base, train: Photos, held_out: Photos, provenance: dict
    ) -> None:
        super().__init__(configuration, base, train, held_out, masked=False, drop=0.0)
        if base.is_xl:
            raise TrainError(f"{base.folder}: it has a text_encoder_2; ELITE is for Stable Diffusion 1.x")
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
        files.write(out / FILE, buffer.getvalue())
        towers, model = self.train.towers, self.configuration.model
        about = {
            "schema": 1,
            "system": SYSTEM,
            "words": model.words,
            "hidden": model.hidden,
            "encoders": list(towers.models),
            "layers": towers.layers,
            "training": {**self.provenance, "system": SYSTEM, "steps": steps},
        }
        files.write_json(out / CONFIG, about)
