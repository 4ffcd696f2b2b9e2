"""Reward-weighted training of the LoRA: pictures that score above others of their photo and prompt become likelier.

Each group is made by the model as it is (on policy): several pictures of one photo and prompt that differ in their
noise. Their rewards r become weights softmax((r − mean)/(deviation · temperature)), and the model is trained on its
own pictures with these weights (reward-weighted regression, Peters and Schaal 2007; for diffusion Lee et al. 2023).
The rewards need no gradient, so any of the service's will do. An anchor to the predictions of the checkpoint keeps the
model from leaving what it knows for the reward's sake.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from stellar_score import Client
from stellar_score.dataset import Dataset
from torch import Tensor

from . import base as bases
from . import data, files, loop, lora, mapper, pictures, runs
from .base import Base
from .configuration import Configuration
from .data import Item
from .errors import TrainError
from .photos import Towers, shown
from .report import say
from .text import PLACEHOLDER

UNCOMPARED = "unknown: the prompts were not compared with those of the evaluation, as data.evaluation was not given"

# Pictures, what their prompt says, and the photo of the person: a number for each, or None where there is none.
Reward = Callable[[Sequence[Image.Image], str, Path], Sequence[float | None]]


def train(configuration: Configuration, out: Path, quiet: bool = False, reward: Reward | None = None) -> None:
    """Trains from the configuration. `reward` replaces the service."""
    base_folder = configuration.need("base", "folder", "--base")
    found = data.read(configuration.need("data", "folder", "--data"))
    checkpoint = configuration.need("model", "checkpoint", "--checkpoint")
    kept = evaluation_prompts(configuration.data.evaluation)
    prompts = read_prompts(configuration.need("data", "prompts", "--set data.prompts"), kept or ())
    trained, about_checkpoint = mapper.load(checkpoint)
    named = configuration.values["base"]
    towers = {name: Path(named[name] or base_folder / name) for name in about_checkpoint["encoders"]}
    about = {
        "base": bases.digest(base_folder, *towers.values()),
        "data": found.digest,
        "checkpoint": bases.digest(checkpoint),
        "prompts": bases.digest_of(prompts),
        "evaluation": "" if kept is None else bases.digest_of(sorted(kept)),
    }
    if runs.is_finished(out, configuration, about):
        return say(f"{out} is finished already", quiet)
    device, precision = bases.device(configuration.training.device), configuration.training.precision
    base = Base(base_folder, device, precision)
    read = Towers(towers, list(about_checkpoint["layers"].values()), about_checkpoint["words"], device, precision)
    method = Preference(
        configuration,
        base,
        found.items,
        read,
        trained.to(device),
        checkpoint,
        about_checkpoint,
        prompts,
        reward or service(configuration),
    )
    if configuration.training.gradient_checkpointing:
        base.checkpoint_gradients()
    loop.train(method, configuration, out, about, quiet)
    files.write_json(out / runs.FINISHED, {"configuration": configuration.digest(), **about})


def evaluation_prompts(dataset: str) -> set[str] | None:
    """The `normalised` prompts of the evaluation dataset; `None` if none is given."""
    if not dataset:
        return None
    try:
        kept = {normalised(job.template) for job in Dataset(dataset).all_jobs()}
    except (OSError, ValueError) as error:
        raise TrainError(f"{dataset}: {error}") from error
    if not kept:
        raise TrainError(f"{dataset}: it has no prompts to compare with")
    return kept


def normalised(prompt: str) -> str:
    """The words of a prompt without case and punctuation, with "a person" in place of `{}` and `{0}`."""
    return " ".join(re.findall(r"\w+", re.sub(r"\{0?\}", " a person ", prompt).casefold()))


def read_prompts(path: Path, kept: Collection[str]) -> list[str]:
    """The prompts of a file, one a line. Those in `kept`, the `evaluation_prompts`, are refused."""
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: {error}") from error
    if not prompts:
        raise TrainError(f"{path}: it has no prompts")
    for prompt in prompts:
        if prompt.count(PLACEHOLDER) != 1:
            raise TrainError(f"{path}: {prompt!r} must have {PLACEHOLDER} once, where the person goes")
        if normalised(prompt) in kept:
            raise TrainError(f"{path}: {prompt!r} is a prompt of the evaluation, on which nothing may be trained")
    return prompts


def service(configuration: Configuration) -> Reward:
    """Rewards of a running stellar-score."""
    settings = configuration.reward
    if len(settings.names) != len(settings.weights) or not settings.names:
        raise TrainError("reward.names and reward.weights: give one weight for each name")
    client = Client(settings.service or None)
    names = dict(zip(settings.names, settings.weights, strict=True))
    # A picture without one of the rewards (no face, say) has no sum, and is left out of its group.
    compute = client.grpo_reward(names, on_null=None)

    def reward(images: Sequence[Image.Image], prompt: str, photo: Path) -> Sequence[float | None]:
        return compute(list(images), prompts=[prompt] * len(images), references=[str(photo)] * len(images))

    return reward


def weights_of(rewards: Sequence[float | None], temperature: float) -> Tensor:
    """Weights [B] that sum to 1, 0 where there is no reward; all 0 if the rewards do not tell the pictures apart."""
    known = [n for n, reward in enumerate(rewards) if reward is not None]
    weights = torch.zeros(len(rewards))
    values = torch.tensor([rewards[n] for n in known], dtype=torch.float64)
    if len(known) > 1 and float(values.std()) > 1e-8:
        scaled = (values - values.mean()) / (values.std() * temperature)
        weights[known] = torch.softmax(scaled, dim=0).float()
    return weights


class Preference(loop.Method):
    def __init__(
        self,
        configuration: Configuration,
        base: Base,
        items: Sequence[Item],
        towers: Towers,
        trained: mapper.Mapper,
        checkpoint: Path,
        about: dict,
        prompts: Sequence[str],
        reward: Reward,
    ) -> None:
        if configuration.loss.temperature <= 0:
            raise TrainError(f"loss.temperature = {configuration.loss.temperature}: it must be above 0")
        if configuration.training.batch < 2:
            raise TrainError("training.batch: a group needs at least 2 pictures")
        self.configuration, self.base, self.mapper = configuration, base, trained
        self.items, self.towers = items, towers
        self.about, self.prompts, self.reward = about, prompts, reward
        self.parameters = lora.inject(base.unet, about["lora_rank"], about["lora_alpha"])
        lora.restore(base.unet, load_file(checkpoint / lora.FILE))
        self.first = [parameter.detach().clone() for parameter in self.parameters]

    def groups(self) -> list[dict]:
        return [{"params": self.parameters, "lr": self.configuration.training.rate}]

    def tensors(self) -> dict[str, Tensor]:
        return lora.state(self.base.unet)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        lora.restore(self.base.unet, tensors)

    def loss(self, draws: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        count, side = self.configuration.training.batch, self.configuration.data.resolution
        device = self.base.device
        n = int(torch.randint(len(self.items), (1,), generator=draws))
        prompt = self.prompts[int(torch.randint(len(self.prompts), (1,), generator=draws))]
        seeds = torch.randint(2**31, (count,), generator=draws).tolist()
        context, pooled = self._condition(n, prompt, count)
        sampling = self.configuration.sampling
        images = self.base.generate(context, pooled, seeds, sampling.steps, sampling.guidance, side)
        rewards = self.reward(images, prompt.replace(PLACEHOLDER, "a person"), self.items[n].image)
        known = [reward for reward in rewards if reward is not None]
        values = {"reward": sum(known) / max(1, len(known)), "without_reward": float(count - len(known))}
        weights = weights_of(rewards, self.configuration.loss.temperature).to(device)
        moments = self.base.moments(torch.stack([pictures.target(image, side) for image in images])).to(device)
        first, last = self.configuration.loss.timesteps
        timesteps = torch.randint(first, last, (count,), generator=draws).to(device)
        noise = torch.randn((count, moments.shape[1] // 2, *moments.shape[2:]), generator=draws).to(device)
        noisy = self.base.schedule.add_noise(self.base.latents(moments, torch.zeros_like(noise)), noise, timesteps)
        with self.base.autocast():
            with torch.no_grad(), self._checkpoint():
                anchor = self.base.predict(noisy, timesteps, context, pooled)
            prediction = self.base.predict(noisy, timesteps, context, pooled)
        error = (prediction - noise).square().mean(dim=(1, 2, 3))
        away = (prediction - anchor).square().mean()
        loss = (weights * error).sum() + self.configuration.loss.anchor * away
        return loss, {**values, "away": float(away.detach())}

    @torch.no_grad()
    def _condition(self, n: int, prompt: str, count: int) -> tuple[Tensor, Tensor]:
        with self.base.autocast():
            words = self.mapper(self.towers.features([shown(self.items[n].image, self.items[n].mask)]))
            context, pooled = self.base.encode([prompt], words)
        return context.expand(count, -1, -1), pooled.expand(count, -1)

    @contextmanager
    def _checkpoint(self) -> Iterator[None]:
        """The UNet as the checkpoint has it."""
        now = [parameter.detach().clone() for parameter in self.parameters]
        self._set(self.first)
        try:
            yield
        finally:
            self._set(now)

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def save(self, out: Path, steps: int) -> None:
        files.write_tensors(out / mapper.WEIGHTS, self.mapper.state_dict())
        files.write_tensors(out / lora.FILE, lora.state(self.base.unet))
        reward, loss = self.configuration.reward, self.configuration.loss
        preference = {
            "steps": steps,
            "rewards": dict(zip(reward.names, reward.weights, strict=True)),
            "prompts": len(self.prompts),
            "anchor": loss.anchor,
            "temperature": loss.temperature,
        }
        training = {**self.about["training"], "prompts": "own", "preference": preference}
        # The checkpoint excluded people and prompts; these prompts are only known not to be the evaluation's if they
        # were compared with them. What was false stays false.
        if not self.configuration.data.evaluation and training.get("excludes_evaluation"):
            training["excludes_evaluation"] = None
            training["excludes_evaluation_note"] = UNCOMPARED
        files.write_json(out / mapper.CONFIG, {**self.about, "training": training})
