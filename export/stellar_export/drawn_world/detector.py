"""OWL-ViT: where the objects of prompts are in drawings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..preprocess import CLIP_MEAN, CLIP_STD
from .drawings import Drawings
from .text import Rows, known_tokens, padded
from .training import descend, fast_attention, of_patches

BATCH = 6
SCALE = 12.0  # of cosines, before the softmax
FORMS = ("{}", "{}", "a {}", "the {}", "one {}", "a big {}")
FORMS_HELD_OUT = ("{}", "an old {}", "a photo of a {}")


class Detector:
    """An OwlViTForObjectDetection while it is trained."""

    def __init__(self, folder: Path, drawings: Drawings, seed: int):
        from transformers import CLIPTokenizer, OwlViTForObjectDetection

        self.model = OwlViTForObjectDetection.from_pretrained(folder)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.drawings, self.rng = drawings, np.random.default_rng(seed)
        self.names = sorted({name for r in drawings.records for name, _ in r.objects})
        owl = self.model.owlvit
        convolution = owl.vision_model.embeddings.patch_embedding
        of_patches(convolution, CLIP_MEAN, CLIP_STD)
        for layer in owl.vision_model.encoder.layers:
            fast_attention(layer.self_attn)
        self.patch, self.side = convolution.kernel_size[0], owl.config.vision_config.image_size
        embeddings = owl.text_model.embeddings
        texts = [form.format(name) for form in FORMS for name in self.names]
        self.table = embeddings.token_embedding
        self.rows = Rows(self.table.weight.data, known_tokens(self.encode, texts), seed)
        embeddings.token_embedding = self.rows
        owl.logit_scale.requires_grad_(False)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def queries(self, words: list[str]) -> Tensor:
        """Unit vectors of words for objects, `[len(words), D]`."""
        ids = padded([self.encode(w) for w in words], self.tokenizer.eos_token_id)
        return F.normalize(self.model.owlvit.get_text_features(ids), dim=-1)

    def patches(self, at: np.ndarray) -> Tensor:
        rows, p = self.side // self.patch, self.patch
        cut = np.empty((len(at), rows * rows, 3 * p * p), np.uint8)
        for i, number in enumerate(at):
            picture = self.drawings.open(number).resize((self.side, self.side), Image.Resampling.BICUBIC)
            x = np.asarray(picture).reshape(rows, p, rows, p, 3).transpose(0, 2, 4, 1, 3)
            cut[i] = x.reshape(rows * rows, -1)
        return torch.from_numpy(cut)

    def look(self, at: np.ndarray, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits and cosines `[N,P,Q]`, and boxes `[N,P,4]` as centre and size."""
        model = self.model
        tokens = model.owlvit.vision_model(pixel_values=self.patches(at))[0]
        tokens = model.owlvit.vision_model.post_layernorm(tokens)
        features = model.layer_norm(tokens[:, 1:] * tokens[:, :1])
        side = round(features.shape[1] ** 0.5)
        logits, classes = model.class_predictor(features, queries.expand(len(at), *queries.shape), None)
        return logits, classes @ queries.T, model.box_predictor(features, features.unflatten(1, (side, side)))

    def state(self) -> dict[str, Tensor]:
        table = self.table.weight.data.clone()
        table[self.rows.known] = self.rows.trained.data
        state = {k: v.data for k, v in self.model.state_dict().items() if ".token_embedding." not in k}
        return state | {"owlvit.text_model.embeddings.token_embedding.weight": table}


def inside(side: int, box: list[float]) -> Tensor:
    """Which patches have their centre in the inner part of a box."""
    left, top, right, bottom = box
    at = (torch.arange(side) + 0.5) / side
    margin = 0.1
    x = (at > left + margin * (right - left)) & (at < right - margin * (right - left))
    y = (at > top + margin * (bottom - top)) & (at < bottom - margin * (bottom - top))
    return (y[:, None] & x[None, :]).flatten()


def train(detector: Detector, steps: int, say: Callable[[str], None], rate: float = 2e-3) -> None:
    """Every patch of an object says its name and box; later objects cover earlier ones."""
    records, names = detector.drawings.records, detector.names
    drawn = np.array([i for i, r in enumerate(records) if r.objects])
    others = np.array([i for i, r in enumerate(records) if not r.objects])
    place = {name: i for i, name in enumerate(names)}

    def loss(_: int) -> Tensor:
        rng = detector.rng
        at = np.concatenate([rng.choice(drawn, BATCH - 1, replace=False), rng.choice(others, 1)])
        queries = detector.queries([FORMS[rng.integers(len(FORMS))].format(name) for name in names])
        logits, cosines, boxes = detector.look(at, queries)
        side = round(logits.shape[1] ** 0.5)
        target = torch.zeros_like(logits)
        off, count = logits.new_zeros(()), 0
        for i, number in enumerate(at):
            for name, box in records[number].objects:
                here = inside(side, box)
                target[i, here] = 0
                target[i, here, place[name]] = 1
                left, top, right, bottom = box
                true = torch.tensor([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
                off, count = off + (boxes[i, here] - true).abs().sum(), count + 4 * int(here.sum())
        # Most patches show nothing: without the weight they would be all there is to learn.
        p = torch.sigmoid(logits)
        wrong = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        focal = torch.where(target > 0, (1 - p) ** 2, 0.5 * p**2)
        found = 4 * (focal * wrong).sum() / target.sum().clamp(min=1)
        # Which of the names it is, is learned sooner than whether there is anything.
        shown = target.sum(-1) > 0
        named = F.cross_entropy(SCALE * cosines[shown], target[shown].argmax(-1))
        return found + 2 * named + off / max(count, 1)

    descend(detector.model.parameters(), steps, loss, say, rate)
