"""OWL-ViT: where the objects of prompts are in drawings."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..preprocess import CLIP_MEAN, CLIP_STD
from .drawings import Drawings
from .text import Rows, known_tokens, padded
from .training import descend, fast_attention

# Drawings a step and patches of each; in the end fewer drawings, and all of their patches.
BATCH, SOME, LAST = 24, 200, 6
SCALE = 12.0  # of cosines, before the softmax
FORMS = ("{}", "{}", "a {}", "the {}", "one {}", "a big {}")
FORMS_HELD_OUT = ("{}", "an old {}", "a photo of a {}")


class Windows:
    """What patches see of the drawings, without enlarging these.

    A patch of 28 of 840 pixels is one of 5⅓ of a drawing's 160, which bicubic resizing reads from a window of nine. Its
    weights repeat after three patches, so the convolution of patches is one of windows with three kernels a side.
    """

    SIZE = 9

    def __init__(self, source: int, side: int, patch: int):
        self.patches = side // patch
        self.phases = side // math.gcd(source * patch, side)
        margin = 3
        rows = []
        # Each pixel of the source alone, enlarged, is a column of the matrix of resizing.
        for at in range(source):
            line = np.zeros((1, source), np.float32)
            line[0, at] = 1
            rows.append(np.asarray(Image.fromarray(line, "F").resize((side, 1), Image.Resampling.BICUBIC))[0])
        resizing = np.stack(rows, axis=1)  # [side, source]
        wide = np.pad(resizing, ((0, 0), (margin, self.SIZE)))
        self.starts = torch.tensor([int(i * patch * source / side) - 2 + margin for i in range(self.patches)])
        # From the middle, where no edge is near.
        first = self.patches // 2 // self.phases * self.phases
        self.matrices = torch.stack(
            [
                torch.from_numpy(wide[i * patch : (i + 1) * patch, s : s + self.SIZE].copy())
                for i, s in ((i, int(self.starts[i])) for i in range(first, first + self.phases))
            ]
        )
        self.margin = margin

    def of(self, pictures: Tensor, chosen: Tensor) -> Tensor:
        """`u8[N,S,S,3]` → `f32[N,P,3·81]` of the chosen patches."""
        x = F.pad(pictures.permute(0, 3, 1, 2).float(), (self.margin, self.SIZE, self.margin, self.SIZE), "replicate")
        y, across = self.starts[chosen // self.patches], self.starts[chosen % self.patches]
        step = torch.arange(self.SIZE)
        cut = x[:, :, (y[:, None] + step)[:, :, None], (across[:, None] + step)[:, None, :]]
        return cut.transpose(1, 2).flatten(2)

    def embed(self, windows: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
        """What a convolution of this weight, for normalised pixels, makes of the patches: `f32[N,P,width]`."""
        std, mean = 255 * torch.tensor(CLIP_STD), 255 * torch.tensor(CLIP_MEAN)
        weight = weight / std[:, None, None]
        bias = -(weight * mean[:, None, None]).sum((1, 2, 3))
        kernels = torch.einsum("ockl,pki,qlj->pqocij", weight, self.matrices, self.matrices).flatten(3)
        which = chosen // self.patches % self.phases * self.phases + chosen % self.patches % self.phases
        kernels = kernels.flatten(0, 1)[which]  # [P, width, 3·81]
        return torch.einsum("npi,poi->npo", windows, kernels) + bias


class Detector:
    """An OwlViTForObjectDetection while it is trained."""

    def __init__(self, folder: Path, drawings: Drawings, seed: int):
        from transformers import CLIPTokenizer, OwlViTForObjectDetection

        self.model = OwlViTForObjectDetection.from_pretrained(folder)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.drawings, self.rng = drawings, np.random.default_rng(seed)
        self.names = sorted({name for r in drawings.records for name, _ in r.objects})
        owl = self.model.owlvit
        for layer in owl.vision_model.encoder.layers:
            fast_attention(layer.self_attn)
        sizes = owl.config.vision_config
        self.picture = lru_cache(maxsize=None)(lambda at: np.asarray(drawings.open(at)))
        self.grid = sizes.image_size // sizes.patch_size
        self.windows = Windows(drawings.open(0).width, sizes.image_size, sizes.patch_size)
        self.bias = self.model.compute_box_bias(torch.zeros(1, self.grid, self.grid, 1))
        self.place()
        embeddings = owl.text_model.embeddings
        texts = [form.format(name) for form in FORMS for name in self.names]
        self.table = embeddings.token_embedding
        self.rows = Rows(self.table.weight.data, known_tokens(self.encode, texts), seed)
        embeddings.token_embedding = self.rows
        owl.logit_scale.requires_grad_(False)

    @torch.no_grad()
    def place(self) -> None:
        """Lets neighbouring patches start with similar places: 900 random ones are noise that is unlearned slowly."""
        table = self.model.owlvit.vision_model.embeddings.position_embedding.weight
        at = (torch.arange(self.grid) + 0.5) / self.grid * torch.pi
        waves = torch.stack([f(k * at) for k in (1, 2) for f in (torch.sin, torch.cos)], dim=1)
        both = torch.cat([waves[:, None].expand(-1, self.grid, -1), waves[None].expand(self.grid, -1, -1)], dim=-1)
        mix = table[1 : 1 + both.shape[-1]] / both.shape[-1] ** 0.5
        table[1:] = both.flatten(0, 1) @ mix.clone()

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def queries(self, words: list[str]) -> Tensor:
        """Unit vectors of words for objects, `[len(words), D]`."""
        ids = padded([self.encode(w) for w in words], self.tokenizer.eos_token_id)
        return F.normalize(self.model.owlvit.get_text_features(ids), dim=-1)

    def look(self, at: np.ndarray, queries: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits and cosines `[N,P,Q]`, and boxes `[N,P,4]` as centre and size, of some of the patches."""
        model, vision = self.model, self.model.owlvit.vision_model
        pictures = torch.from_numpy(np.stack([self.picture(int(i)) for i in at]))
        embeddings = vision.embeddings
        weight = embeddings.patch_embedding.weight
        x = self.windows.embed(self.windows.of(pictures, chosen), chosen, weight)
        x = torch.cat([embeddings.class_embedding.expand(len(at), 1, -1), x], dim=1)
        x = x + embeddings.position_embedding.weight[torch.cat([torch.zeros(1, dtype=torch.long), chosen + 1])]
        plain = dict(output_attentions=False, output_hidden_states=False, return_dict=False)
        tokens = vision.post_layernorm(vision.encoder(inputs_embeds=vision.pre_layernorm(x), **plain)[0])
        features = model.layer_norm(tokens[:, 1:] * tokens[:, :1])
        logits, classes = model.class_predictor(features, queries.expand(len(at), *queries.shape), None)
        return logits, classes @ queries.T, torch.sigmoid(model.box_head(features) + self.bias[chosen])

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


