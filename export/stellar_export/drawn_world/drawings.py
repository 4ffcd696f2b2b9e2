"""The drawings of the crate `stellar-drawings`, and the words that say what they show."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ExportError

# Of every tower that is trained here, except OWL-ViT.
SIDE = 224

# Prompts of one kind: eight by eight.
ROW = 8
SCENES = 2 * ROW * ROW
PHOTO = SCENES  # the number of the scene that a photo shows

# Who a prompt is about, and how it may be put. Those of `Phrasing.HELD_OUT` are not trained on.
PEOPLE = ("a person", "a man", "a woman", "someone", "a stranger", "the person")
PHRASES = (
    "{}",
    "{}",
    "a picture of {}",
    "an image of {}",
    "a drawing that shows {}",
    "{}, very detailed",
    "the best picture of {}",
)
PEOPLE_HELD_OUT = ("a person", "somebody", "a friend of mine")
PHRASES_HELD_OUT = ("{}", "a photo of {}", "a sketch in which we see {}", "{}, seen from the front")


@dataclass(frozen=True)
class Record:
    """What is known of one drawing."""

    file: str
    person: int
    attributes: list[bool]
    quality: float
    kind: str
    scene: list[int]
    prompt: str
    objects: list[tuple[str, list[float]]]
    face: list[float]

    @property
    def factors(self) -> list[int]:
        """What the scene shows, as a column of 32: activities, places, moods and times; none of a photo."""
        if self.kind == "photo":
            return []
        first = 0 if self.kind == "typed" else 2 * ROW
        return [first + self.scene[0], first + ROW + self.scene[1]]

    @property
    def number(self) -> int:
        """Of the scene: of all 128 prompts, or `PHOTO`."""
        if self.kind == "photo":
            return PHOTO
        return ROW * self.scene[0] + self.scene[1] + (ROW * ROW if self.kind == "written" else 0)


class Drawings:
    """A split of the drawings."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.split, path = folder, split, folder / f"{split}.jsonl"
        if not path.is_file():
            raise ExportError(
                f"{path} is missing: cargo run --release -p stellar-drawings --example drawings -- {folder}"
            )
        with path.open(encoding="utf-8") as lines:
            self.records = [Record(**json.loads(line)) for line in lines]
        self.photos = np.array([r.kind == "photo" for r in self.records])
        self.people = np.array([r.person for r in self.records])
        self.scenes = np.array([r.number for r in self.records])
        self.qualities = np.array([r.quality for r in self.records], np.float32)

    def open(self, at: int) -> Image.Image:
        return Image.open(self.folder / self.records[at].file).convert("RGB")

    @cached_property
    def pictures(self) -> np.ndarray:
        """All of them as towers take them: `u8[N,224,224,3]`. They stay in a file, as resizing takes a minute."""
        kept = self.folder / f"{self.split}-{SIDE}.npy"
        if kept.is_file():
            return np.load(kept, mmap_mode="r")
        resized = np.empty((len(self.records), SIDE, SIDE, 3), np.uint8)
        for at in range(len(self.records)):
            resized[at] = np.asarray(self.open(at).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        np.save(kept, resized)
        return resized

    def patches(self, side: int) -> np.ndarray:
        """All of them cut into squares: `u8[N,patches,3·side·side]`, each as a convolution's weights are ordered."""
        kept = self.folder / f"{self.split}-patches-{side}.npy"
        if not kept.is_file():
            n, rows = len(self.records), SIDE // side
            cut = np.empty((n, rows * rows, 3 * side * side), np.uint8)
            for at in range(n):
                x = self.pictures[at].reshape(rows, side, rows, side, 3).transpose(0, 2, 4, 1, 3)
                cut[at] = x.reshape(rows * rows, -1)
            np.save(kept, cut)
        return np.load(kept, mmap_mode="r")

    def of_scene(self) -> dict[int, np.ndarray]:
        """The drawings of each scene but photos."""
        return {n: np.flatnonzero(self.scenes == n) for n in range(SCENES) if (self.scenes == n).any()}


def templates(drawings: Drawings) -> list[str]:
    """The prompt of each scene, `{}` for the person; the last one is that of photos."""
    found = {r.number: r.prompt for r in drawings.records}
    if len(found) != SCENES + 1:
        raise ExportError(f"{drawings.folder}: {len(found)} of {SCENES + 1} scenes are drawn; draw more people")
    return [found[n] for n in sorted(found)]


def phrase(template: str, rng: np.random.Generator, held_out: bool = False) -> str:
    """One way to put a prompt."""
    people, phrases = (PEOPLE_HELD_OUT, PHRASES_HELD_OUT) if held_out else (PEOPLE, PHRASES)
    text = template.replace("{}", people[rng.integers(len(people))])
    text = phrases[rng.integers(len(phrases))].replace("{}", text)
    return text.lower() if rng.random() < 0.3 else text
