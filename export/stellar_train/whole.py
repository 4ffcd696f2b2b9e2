"""Trains a tiny base model whole: first the VAE on pictures, then the UNet on pictures with captions.

On a frozen random UNet a mapper has nothing to steer: the loss falls through LoRA alone and the words are not used. So
a tiny base must first learn that the text matters. Text encoders and vision towers stay as they are.
"""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from . import base as bases
from . import files, loop, pictures, runs
from .base import Base
from .configuration import Configuration
from .errors import TrainError
from .report import say

CAPTIONS = "captions.jsonl"


def train(configuration: Configuration, out: Path, quiet: bool = False) -> None:
    """Writes a base model folder to `out`."""
    if configuration.training.precision != "fp32":
        raise TrainError('training.precision: a base is trained whole, which needs "fp32"')
    source = configuration.need("base", "folder", "--base")
    folder = configuration.need("data", "folder", "--data")
    captions, images = read(folder, configuration.data.resolution)
    about = {"base": bases.digest(source), "data": bases.digest_of([images, *captions])}
    if runs.is_finished(out, configuration, about):
        return say(f"{out} is finished already", quiet)
    device = bases.device(configuration.training.device)
    middle = out / "training" / "with-vae"
    if not middle.is_dir():
        base = Base(source, device)
        if configuration.vae.steps:
            method = Vae(configuration, base, images)
            loop.train(method, _for_vae(configuration), out / "training" / "vae", about, quiet)
        files.write_folder(middle, lambda to: copy(source, to, "vae", base.vae))
    base = Base(middle, device)
    method = Unet(configuration, base, captions, images)
    loop.train(method, configuration, out / "training" / "unet", about, quiet)
    copy(middle, out, "unet", base.unet)
    files.write_json(out / runs.FINISHED, {"configuration": configuration.digest(), **about})
    shutil.rmtree(middle)


def read(folder: Path, side: int) -> tuple[list[str], Tensor]:
    """Captions, and pictures [N, 3, side, side] in [−1, 1]."""
    path = folder / CAPTIONS
    if not path.is_file():
        raise TrainError(f"{folder} has no {CAPTIONS}")
    captions, images = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            name, caption = entry["image"], entry["caption"]
        except (ValueError, KeyError, TypeError) as error:
            raise TrainError(f"{path}: line {number} has not the keys image and caption: {error!r}") from error
        captions.append(caption)
        images.append(pictures.target(pictures.photo(folder / name), side))
    if not captions:
        raise TrainError(f"{path} is empty")
    return captions, torch.stack(images)


def _for_vae(configuration: Configuration) -> Configuration:
    own = deepcopy(configuration)
    training = own.values["training"]
    training |= {key: own.values["vae"][key] for key in ("steps", "batch")}
    # [training] is for the UNet, and a decay of more steps than there are would never begin at the whole rate.
    training["decay"] = min(training["decay"], training["steps"])
    return own


def copy(source: Path, to: Path, part: str, module: nn.Module) -> None:
    """Copies a base folder with one part replaced; `model_index.json` comes last."""
    to.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir(), key=lambda p: p.name == "model_index.json"):
        if path.name == part:
            module.save_pretrained(to / part, safe_serialization=True)
        elif path.is_dir():
            shutil.copytree(path, to / path.name, dirs_exist_ok=True)
        else:
            shutil.copy(path, to / path.name)


class _Whole(loop.Method):
    """All weights of one module."""

    def __init__(self, configuration: Configuration, base: Base, module: nn.Module, rate: float) -> None:
        self.configuration, self.base, self.module, self.rate = configuration, base, module, rate
        module.requires_grad_(True)

    def groups(self) -> list[dict]:
        return [{"params": list(self.module.parameters()), "lr": self.rate}]

    def tensors(self) -> dict[str, Tensor]:
        return self.module.state_dict()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.module.load_state_dict(tensors)

    def save(self, out: Path, steps: int) -> None:
        self.module.requires_grad_(False)


class Vae(_Whole):
    """Mean squared error of the pictures, and the divergence of the latents from a standard normal."""

    def __init__(self, configuration: Configuration, base: Base, images: Tensor) -> None:
        super().__init__(configuration, base, base.vae, configuration.vae.rate)
        self.images = images
        # Latents begin nearly without noise: a fresh encoder's variance of 1 hides what the mean says.
        with torch.no_grad():
            base.vae.quant_conv.bias[base.vae.config.latent_channels :] -= 8

    def loss(self, draws: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = torch.randint(len(self.images), (self.configuration.vae.batch,), generator=draws)
        wanted = self.images[chosen].to(self.base.device)
        found = self.module.encode(wanted).latent_dist
        noise = torch.randn(found.mean.shape, generator=draws).to(self.base.device)
        error = (self.module.decode(found.mean + found.std * noise).sample - wanted).square().mean()
        return error + self.configuration.vae.kl * found.kl().mean(), {"vae": float(error.detach())}

    def save(self, out: Path, steps: int) -> None:
        super().save(out, steps)
        wanted = self.configuration.vae.deviation
        means = torch.cat(
            [self.base.moments(self.images[n : n + 16]).chunk(2, dim=1)[0] for n in range(0, len(self.images), 16)]
        )
        self.module.register_to_config(scaling_factor=wanted / float(means.std()))


class Unet(_Whole):
    """The usual loss: mean squared error of the noise."""

    def __init__(self, configuration: Configuration, base: Base, captions: list[str], images: Tensor) -> None:
        super().__init__(configuration, base, base.unet, configuration.training.rate)
        self.moments = torch.cat([base.moments(images[n : n + 16]) for n in range(0, len(images), 16)])
        with torch.no_grad():
            context, pooled = zip(*(base.encode([caption]) for caption in captions), strict=True)
        self.context = torch.cat(context)
        self.pooled = torch.cat(pooled) if base.is_xl else None
        with torch.no_grad():
            self.nothing, self.no_pooled = base.unconditional(1)

    def loss(self, draws: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        count, device = self.configuration.training.batch, self.base.device
        chosen = torch.randint(len(self.moments), (count,), generator=draws)
        first, last = self.configuration.loss.timesteps
        timesteps = torch.randint(first, last, (count,), generator=draws).to(device)
        shape = (count, self.moments.shape[1] // 2, *self.moments.shape[2:])
        noise, sampled = (torch.randn(shape, generator=draws).to(device) for _ in range(2))
        kept = (torch.rand(count, generator=draws) >= self.configuration.loss.drop_condition).to(device)
        latents = self.base.latents(self.moments[chosen].to(device), sampled)
        context = torch.where(kept[:, None, None], self.context[chosen.to(device)], self.nothing)
        pooled = None
        if self.pooled is not None:
            pooled = torch.where(kept[:, None], self.pooled[chosen.to(device)], self.no_pooled)
        noisy = self.base.schedule.add_noise(latents, noise, timesteps)
        error = (self.base.predict(noisy, timesteps, context, pooled) - noise).square().mean()
        return error, {"loss": float(error.detach())}
