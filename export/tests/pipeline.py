"""What the service does around the graphs, with Pillow and the packages' own tokenizers: a golden to its scores."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as F
from PIL import Image
from torchvision.transforms import InterpolationMode

from stellar_export import egtr, owlvit
from stellar_export.checkpoints import Checkpoints
from stellar_export.clip_models import PICK_SCORE_PROCESSOR
from stellar_export.reference.egtr import Graph, size_of
from stellar_export.reference.owlvit import labels_of
from stellar_export.reference.relations import Triplet, Words, mean_scores

Run = Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]]


def shortest_edge(image: Image.Image, half_even: bool) -> np.ndarray:
    size, (w, h) = 224, image.size
    w, h = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)
    left, top = ((round(n / 2) if half_even else n // 2) for n in (w - size, h - size))
    return np.asarray(image.resize((w, h), Image.Resampling.BICUBIC))[top : top + size, left : left + size]


def letterbox(image: Image.Image) -> np.ndarray:
    x, scale = F.to_tensor(image), 224 / max(image.size)
    h, w = round(image.height * scale), round(image.width * scale)
    x = F.resize(x, [h, w], InterpolationMode.BICUBIC, antialias=True)
    left, top = (224 - w) // 2, (224 - h) // 2
    return F.pad(x, [left, top, 224 - w - left, 224 - h - top]).permute(1, 2, 0).numpy()


def exact(image: Image.Image, filter: Image.Resampling, side: int = 224) -> np.ndarray:
    return np.asarray(image.resize((side, side), filter))


def bounded(image: Image.Image, folder: Path) -> np.ndarray:
    """Levels as DETR's processor makes them for the model of a folder."""
    from transformers import DeformableDetrImageProcessor

    processor = DeformableDetrImageProcessor(size=size_of(folder), do_rescale=False, do_normalize=False)
    found = processor([image], input_data_format="channels_last", return_tensors="np")["pixel_values"]
    return found[0].transpose(1, 2, 0).astype(np.uint8)


# Faces are found by the service's cascade over four graphs: `tests/reference/faces.rs` holds it to the original, `test_faces.py` each graph.
OF_FACES = {"ips", "sis"}