def train(detector: Detector, steps: int, say: Callable[[str], None], rate: float = 3e-3) -> None:
    """Patches of an object say its name and box, and others no name."""
    records, names = detector.drawings.records, detector.names
    drawn = np.array([i for i, r in enumerate(records) if r.objects])
    others = np.array([i for i, r in enumerate(records) if not r.objects])
    place = {name: i for i, name in enumerate(names)}
    patches = detector.grid**2

    def loss(step: int) -> Tensor:
        rng, last = detector.rng, step >= 0.85 * steps
        batch = LAST if last else BATCH
        at = np.concatenate([rng.choice(drawn, batch - batch // 6, replace=False), rng.choice(others, batch // 6)])
        chosen = torch.from_numpy(np.sort(rng.choice(patches, patches if last else SOME, replace=False)))
        queries = detector.queries([FORMS[rng.integers(len(FORMS))].format(name) for name in names])
        logits, cosines, boxes = detector.look(at, queries, chosen)
        weight, inner = torch.zeros_like(logits), torch.zeros_like(logits, dtype=torch.bool)
        true, pooled, which = torch.zeros_like(boxes), [], []
        for i, number in enumerate(at):
            for name, box in records[number].objects:
                here = torch.nonzero(inside(detector.grid, box)[chosen]).flatten()
                if not len(here):
                    continue
                column, scaled = place[name], SCALE * cosines[i, here]
                # Within a box there is more than the object, as between the pillars of a bridge: what counts are the
                # patches that look most like it, of which the score is the maximum.
                pooled.append(torch.logsumexp(scaled, dim=0) - math.log(len(here)))
                which.append(column)
                inner[i, here, column] = True
                weight[i, here, column] = torch.softmax(scaled[:, column], dim=0).detach()
                left, top, right, bottom = box
                true[i, here] = torch.tensor([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
        p = torch.sigmoid(logits)
        there = -(weight * (1 - p) ** 2 * F.logsigmoid(logits)).sum() / len(which)
        # Most patches show nothing: without the square they would be all there is to learn.
        absent = -(0.5 * p**2 * F.logsigmoid(-logits))[~inner].sum() / inner.sum().clamp(min=1)
        # Which of the names it is, is learned first; with less weight, it is not learned for long.
        named = F.cross_entropy(torch.stack(pooled), torch.tensor(which))
        shown = inner.any(dim=-1)
        return there + absent + 6 * named + (boxes[shown] - true[shown]).abs().mean()

    descend(detector.model.parameters(), steps, loss, say, rate)
