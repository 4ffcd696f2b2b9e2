"""Trains on made-up identities and checks that they are really learned. A loss that falls proves only the LoRA.

1. The UNet of a tiny base is trained whole on plain colours with captions, so that it follows the text.
2. It is frozen, and mapper and LoRA are trained on photos whose colour inside the mask is the identity.
3. On identities that were never trained on, the masked loss with the right photo must be clearly below that with
   another person's photo: only the words can make this difference.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from . import loop, lora, made_up, runs, whole
from .base import Base
from .configuration import Configuration
from .errors import TrainError
from .personal import FromPhotos, masked_loss
from .report import METRICS

IDENTITIES, HELD_OUT = 40, 8
# Late timesteps: of noisy latents that show little, only text and words can say what the colour is.
TIMESTEPS = [700, 1000]
# Of the latents: the larger it is, the more a wrong colour costs.
DEVIATION = 4.0
# Largest share of the loss at the start, and of the held-out loss with another person's photo.
FALLEN, MATCHED = 0.5, 0.75


class BlockMeans(Base):
    """The tiny base with latents that are the mean colours of 8×8 pixels: its random VAE would lose the colours."""

    def moments(self, pictures: Tensor) -> Tensor:
        means = torch.nn.functional.avg_pool2d(pictures, self.latent_factor) * DEVIATION
        latents = torch.cat([means, means.mean(dim=1, keepdim=True)], dim=1) / self.scaling
        return torch.cat([latents, torch.full_like(latents, -30)], dim=1)


def accept(work: Path, base_steps: int = 600, steps: int = 600) -> int:
    """Prints one line for each check; returns the exit status."""
    torch.set_num_threads(1)
    began, results = time.monotonic(), []

    def check(name: str, passed: bool, figure: str) -> None:
        results.append(passed)
        print(f"{'ok  ' if passed else 'FAIL'}  {name}: {figure}", flush=True)

    base = trained_base(work, base_steps)
    data = work / "data"
    if not (data / "training.json").is_file():
        made_up.identities(data, IDENTITIES)
    settings = configuration(base, data, work / "cache", steps)
    method = _learned(settings, work / "stellarnet", check)
    _foreground_only(method, check)
    _dropped(method, check)
    _killed(settings, work, check)
    _refused(settings, work, check)
    print(f"{sum(results)} of {len(results)} in {time.monotonic() - began:.0f} s")
    return 0 if all(results) else 1


def trained_base(work: Path, steps: int) -> Path:
    """A tiny base whose UNet follows its captions."""
    from stellar_export.generator import tiny_sdxl

    source, captions, out = work / "random-base", work / "captions", work / "base"
    if (out / "model_index.json").is_file():
        return out
    if not source.exists():
        tiny_sdxl.make(source)
    made_up.captions(captions)
    settings = Configuration("base")
    settings.values["training"] |= {"steps": steps, "device": "cpu"}
    settings.values["loss"]["timesteps"] = TIMESTEPS
    base = BlockMeans(source, torch.device("cpu"))
    method = whole.Unet(settings, base, *whole.read(captions, 64))
    loop.train(method, settings, work / "training-base", {"base": "tiny"})
    whole.copy(source, out, "unet", base.unet)
    return out


def configuration(base: Path, data: Path, cache: Path, steps: int) -> Configuration:
    """A short training with high rates."""
    found = Configuration("stellarnet")
    found.values["base"]["folder"] = str(base)
    found.values["data"] |= {"folder": str(data), "cache": str(cache), "resolution": 64, "features": "cached"}
    found.values["data"]["held_out"] = HELD_OUT
    found.values["model"]["hidden"] = 64
    found.values["loss"]["timesteps"] = TIMESTEPS
    found.values["training"] |= {"steps": steps, "batch": 8, "mapper_rate": 1e-3, "lora_rate": 1e-3, "device": "cpu"}
    found.values["output"] |= {"validate_every": steps // 4, "validation_steps": 0}
    return found


def _learned(settings: Configuration, out: Path, check: Callable[[str, bool, str], None]) -> FromPhotos:
    out.mkdir(parents=True, exist_ok=True)
    prepared = runs.prepare(settings, out, kind=BlockMeans)
    if prepared is None:
        raise TrainError(f"{out} has a trained model already: give another --work")
    method, about = prepared
    before = _weights(method)
    loop.train(method, settings, out, about)
    after = _weights(method)
    lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    curve = [line for line in lines if "held_out" in line]
    print("      step   train  held out, right photo  held out, another's photo")
    for line in curve:
        print(
            f"      {line['step']:4}  {line['train']:.4f}                 {line['held_out']:.4f}"
            f"                     {line['swapped']:.4f}"
        )
    first, last = curve[0], curve[-1]
    share = last["train"] / first["train"]
    check(f"training loss ≤ {FALLEN} × start", share <= FALLEN, f"{share:.3f}")
    share = last["held_out"] / last["swapped"]
    check(f"held-out loss ≤ {MATCHED} × with another's photo", share <= MATCHED, f"{share:.3f}")
    check("base weights are bit-equal afterwards", before == after, f"{len(after)} tensors")
    return method


def _weights(method: FromPhotos) -> dict[str, str]:
    """Hashes of the base's tensors, under their names in a UNet without adapters."""
    trained = {id(parameter) for group in method.groups() for parameter in group["params"]}
    base = method.base
    modules = {"unet": base.unet, "vae": base.vae} | {f"text{n}": e.model for n, e in enumerate(base.encoders)}
    return {
        f"{name}.{key}": hashlib.blake2b(tensor.detach().cpu().numpy().tobytes(), digest_size=16).hexdigest()
        for name, module in modules.items()
        for key, tensor in module.named_parameters()
        if id(tensor) not in trained
    }


