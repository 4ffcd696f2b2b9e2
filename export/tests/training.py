"""What the tests of training share: a tiny base, made-up data and short configurations."""

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

diffusers = pytest.importorskip("diffusers", reason="training needs the packages of requirements-reference.txt")

from stellar_train import made_up, runs  # noqa: E402
from stellar_train.configuration import Configuration  # noqa: E402

SIDE = 64
SHORT = {
    "data": {"resolution": SIDE, "features": "cached", "held_out": 2},
    "training": {"steps": 6, "batch": 2, "seed": 3, "device": "cpu"},
    "output": {"log_every": 1, "checkpoint_every": 2, "validate_every": 0},
}


def configuration(method: str, **sections: dict) -> Configuration:
    """A short training of a method; `sections` replace single keys."""
    found = Configuration(method)
    for given in (SHORT, sections):
        for section, keys in given.items():
            known = found.values[section]
            known.update({key: value for key, value in keys.items() if key in known or given is sections})
    if "hidden" in found.values.get("model", {}):
        found.values["model"]["hidden"] = 16
    return found


def stellarnet(base: Path, folder: Path, cache: Path, **sections: dict) -> Configuration:
    found = configuration("stellarnet", **sections)
    found.values["base"]["folder"] = str(base)
    found.values["data"] |= {"folder": str(folder), "cache": str(cache)}
    return found


def prepared(configuration: Configuration, out: Path):
    """The method of a configuration that has not been trained."""
    found = runs.prepare(configuration, out, quiet=True)
    assert found is not None
    return found[0]


# What the toolkit reads of an image's JSON file.
IMAGE_KEYS = {"index", "generation_datetime", "prompt", "attributes", "detectables", "image_path", "save_name"}
IMAGE_KEYS |= {"model_name", "steps", "guidance_scale", "model_seed", "aux_metadata"}


def stellar_dataset(root: Path, prompts: Sequence[str] = ("{} as a clown",), masks: bool = False) -> Path:
    """Two people in the Stellar layout, with two photos each, and prompts of both kinds, which end with the kind."""
    for person in range(2):
        folder = root / f"{person:03}"
        folder.mkdir(parents=True)
        for photo in range(2):
            Image.new("RGB", (64, 64), (200 * person, 90 * photo, 60)).save(folder / f"{photo}.jpg")
            if masks:
                # Skin in CelebAMask's palette.
                mask = Image.new("RGB", (64, 64))
                mask.paste((204, 0, 0), (16, 8, 48, 56))
                mask.save(folder / f"{photo}_bg.png")
        for kind in "th":
            texts = [f"{prompt} of kind {kind}" for prompt in prompts]
            about = {"prompts": texts, "categories": [["x"]] * len(texts), "detectables": [["clown"]] * len(texts)}
            (folder / f"prompts_{kind}.json").write_text(json.dumps(about))
    return root


def killed(train, settings: Configuration, out: Path, metrics: Path, step: int) -> None:
    """Kills a training once its losses have reached `step`."""
    killed_when(lambda: last_step(metrics) >= step, train, settings, out)


def killed_when(reached: Callable[[], bool], train, settings: Configuration, out: Path) -> None:
    """Runs `train(settings, out, quiet=True)` in a process of its own and kills it with SIGKILL once `reached()`.

    A fork of this process would inherit threads of PyTorch that do not run in it.
    """
    arguments = (train, settings, out, torch.get_num_threads())
    child = multiprocessing.get_context("spawn").Process(target=in_threads, args=arguments)
    child.start()
    end = time.monotonic() + 240
    while not reached():
        assert time.monotonic() < end, "the child made no progress"
        assert child.is_alive(), "the child ended before it was killed"
        time.sleep(0.005)
    child.kill()
    child.join()


def in_threads(train, settings: Configuration, out: Path, threads: int) -> None:
    """Trains in so many threads: sums of another number differ in their last bits."""
    torch.set_num_threads(threads)
    train(settings, out, quiet=True)


def last_step(metrics: Path) -> int:
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=-1)


def make_data(out: Path, count: int = 6, **options) -> Path:
    made_up.identities(out, count, **options)
    return out
