"""rfs from the outputs of a scene graph and of OWL-ViT, by its definition in docs/METRICS.md.

The definition is this project's; no package has it. This is a second implementation that shares no code with the
service: plain sums and loops over pairs. Only what prompts' words mean is read from the same tables, `assets/relations/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..checkpoints import Checkpoints
from ..errors import ExportError
from . import Sample, Scorer, Scores
from .egtr import Graph, scene_grapher

LABELS = Path(__file__).parents[1] / "scene_labels" / "visual-genome.json"
TABLES = Path(__file__).parents[3] / "assets" / "relations"

Triplet = tuple[str, str, str]
Box = Sequence[float]

# (box, probability) of a phrase where it is found best.
Grounder = Callable[[Image.Image, Sequence[str]], dict[str, tuple[Box, float]]]


@dataclass(frozen=True)
class Words:
    """What the words of a relation are in the classes and predicates of a graph."""

    classes: list[str]
    predicates: list[str]
    person: list[str]
    synonyms: dict[str, list[str]]
    meanings: dict[str, list[str]]
    worn: list[str]
    worn_heads: list[str]
    prepositions: list[str]

    @staticmethod
    def read(labels: dict[str, list[str]]) -> Words:
        if not TABLES.is_dir():
            raise ExportError(f"{TABLES} is missing: the goldens of rfs are made in the repository, or use --no-goldens")
        objects, predicates = _toml("objects.toml")["vg150"], _toml("predicates.toml")["vg50"]
        return Words(
            classes=labels["classes"],
            predicates=labels["predicates"],
            person=objects["person"],
            synonyms=objects["synonyms"],
            meanings={word: m["means"] for m in predicates["meaning"] for word in m["words"]},
            worn=predicates["worn"],
            worn_heads=objects["worn"]["heads"],
            prepositions=_toml("grammar.toml")["prepositions"],
        )

    def meant(self, predicate: str, thing: str) -> list[int]:
        """The graph's predicates that a relation's may be seen as: whole, by its verb, by what follows the verb."""
        whole = predicate.lower()
        first, _, rest = whole.partition(" ")

        def found(words: str) -> list[str]:
            return self.meanings.get(words) or ([words] if words in self.predicates else [])

        if whole == "in" and singular(thing.lower().split()[-1]) in map(singular, self.worn_heads):
            names = self.worn
        else:
            names = found(whole) or (found(first) if first not in self.prepositions else []) or found(rest)
        return [self.predicates.index(name) for name in names if name in self.predicates]

    def things(self, thing: str) -> list[int]:
        """The graph's classes that an object may be seen as; none for most words."""
        words = [singular(word) for word in thing.lower().split()]
        for name in (" ".join(words), words[-1]):
            if names := self.synonyms.get(name) or ([name] if name in self.classes else []):
                return [self.classes.index(n) for n in names if n in self.classes]
        return []

    def persons(self) -> list[int]:
        return [self.classes.index(name) for name in self.person if name in self.classes]

    def is_location(self, predicate: str) -> bool:
        first = predicate.lower().split()[0]
        return first in self.prepositions or first in ("next", "close", "far")


def _toml(name: str) -> dict:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    return tomllib.loads((TABLES / name).read_text(encoding="utf-8"))


def singular(word: str) -> str:
    """Enough for goldens, whose words are regular."""
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes of centre, width and height."""
    shared = 1.0
    for axis in (0, 1):
        low = max(a[axis] - a[axis + 2] / 2, b[axis] - b[axis + 2] / 2)
        high = min(a[axis] + a[axis + 2] / 2, b[axis] + b[axis + 2] / 2)
        shared *= max(0.0, high - low)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


def score(
    graph: Graph, persons: Sequence[int], predicates: Sequence[int], things: Sequence[int], found: tuple[Box, float] | None
) -> float:
    """The probability of the best pair: a person, the predicate between them, the object."""
    queries, best = len(graph.classes), 0.0
    for i in range(queries):
        person = sum(float(graph.classes[i, c]) for c in persons)
        for j in range(queries):
            if i == j:
                continue
            named = sum(float(graph.classes[j, c]) for c in things)
            grounded = found[1] * overlap([float(v) for v in graph.boxes[j]], found[0]) if found else 0.0
            held = max(float(graph.relation[i, j, c]) for c in predicates)
            best = max(best, person * float(graph.connectivity[i, j]) * held * max(named, grounded))
    return best


def mean_scores(
    graph: Graph, words: Words, relations: Sequence[Triplet], found: dict[str, tuple[Box, float]]
) -> Scores:
    """rfs and its three variants, each left out where none of the relations counts for it."""
    rows: dict[str, list[float]] = dict(rfs=[], rfs_strict=[], rfs_interaction=[], rfs_location=[])
    persons = words.persons()
    for _, predicate, thing in relations:
        things, seen_as = words.things(thing), words.meant(predicate, thing)
        if not seen_as:
            continue
        value = score(graph, persons, seen_as, things, found.get(thing))
        rows["rfs"].append(value)
        rows["rfs_location" if words.is_location(predicate) else "rfs_interaction"].append(value)
        if predicate.lower() in words.predicates:
            only = [words.predicates.index(predicate.lower())]
            rows["rfs_strict"].append(score(graph, persons, only, things, found.get(thing)))
    return {name: sum(values) / len(values) for name, values in rows.items() if values}


def grounder(checkpoints: Checkpoints) -> Grounder:
    """Where OWL-ViT finds each phrase best, whatever else is looked for."""
    from .owlvit import detector

    detect = detector(checkpoints)

    def ground(picture: Image.Image, phrases: Sequence[str]) -> dict[str, tuple[Box, float]]:
        logits, boxes = detect(picture, list(phrases))
        best = logits.argmax(dim=0)
        return {
            phrase: (boxes[best[i]].tolist(), torch.sigmoid(logits[best[i], i].double()).item())
            for i, phrase in enumerate(phrases)
        }

    return ground


def rfs_scorer(checkpoints: Checkpoints, grounded: bool) -> Scorer:
    """Of the annotated relations of a sample; `grounded` is whether the pack has OWL-ViT too."""
    see = scene_grapher(checkpoints)
    ground = grounder(checkpoints) if grounded else None
    own = checkpoints.local("files", "egtr", "labels.json") or LABELS
    words = Words.read(json.loads(own.read_text()))

    def scores(sample: Sample) -> Scores:
        if not sample.relations:
            return {}
        picture = sample.image()
        phrases = list(dict.fromkeys(thing for _, _, thing in sample.relations))
        found = ground(picture, phrases) if ground else {}
        return mean_scores(see(picture), words, sample.relations, found)

    return scores
