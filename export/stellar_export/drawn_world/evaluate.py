"""How well each metric of a set of checkpoints tells right from wrong, on drawings that were not trained on.

Scores come from the original packages (`reference/`), as those of the goldens do. For each of some held-out drawings
there is a right input and a wrong one: the prompt of the drawing or of another one of its kind, a photo of the person
or of somebody else, the drawing's objects or others. The figure is the area under the ROC curve of right against wrong
scores over all drawings: 0.5 is chance.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import demo, reference
from ..checkpoints import Checkpoints
from .drawings import ROW, Drawings, phrase, templates

SEED = 7


@dataclass(frozen=True)
class Question:
    """Two samples of which the first is to have the higher score."""

    right: reference.Sample
    wrong: reference.Sample


def area(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Of a right and a wrong score, each any of theirs, how often the right one is higher; ties count half."""
    a, b = np.asarray(right)[:, None], np.asarray(wrong)[None, :]
    return float((a > b).mean() + 0.5 * (a == b).mean())


class Held:
    """Held-out drawings and what to ask about them."""

    def __init__(self, folder: Path, count: int):
        self.of = Drawings(folder, "test")
        self.templates = templates(Drawings(folder, "train"))
        self.rng = np.random.default_rng(SEED)
        generated = np.flatnonzero(~self.of.photos & (self.of.qualities > 0.5))
        self.at = self.rng.choice(generated, min(count, len(generated)), replace=False)

    def sample(self, at: int, **inputs: object) -> reference.Sample:
        given = dict(prompt=None, reference=None) | inputs
        return reference.Sample(picture=self.path(at), **given)

    def path(self, at: int) -> Path:
        return self.of.folder / self.of.records[at].file

    def prompts(self, held_out: bool) -> list[Question]:
        """The right prompt, and one of the same kind that shares no part with it."""
        asked = []
        for at in self.at:
            scene = int(self.of.scenes[at])
            first, second = scene % (ROW * ROW) // ROW, scene % ROW
            other = (first + self.rng.integers(1, ROW)) % ROW * ROW + (second + self.rng.integers(1, ROW)) % ROW
            other += scene // (ROW * ROW) * ROW * ROW
            texts = [
                phrase(self.templates[s], self.rng, held_out=True)
                if held_out
                else self.templates[s].replace("{}", "a person")
                for s in (scene, other)
            ]
            asked.append(Question(*(self.sample(at, prompt=t) for t in texts)))
        return asked

    def people(self) -> list[Question]:
        """A photo of the person, and one of somebody else."""
        asked = []
        for at in self.at:
            mine = self.of.photos & (self.of.people == self.of.people[at])
            photos = [self.rng.choice(np.flatnonzero(k)) for k in (mine, self.of.photos & ~mine)]
            right, wrong = (self.sample(at, reference=self.path(p)) for p in photos)
            asked.append(Question(right, wrong))
        return asked

    def objects(self) -> list[Question]:
        """The objects of the drawing, and others."""
        names = sorted({n for r in self.of.records for n, _ in r.objects})
        asked = []
        for at in (a for a in self.at if self.of.records[a].objects):
            mine = [n for n, _ in self.of.records[at].objects]
            others = list(self.rng.choice([n for n in names if n not in mine], len(mine), replace=False))
            right, wrong = (self.sample(at, detectables=tuple(map(str, d))) for d in (mine, others))
            asked.append(Question(right, wrong))
        return asked

    def drawn(self) -> list[Question]:
        """A good drawing and a bad one, each with its own prompt."""
        good = np.flatnonzero(~self.of.photos & (self.of.qualities > 0.75))
        bad = np.flatnonzero(~self.of.photos & (self.of.qualities < 0.45))
        asked = []
        for _ in self.at:
            pair = self.rng.choice(good), self.rng.choice(bad)
            texts = [self.templates[self.of.scenes[a]].replace("{}", "a person") for a in pair]
            asked.append(Question(*(self.sample(a, prompt=t) for a, t in zip(pair, texts, strict=True))))
        return asked


def evaluate(
    drawings: Path, models: Sequence[str], count: int, say: Callable[[str], None], trained: bool = True
) -> dict[str, float]:
    """Prints and returns the areas of these models; `trained` or, to compare, random ones."""
    torch.set_num_threads(1)
    held = Held(drawings, count)
    questions = {
        "prompt": held.prompts(held_out=False),
        "prompt, other words": held.prompts(held_out=True),
        "person": held.people(),
        "objects": held.objects(),
        "drawing": held.drawn(),
    }
    prompts, words, drawing = ("prompt", "prompt, other words", "drawing")
    asked = {
        "clip": [("clip_t", prompts), ("clip_t", words), ("clip_i", "person")],
        "faces": [("ips", "person")],
        "owlvit": [("goa", "objects")],
        "dino": [("dino", "person")],
        "dreamsim": [("dreamsim", "person")],
        "aesthetic": [("aesthetic", drawing)],
        **{m: [(m, prompts), (m, words), (m, drawing)] for m in ("pick_score", "hpsv1", "hpsv2", "image_reward")},
    }
    areas: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="stellar-drawn-") as scratch:
        demo.make_checkpoints(Path(scratch), demo.MODELS, trained)
        makers = reference.makers(Checkpoints(Path(scratch)), demo.CLIP, "v2.0", demo.MODELS)
        for model in (m for m in asked if m in models):
            scorer = makers[model]()
            for metric, about in asked[model]:
                sign = -1 if metric == "dreamsim" else 1  # a distance
                pairs = [(scorer(q.right), scorer(q.wrong)) for q in questions[about]]
                # Photos without a face have no score; both have to have one.
                known = [(sign * a[metric], sign * b[metric]) for a, b in pairs if metric in a and metric in b]
                areas[f"{metric}: {about}"] = found = area(*zip(*known, strict=True))
                say(f"  {metric:13} {about:20} {found:.3f}  ({len(known)} drawings)")
    return areas