class Pipeline:
    """Scores samples with `run(role, inputs)`, which gives a graph's outputs by name."""

    def __init__(self, root, clip: str, run: Run):
        import clip as openai
        from transformers import BertTokenizer, CLIPTokenizer, CLIPTokenizerFast

        self.run = run
        hub = Checkpoints(root).root / "hub"
        self.slow = CLIPTokenizer.from_pretrained(hub / clip)
        self.fast = CLIPTokenizerFast.from_pretrained(hub / PICK_SCORE_PROCESSOR)
        self.hub = hub
        self.bert = BertTokenizer.from_pretrained(hub / "bert-base-uncased")
        self.openai = lambda text: openai.tokenize([text], truncate=True)[0].numpy()

    def picture(self, role: str, pixels: np.ndarray) -> dict[str, np.ndarray]:
        return {k: v[0] for k, v in self.run(role, {"pixels": np.ascontiguousarray(pixels)[None]}).items()}

    def text(self, role: str, ids) -> np.ndarray:
        return self.run(role, {"input_ids": np.asarray([ids], dtype=np.int64)})["embedding"][0]

    def goa(self, image: Image.Image, labels: Sequence[str]) -> float:
        from transformers import CLIPTokenizerFast

        tokenizer = CLIPTokenizerFast.from_pretrained(self.hub / owlvit.HUB_ID)
        ids = [tokenizer(label, truncation=True, max_length=16)["input_ids"] for label in labels]
        queries = np.stack([self.text("owlvit.text", i) for i in ids])
        pixels = exact(image, Image.Resampling.BICUBIC, 840)
        logits = self.run("owlvit.image", {"pixels": pixels[None], "queries": queries[None]})["logits"][0]
        scores, winner = 1 / (1 + np.exp(-logits.max(axis=1))), logits.argmax(axis=1)
        return np.mean([max(scores[winner == i], default=0) for i in range(len(labels))])

    def rfs(self, image: Image.Image, relations: Sequence[Triplet]) -> dict[str, float]:
        """By the definition's second implementation, from what the graphs say."""
        from transformers import CLIPTokenizerFast

        see = self.picture("relations", bounded(image, self.hub.parent / "files" / egtr.FOLDER))
        tokenizer = CLIPTokenizerFast.from_pretrained(self.hub / owlvit.HUB_ID)
        pixels, found = exact(image, Image.Resampling.BICUBIC, 840), {}
        for _, _, thing in relations:
            query = self.text("owlvit.text", tokenizer(thing, truncation=True, max_length=16)["input_ids"])
            seen = self.run("owlvit.image", {"pixels": pixels[None], "queries": query[None, None]})
            logits, boxes = seen["logits"][0, :, 0], seen["boxes"][0]
            best = int(logits.argmax())
            found[thing] = (boxes[best].tolist(), float(1 / (1 + np.exp(-np.float64(logits[best])))))
        words = Words.read(json.loads(egtr.LABELS.read_text()))
        return dict(mean_scores(Graph(**see), words, relations, found))

    def scores(
        self,
        image: Image.Image,
        prompt: str | None,
        reference: Image.Image | None,
        detectables: Sequence[str] = (),
        relations: Sequence[Triplet] = (),
    ) -> dict[str, float]:
        floor, even = shortest_edge(image, False), shortest_edge(image, True)
        bilinear, bicubic = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
        seen = self.picture("clip.image", floor)["embedding"]
        scores = {"aesthetic": self.picture("clip_l.image", floor)["aesthetic"]}
        if labels := labels_of(detectables):
            scores["goa"] = self.goa(image, labels)
        if relations:
            scores |= self.rfs(image, relations)
        if prompt is not None:
            said = self.text("clip.text", self.slow(prompt, truncation=True)["input_ids"])
            openai = self.openai(prompt)
            fast = self.fast(prompt, truncation=True, max_length=77)["input_ids"]
            words = self.bert(prompt, padding="max_length", truncation=True, max_length=35)
            scores["clip_t"] = seen @ said
            scores["hpsv1"] = self.picture("hpsv1.image", even)["embedding"] @ self.text("hpsv1.text", openai)
            scores["hpsv2"] = self.picture("hpsv2.image", letterbox(image))["embedding"] @ self.text(
                "hpsv2.text", openai
            )
            scores["pick_score"] = self.picture("pick.image", floor)["embedding"] @ self.text("pick.text", fast)
            joint = {
                "image_tokens": self.picture("image_reward.image", even)["tokens"][None],
                "input_ids": np.asarray([words["input_ids"]], dtype=np.int64),
                "attention_mask": np.asarray([words["attention_mask"]], dtype=np.int64),
            }
            scores["image_reward"] = self.run("image_reward.score", joint)["reward"][0]
        if reference is not None:
            original = self.picture("clip.image", shortest_edge(reference, False))["embedding"]
            scores["clip_i"] = seen @ original
            if prompt is not None:
                scores["clip_n"] = said @ original
            a, b = (self.picture("dreamsim.image", exact(i, bicubic))["embedding"] for i in (image, reference))
            scores["dreamsim"] = 1 - a @ b
            a, b = (self.picture("dino.image", exact(i, bilinear))["embedding"] for i in (image, reference))
            scores["dino"] = a @ b
        return {k: float(v) for k, v in scores.items()}


def of_modules(jobs) -> Run:
    """Runs PyTorch modules instead of graphs."""
    modules = {role: (job.module, job.outputs) for job in jobs for role in job.roles}

    def run(role: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        module, outputs = modules[role]
        with torch.inference_mode():
            out = module(*(torch.from_numpy(v) for v in inputs.values()))
        out = out if isinstance(out, tuple) else (out,)
        return {spec.name: t.numpy() for spec, t in zip(outputs, out, strict=True)}

    return run
