"""StellarNet-like: words for both text encoders of SDXL from masked photos, LoRA on the UNet's attention."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import files, lora
from .base import Base
from .configuration import Configuration
from .errors import TrainError
from .mapper import CONFIG, SCHEMA, WEIGHTS, Mapper
from .personal import FromPhotos
from .photos import Features, Photos

SYSTEM = "stellarnet-like"


class StellarNet(FromPhotos):
    def __init__(
        self, configuration: Configuration, base: Base, train: Photos, held_out: Photos, provenance: dict
    ) -> None:
        super().__init__(configuration, base, train, held_out, masked=True, drop=configuration.loss.drop_condition)
        if not base.is_xl:
            raise TrainError(f"{base.folder}: it has no text_encoder_2; this method is for SDXL")
        model, training = configuration.model, configuration.training
        self.provenance = provenance
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            self.mapper = Mapper(
                train.towers.widths, (base.encoders[0].width, base.encoders[1].width), model.words, model.hidden
            ).to(base.device)
        self.lora = lora.inject(base.unet, model.lora_rank, model.lora_alpha, training.seed)

    def groups(self) -> list[dict]:
        training = self.configuration.training
        return [
            {"params": list(self.mapper.parameters()), "lr": training.mapper_rate},
            {"params": self.lora, "lr": training.lora_rate},
        ]

    def words(self, features: Features) -> Sequence[Tensor]:
        return self.mapper(features)

    def tensors(self) -> dict[str, Tensor]:
        return {**self.mapper.state_dict(prefix="mapper."), **lora.state(self.base.unet)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        of_mapper = {k.removeprefix("mapper."): t for k, t in tensors.items() if k.startswith("mapper.")}
        self.mapper.load_state_dict(of_mapper)
        lora.restore(self.base.unet, {k: t for k, t in tensors.items() if k.startswith("unet.")})

    def save(self, out: Path, steps: int) -> None:
        model, towers = self.configuration.model, self.train.towers
        files.write_tensors(out / WEIGHTS, self.mapper.state_dict())
        files.write_tensors(out / lora.FILE, lora.state(self.base.unet))
        # Last: a folder with this file is complete.
        files.write_json(
            out / CONFIG,
            {
                "schema": SCHEMA,
                "system": SYSTEM,
                "words": model.words,
                "hidden": model.hidden,
                "encoders": list(towers.models),
                "layers": towers.layers,
                "lora_rank": model.lora_rank,
                "lora_alpha": model.lora_alpha,
                "training": {**self.provenance, "system": SYSTEM, "steps": steps},
            },
        )