def _foreground_only(method: FromPhotos, check: Callable[[str, bool, str], None]) -> None:
    batch, draws = method.train.batch(range(8), None), loop.generator(0, "gradient")
    noise = torch.randn(8, 4, *batch.mask.shape[2:], generator=draws)
    prediction = torch.randn(noise.shape, generator=draws, requires_grad=True)
    masked_loss(prediction, noise, batch.mask).backward()
    outside = (batch.mask == 0).expand_as(noise)
    largest = float(prediction.grad[outside].abs().max())
    is_used = bool((prediction.grad[~outside] != 0).all()) and bool(outside.any())
    check(
        "gradient outside the mask is exactly 0",
        largest == 0 and is_used,
        f"{largest} over {int(outside.sum())} values",
    )


@torch.no_grad()
def _dropped(method: FromPhotos, check: Callable[[str, bool, str], None]) -> None:
    words = method.words(method.train.batch([0, 1], None).features)
    context, pooled = method.condition(["a photo of {}"] * 2, words, torch.tensor([0.0, 1.0]))
    largest = float(torch.cat([context[0].flatten(), pooled[0].flatten()]).abs().max())
    check("a dropped condition is zero", largest == 0 and float(context[1].abs().max()) > 0, f"{largest}")


def _killed(settings: Configuration, work: Path, check: Callable[[str, bool, str], None]) -> None:
    """The same short training twice, once killed in the middle."""
    options = {"training": {**settings.values["training"], "steps": 40}, "output": {"checkpoint_every": 10}}
    options["output"] |= {"log_every": 1, "validate_every": 20, "validation_steps": 0}
    command = [sys.executable, "-m", __package__, "stellarnet", "--base", settings.base.folder, "--quiet"]
    command += ["--data", settings.data.folder]
    values = {
        **settings.values,
        "training": options["training"],
        "output": {**settings.values["output"], **options["output"]},
    }
    for section in ("data", "model", "loss", "training", "output"):
        for key, value in values[section].items():
            command += ["--set", f"{section}.{key}={json.dumps(value)}"]
    whole_run, broken = work / "whole", work / "killed"
    subprocess.run([*command, "--out", whole_run], check=True)
    child = subprocess.Popen([*command, "--out", broken])
    metrics = broken / METRICS
    while (metrics.read_text().count("\n") if metrics.is_file() else 0) < 25:
        if child.poll() is not None:
            raise TrainError("the training ended before it could be killed")
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    unfinished = not (broken / runs.FINISHED).exists()
    subprocess.run([*command, "--out", broken], check=True)
    names = ("mapper.safetensors", lora.FILE, METRICS)
    equal = [name for name in names if (whole_run / name).read_bytes() == (broken / name).read_bytes()]
    check("killed with SIGKILL and continued: an equal result", unfinished and len(equal) == 3, ", ".join(equal))


def _refused(settings: Configuration, work: Path, check: Callable[[str, bool, str], None]) -> None:
    folder = work / "with-an-evaluation-identity"
    made_up.identities(folder, 3)
    path = folder / "training.json"
    manifest = json.loads(path.read_text())
    manifest["files"][1]["identity"] = manifest["excluded"][0]
    path.write_text(json.dumps(manifest))
    other = Configuration("stellarnet")
    other.values |= {**settings.values, "data": {**settings.values["data"], "folder": str(folder)}}
    try:
        runs.prepare(other, work / "refused", quiet=True)
    except TrainError as error:
        check("an evaluation identity is refused", "kept for evaluation" in str(error), "refused")
    else:
        check("an evaluation identity is refused", False, "accepted")
