"""Images of a dataset's prompts, generated here, in the folder layout that `stellar-score submit` reads.

Names and keys are those of the paper's own files: `NNN-P-II.png` (identity, photo, prompt) and a JSON file beside it.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from stellar_score.dataset import Dataset, Job
from torch import Tensor

from . import files
from .base import Base
from .errors import TrainError
from .text import PLACEHOLDER

# Keys in which all images of one folder agree.
SETTINGS = ("model_name", "steps", "guidance_scale", "model_seed", "aux_metadata")
# Keys of `aux_metadata` that are of single images.
FLAGS, DIGEST = "flags", "photo_digest"


def settings(generation: SimpleNamespace, system: str, model: dict[str, Any]) -> dict[str, Any]:
    """What the images of a folder have in common: `[generation]`, and what is said of the model."""
    return {
        "model_name": system,
        "steps": generation.steps,
        "guidance_scale": generation.guidance,
        "model_seed": generation.seed,
        "aux_metadata": {**model, "side": generation.size},
    }


def opened(folder: Path, out: Path | str | None, photos: str) -> Dataset:
    """A dataset whose images are written to `out`."""
    if photos not in ("all", "first"):
        raise TrainError(f"data.photos = {photos!r}: choose all or first")
    try:
        return Dataset(folder, out, photos)
    except (OSError, ValueError) as error:
        raise TrainError(f"{folder}: {error}") from error


def jobs(dataset: Dataset, generation: SimpleNamespace, as_words: bool) -> list[Job]:
    """The images to generate, done ones among them. `as_words`: the person is vectors, which have one place."""
    if generation.kind not in ("", "T", "H"):
        raise TrainError(f"generation.kind = {generation.kind!r}: choose T or H, or leave it empty")
    if generation.size < 32 or generation.size % 32:
        raise TrainError(f"generation.size = {generation.size}: it must be a multiple of 32")
    found = [job for job in dataset.all_jobs() if not generation.kind or job.kind == generation.kind]
    if not found:
        raise TrainError(f"{dataset.path}: it has no prompts" + (f" of kind {generation.kind}" * bool(generation.kind)))
    if as_words:
        for job in found:
            if job.prompt_for(PLACEHOLDER).count(PLACEHOLDER) > 1:
                raise TrainError(
                    f"the prompt {job.template!r} has the person in several places, and the vectors go into one"
                )
    return found


def photo_digests(jobs: Sequence[Job], masks: bool) -> dict[tuple[Path, Path | None], str]:
    """Of the file of each photo and, where `masks` are read, that of its mask; the keys are their paths."""
    found = {}
    for key in {(job.photo, job.mask) for job in jobs}:
        parts = [hashlib.blake2b(path.read_bytes(), digest_size=16).digest() for path in key[: 1 + masks] if path]
        found[key] = hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()
    return found


def left(dataset: Dataset, jobs: Sequence[Job], digests: dict[tuple[Path, Path | None], str]) -> list[Job]:
    """The images that are not done. Refuses a folder in which one of them is of another prompt, photo or mask."""
    waiting = []
    for job in jobs:
        try:
            if not dataset.is_done(job):
                waiting.append(job)
                continue
        except ValueError as error:
            raise TrainError(str(error)) from error
        path = dataset.out / f"{job.name}.json"
        if files.read_json(path)["aux_metadata"].get(DIGEST) != digests[job.photo, job.mask]:
            raise TrainError(f"{path} was generated from another photo or mask than the dataset's: give another folder")
    return waiting


def refuse_other_settings(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuses a folder with images of other settings: a run of both would be neither."""
    for path in sorted(folder.glob("*.json")):
        found = files.read_json(path)
        auxiliary = found.get("aux_metadata")
        if isinstance(auxiliary, dict):
            found["aux_metadata"] = {key: auxiliary[key] for key in auxiliary if key not in (FLAGS, DIGEST)}
        if differing := [key for key in SETTINGS if found.get(key) != wanted[key]]:
            raise TrainError(f"{path} was generated with another {', '.join(differing)}: give another folder")


@torch.no_grad()
def condition(base: Base, job: Job, words: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Context and pooled vector of an image's prompt with `words` [1, N, D] of each text encoder as the person."""
    prompt = job.prompt_for(PLACEHOLDER)
    with base.autocast():
        # A prompt without the person has no place for the words.
        return base.encode([prompt], words if PLACEHOLDER in prompt else None)


def make(
    dataset: Dataset,
    job: Job,
    base: Base,
    condition: tuple[Tensor, Tensor | None],
    generation: SimpleNamespace,
    settings: dict[str, Any],
    photo_digest: str,
    flags: Sequence[str] = (),
) -> None:
    """Generates one image from its condition, context and pooled vector, and writes it with its JSON file."""
    context, pooled = condition
    image = base.generate(context, pooled, [generation.seed], generation.steps, generation.guidance, generation.size)[0]
    auxiliary = {**settings["aux_metadata"], **({FLAGS: list(flags)} if flags else {})}
    # The picture itself says nothing of the photo.
    picture = png(image, {"generated": True, **settings, "aux_metadata": auxiliary})
    about = {**settings, "aux_metadata": {**auxiliary, DIGEST: photo_digest}}
    now = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
    dataset.save(picture, job, generation_datetime=now, **about)


def png(image: Image.Image, about: dict[str, Any] | None = None) -> bytes:
    """The bytes of a PNG file; `about` becomes a text chunk that says that the image was generated."""
    info = PngInfo()
    if about:
        info.add_text("stellar-score", json.dumps(about))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
