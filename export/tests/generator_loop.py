"""What the service does around the graphs of a generator pack, with numpy and Pillow: a golden to its picture."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from stellar_export.generator.splice import splice
from stellar_export.generator.words import pixels_of_photo

Run = Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]]


class Loop:
    """Generates the samples of a pack with `run(role, inputs)`, which gives a graph's outputs by name."""

    def __init__(self, pack: Path, manifest: Mapping, run: Run, tokenizers):
        self.pack, self.run, self.tokenizers = pack, run, tokenizers
        self.table = manifest["generator"]
        self.schedule = json.loads((pack / "scheduler.json").read_text())
        self.texts = {g["role"]: g for g in manifest["graph"] if "text" in g}

    def words(self, sample: Mapping) -> tuple[np.ndarray, np.ndarray]:
        photo = ImageOps.exif_transpose(Image.open(self.pack / sample["photo"])).convert("RGB")
        mask = Image.open(self.pack / sample["mask"]) if sample["mask"] else None
        found = self.run("generator.words", {"pixels": pixels_of_photo(photo, mask)[None]})
        return found["words_1"], found["words_2"]

    def context(self, prompt: str, words) -> tuple[np.ndarray, np.ndarray]:
        """The states [1, 77, D1+D2] and the pooled state [1, P] of a prompt."""
        states = []
        for index, role in enumerate(("generator.text_1", "generator.text_2")):
            graph = self.texts[role]
            width = graph["inputs"][1]["shape"][1]
            vectors = np.zeros((1, 1, width), np.float32) if words is None else words[index]
            s = splice(self.tokenizers[index], prompt, vectors.shape[1], graph["text"]["pad"])
            inputs = {
                "input_ids": np.array([s.ids], np.int64),
                "words": vectors,
                "at": np.array([s.at], np.int64),
                "eos": np.array([s.eos], np.int64),
            }
            states.append(self.run(role, inputs))
        return np.concatenate([s["hidden"] for s in states], axis=-1), states[1]["pooled"]

    def timesteps(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        s = self.schedule
        assert (s["kind"], s["spacing"]) == ("euler", "leading")
        chosen = (np.arange(steps) * (s["train_timesteps"] // steps))[::-1] + s["steps_offset"]
        return chosen.astype(np.float32), np.array([*(s["sigmas"][t] for t in chosen), 0], np.float32)

    def noise(self, sample: Mapping) -> np.ndarray:
        return np.load(self.pack / sample["noise"])

    def latents(self, sample: Mapping) -> np.ndarray:
        """The final latents [1, 4, h, w]."""
        words = self.words(sample) if sample["photo"] and "{}" in sample["prompt"] else None
        context, pooled = self.context(sample["prompt"], words)
        guidance = np.float32(sample["guidance"])
        guided = guidance > 1
        if guided:
            negative = np.zeros_like(context), np.zeros_like(pooled)
            if sample["negative_prompt"] is not None:
                negative = self.context(sample["negative_prompt"], None)
            context, pooled = (np.concatenate([n, p]) for n, p in zip(negative, (context, pooled), strict=True))
        timesteps, sigmas = self.timesteps(sample["steps"])
        sides = (sample["height"], sample["width"])
        ids = np.array([[*sides, 0, 0, *sides]] * len(context), np.float32)
        x = self.noise(sample)[None] * np.float32((sigmas.max() ** 2 + 1) ** 0.5)
        for t, now, after in zip(timesteps, sigmas, sigmas[1:], strict=False):
            scaled = x / np.float32((now**2 + 1) ** 0.5)
            inputs = {
                "sample": np.repeat(scaled, len(context), axis=0),
                "timestep": np.repeat(t, len(context)),
                "context": context,
                "pooled": pooled,
                "time_ids": ids,
            }
            noise = self.run("generator.denoiser", inputs)["noise"]
            if guided:
                noise = noise[:1] + guidance * (noise[1:] - noise[:1])
            x = x + noise * (after - now)
        return x

    def picture(self, latents: np.ndarray) -> np.ndarray:
        """u8 [H, W, 3]."""
        scale = np.float32(self.table["scaling_factor"])
        image = self.run("generator.decoder", {"latents": latents / scale})["image"][0]
        return np.round(np.clip(image / 2 + 0.5, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
