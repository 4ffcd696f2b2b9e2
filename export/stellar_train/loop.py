"""The training loop that all methods share."""

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image
from torch import Tensor, nn

from . import checkpoint
from .base import DTYPES
from .configuration import Configuration
from .errors import TrainError
from .report import Report


def generator(seed: int, *place: int | str) -> torch.Generator:
    """The random generator of one place in a training, such as (purpose, step): independent of what ran before."""
    text = "/".join(str(part) for part in (seed, *place))
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
    return torch.Generator("cpu").manual_seed(number)


class Method(ABC):
    """What a method trains, and its loss."""

    @abstractmethod
    def groups(self) -> list[dict]:
        """Parameter groups of AdamW, each with its rate `lr`."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The trained tensors under the names of the method's own file."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continues from `tensors()` of a checkpoint."""

    @abstractmethod
    def loss(self, draws: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch, which `draws` chooses, and what is reported of it."""

    @abstractmethod
    def save(self, out: Path, steps: int) -> None:
        """Writes the files of the trained method."""

    def validate(self) -> dict[str, float]:
        """Losses on held-out data, with the same draws each time."""
        return {}

    def picture(self) -> Image.Image | None:
        """Validation images in one picture."""
        return None


def rate_share(step: int, training: SimpleNamespace) -> float:
    """The share of the rates that a step has, from 1 on: it rises in the warm-up and falls in the decay.

    The last step has 1/decay of the rates: with 0 it would change nothing.
    """
    left = training.steps - step + 1
    rising = step / training.warmup if training.warmup else 1.0
    falling = left / training.decay if training.decay else 1.0
    return min(1.0, rising, falling)


def train(method: Method, configuration: Configuration, out: Path, about: dict[str, str], quiet: bool = False) -> None:
    """Trains to the configured step, from the last checkpoint if there is one, and writes the method's files.

    `about` names what a checkpoint is only valid for (base, data); the configuration's digest is added.
    """
    training, output = configuration.training, configuration.output
    about = {"method": configuration.method, "configuration": configuration.digest(), **about}
    # Nothing is drawn from the global generator; seeding it guards against a layer that would.
    torch.manual_seed(training.seed)
    groups = method.groups()
    rates = [group["lr"] for group in groups]
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimiser = torch.optim.AdamW(groups, weight_decay=training.weight_decay, foreach=False)
    # Half precision loses small gradients without a scale; bf16 has the range of float32.
    scaler = torch.amp.GradScaler(parameters[0].device.type, enabled=DTYPES[training.precision] == torch.float16)
    step = 0
    if found := checkpoint.load(out, about):
        step = found.step
        method.restore(found.tensors)
        optimiser.load_state_dict(found.optimiser["adamw"])
        scaler.load_state_dict(found.optimiser["scaler"])
    report = Report(out, step, training.steps, quiet)
    if step:
        report.say(f"continues after step {step}")
    try:
        if step == 0 and output.validate_every and (held_out := method.validate()):
            report.add(0, held_out)
        while step < training.steps:
            step += 1
            values: dict[str, float] = {}
            for batch in range(training.accumulate):
                loss, parts = method.loss(generator(training.seed, "step", step, batch))
                scaler.scale(loss / training.accumulate).backward()
                for name, value in parts.items():
                    values[name] = values.get(name, 0.0) + value / training.accumulate
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * rate_share(step, training)
            scaler.unscale_(optimiser)
            norm = nn.utils.clip_grad_norm_(parameters, training.clip)
            if not scaler.is_enabled() and not torch.isfinite(norm):
                raise TrainError(f"step {step}: the gradient is not finite; lower the rates, or train in fp32 or bf16")
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad(set_to_none=True)
            last = step == training.steps
            if step % output.log_every == 0 or last:
                report.add(step, {**values, "gradient": float(norm)})
            if output.validate_every and (step % output.validate_every == 0 or last):
                if held_out := method.validate():
                    report.add(step, held_out)
                if output.validation_steps and (picture := method.picture()):
                    report.image(step, picture)
            if step % output.checkpoint_every == 0 or last:
                state = {"adamw": optimiser.state_dict(), "scaler": scaler.state_dict()}
                checkpoint.save(out, checkpoint.Checkpoint(step, method.tensors(), state), about, output.keep)
    finally:
        report.close()
    method.save(out, training.steps)
    checkpoint.clear(out)
