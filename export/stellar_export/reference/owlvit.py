"""goa by transformers' OwlViTForObjectDetection, one picture at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from PIL import Image

from ..checkpoints import Checkpoints
from . import Sample, Scorer, Scores, require
from .clip import FILES, pixels_of

# The roles that a prompt gives the person, OBJECTS2SKIP of the toolkit: they are not objects beside it.
ROLES = (
    "clown, businessman, doctor, nurse, cop, policeman, firefighter, fireman, soldier, captain, admiral, scientist, "
    "knight, dj, egyptian pharaoh, king, emperor, astronaut, cowboy, wizard, pilot, pope, president, sumo fighter"
).split(", ")


def labels_of(detectables: Iterable[str]) -> list[str]:
    """The words that are looked for.

    As the service defines them, and unlike the toolkit: roles are left out in any case, a word given twice counts
    once, and blank ones are no words.
    """
    words = (" ".join(word.split()) for word in detectables)
    first = {word.lower(): word for word in reversed([w for w in words if w and w.lower() not in ROLES])}
    return list(reversed(first.values()))


def detector(checkpoints: Checkpoints) -> Callable[[Image.Image, list[str]], tuple[torch.Tensor, torch.Tensor]]:
    """Logits `[patches, words]` and boxes `[patches, 4]` of a picture. Words of more than 16 tokens are cut."""
    require("transformers")
    from transformers import CLIPTokenizerFast, OwlViTForObjectDetection, OwlViTImageProcessor

    path = checkpoints.folder("google/owlvit-large-patch14", FILES).path
    model = OwlViTForObjectDetection.from_pretrained(path).eval()
    tokenizer = CLIPTokenizerFast.from_pretrained(path)
    processor = OwlViTImageProcessor.from_pretrained(path)

    @torch.inference_mode()
    def detect(picture: Image.Image, words: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        queries = tokenizer(words, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
        found = model(pixel_values=pixels_of(processor, [picture]), **queries)
        return found.logits[0], found.pred_boxes[0]

    return detect


def owlvit_scorer(checkpoints: Checkpoints) -> Scorer:
    """The toolkit's: a patch counts for the word of its largest logit, a word for its best patch, the mean of words.

    One picture at a time, because the toolkit lets the words of a batch's other pictures compete. Words of more than
    16 tokens, at which the original fails, are cut.
    """
    detect = detector(checkpoints)

    def score(sample: Sample) -> Scores:
        labels = labels_of(sample.detectables)
        if not labels:
            return {}
        logits, _ = detect(sample.image(), labels)
        best, winner = torch.sigmoid(logits).max(dim=-1)
        found = [best[winner == i].max().item() if (winner == i).any() else 0.0 for i in range(len(labels))]
        return {"goa": sum(found) / len(found)}

    return score
