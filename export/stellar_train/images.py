"""Images of a dataset's prompts with a trained ELITE checkpoint: ours, or the original's `global_mapper.pt`.

As in ELITE: words of the photo in place of `{}`, LMS of order 4, and guidance away from the empty text, which passes
through the trained to_k and to_v too. The photo is what the checkpoint was trained on: ours has a black background, the
original's reads the whole photo.
"""

from pathlib import Path

import torch

from . import base as bases
from . import elite, generations, runs
from .base import Base
from .configuration import Configuration
from .errors import TrainError
from .photos import Towers, shown
from .report import say

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
    if towers.widths["image_encoder"] != mapper.width:
        raise TrainError(f"{checkpoint} is for a vision tower of width {mapper.width}, and {tower} has another one")
    background = about["background"] if background == "auto" else background
    model = {
        "base_digest": bases.digest(base_folder, tower),
        "checkpoint_digest": about["digest"],
        "words": mapper.words,
        "sampler": "lms",
        "background": background,
        # Of the original's file it is not known.
        "excludes_evaluation": about["excludes_evaluation"],
    }
    settings = generations.settings(generation, about["system"], model)
    generations.refuse_other_settings(out, settings)
    words: dict[Path, torch.Tensor] = {}
    todo = generations.left(dataset, jobs)
    for number, job in enumerate(todo, len(jobs) - len(todo) + 1):
        if job.photo not in words:
            with torch.no_grad(), base.autocast():
                photo = shown(job.photo, job.mask if background == "black" else None)
                (states,) = towers.features([photo]).values()
                words[job.photo] = mapper(states)
        condition = generations.condition(base, job, [words[job.photo]])
        flags = (UNMASKED,) if background == "black" and job.mask is None else ()
        generations.make(dataset, job, base, condition, generation, settings, flags)
        say(f"{job.name}: {number} of {len(jobs)}", quiet)
