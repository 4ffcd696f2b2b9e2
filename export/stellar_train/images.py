"""Images of a dataset's prompts with a trained ELITE checkpoint: ours, or the original's `global_mapper.pt`.

As in ELITE: words of the photo in place of `{}`, LMS of order 4, and guidance away from the empty text, which passes
through the trained to_k and to_v too. The photo is what the checkpoint was trained on: ours has a black background, the
original's reads the whole photo.
"""

from contextlib import nullcontext
from pathlib import Path

import torch
from stellar_score.dataset import Job
from torch import Tensor

from . import base as bases
from . import elite, generations, pictures, runs
from .base import Base
from .configuration import Configuration
from .errors import TrainError
from .local import Local
from .photos import Towers, shown
from .report import say
from .text import PLACEHOLDER

UNMASKED = "unmasked"
BACKGROUNDS = ("auto", "black", "photo")


def generate(configuration: Configuration, out: Path, quiet: bool = False) -> None:
    """Writes the images that `out` does not have yet."""
    base_folder = configuration.need("base", "folder", "--base")
    folder = configuration.need("data", "dataset", "--data")
    checkpoint = configuration.need("model", "checkpoint", "--checkpoint")
    generation, background = configuration.generation, configuration.data.background
    if background not in BACKGROUNDS:
        raise TrainError(f"data.background = {background!r}: choose {', '.join(BACKGROUNDS)}")
    dataset = generations.opened(folder, out, configuration.data.photos)
    jobs = generations.jobs(dataset, generation, as_words=True)
    device, precision = bases.device(generation.device), generation.precision
    base = Base(base_folder, device, precision)
    tower = runs.tower(configuration, base_folder, "image_encoder")
    mapper, about = elite.opened(checkpoint, base)
    towers = Towers({"image_encoder": tower}, about["layers"], mapper.words, device, precision, last_first=True)
    local_file = configuration.model.local_mapper
    local = Local(Path(local_file), base, configuration.model.strength) if local_file else None
    for path, each in ((checkpoint, mapper), (Path(local_file), local and local.mapper)):
        if each and (towers.widths["image_encoder"], mapper.words) != (each.width, each.words):
            raise TrainError(f"{path} is for another vision tower than {tower}, or of another number of words")
    background = about["background"] if background == "auto" else background
    model = {
        "base_digest": bases.digest(base_folder, tower),
        "checkpoint_digest": about["digest"],
        # With the local mapping only the first is used, as in the original.
        "words": 1 if local else mapper.words,
        "sampler": "lms",
        "precision": precision,
        "background": background,
        **({"local_digest": local.digest, "local_strength": local.strength} if local else {}),
        # Of the original's file it is not known.
        "excludes_evaluation": about["excludes_evaluation"],
    }
    settings = generations.settings(generation, about["system"], model)
    generations.refuse_other_settings(out, settings)
    read = _Photos(base, towers, mapper, local, background)
    needs_mask = local is not None or background == "black"
    digests = generations.photo_digests(jobs, needs_mask)
    todo = generations.left(dataset, jobs, digests)
    for number, job in enumerate(todo, len(jobs) - len(todo) + 1):
        words, vectors = read.of(job)
        condition = generations.condition(base, job, [words])
        at = base.encoders[0].place(job.prompt_for(PLACEHOLDER), words.shape[1])
        near = local.looked_at(vectors, at) if local and at > 0 else nullcontext()
        with near:
            flags = (UNMASKED,) if needs_mask and job.mask is None else ()
            digest = digests[job.photo, job.mask]
            generations.make(dataset, job, base, condition, generation, settings, digest, flags)
        say(f"{job.name}: {number} of {len(jobs)}", quiet)


class _Photos:
    """What the mappings make of photos, each of which is read once."""

    def __init__(
        self, base: Base, towers: Towers, mapper: elite.GlobalMapper, local: Local | None, background: str
    ) -> None:
        self.base, self.towers, self.mapper, self.local, self.background = base, towers, mapper, local, background
        self.read: dict[Path, tuple[Tensor, Tensor | None]] = {}

    def of(self, job: Job) -> tuple[Tensor, Tensor | None]:
        """Words [1, N, D], and the vectors [1, patches, D] of the local mapping."""
        if job.photo not in self.read:
            with torch.no_grad(), self.base.autocast():
                self.read[job.photo] = self._read(job)
        return self.read[job.photo]

    def _read(self, job: Job) -> tuple[Tensor, Tensor | None]:
        (states,) = self.towers.features([shown(job.photo, job.mask if self.background == "black" else None)]).values()
        words = self.mapper(states)
        if self.local is None:
            return words, None
        (states,) = self.towers.features([shown(job.photo, job.mask)]).values()
        size = pictures.photo(job.photo).size
        mask = None if job.mask is None else pictures.foreground(job.mask, size)
        return words[:, :1], self.local.of(states, mask)
