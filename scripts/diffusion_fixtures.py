#!/usr/bin/env python3
"""Writes tests/data/diffusion/: noise of PyTorch, schedules and steps of diffusers, and token ids around words.

    make export-setup
    .runtime/export/bin/pip install scipy    # for LMS
    .runtime/export/bin/python scripts/diffusion_fixtures.py

`splice.json` has the ids that diffusers gives a prompt whose placeholder is a textual inversion of several vectors;
SDXL's second tokenizer is padded with `!`, which makes it a special token.
The files record the versions. Seeds are fixed: the same versions always write the same files.
"""

import argparse
import importlib.metadata
import json
import pathlib
import random
import tempfile

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, LMSDiscreteScheduler
from diffusers.loaders import TextualInversionLoaderMixin
from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/data/diffusion"
MERGES = ROOT / "packs/demo/tokenizers/clip-merges.txt"
SEEDS = [0, 1, 42, 2**31, 2**32 + 42]
LENGTHS = [16, 1000, 4 * 16 * 16, 4 * 128 * 128]
STEPS = [1, 20, 30, 50, 100]
WORDS = 5
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
VERSIONS = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers", "numpy")}


def short(values) -> list[float]:
    """Returns float32 values with the digits that they need."""
    return [float(np.format_float_scientific(np.float32(value), unique=True)) for value in np.asarray(values).ravel()]


def noise() -> dict:
    """Values at the beginning, at the end and at every 61st position between."""
    cases = []
    for seed in SEEDS:
        for length in LENGTHS:
            values = torch.randn(length, generator=torch.Generator("cpu").manual_seed(seed)).numpy()
            at = [i for i in range(length) if i < 32 or i >= length - 32 or i % 61 == 0]
            cases.append({"seed": seed, "length": length, "at": "ends and every 61st", "values": short(values[at])})
    return {"versions": VERSIONS, "cases": cases}


def schedules() -> dict:
    """Timesteps, noise levels and one run of each scheduler."""
    rng = np.random.default_rng(20261129)
    found = []
    for kind, of in (("euler", EulerDiscreteScheduler), ("lms", LMSDiscreteScheduler)):
        for spacing in ("leading", "linspace"):
            scheduler = of(**BETAS, timestep_spacing=spacing, steps_offset=1)
            table = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5
            plans = []
            for steps in STEPS:
                scheduler.set_timesteps(steps)
                plans.append({
                    "steps": steps,
                    "timesteps": short(scheduler.timesteps),
                    "sigmas": short(scheduler.sigmas),
                    "initial": short(scheduler.init_noise_sigma)[0],
                })
            found.append({
                "schedule": {
                    "kind": kind, "spacing": spacing, "steps_offset": 1, "train_timesteps": 1000,
                    "prediction": "epsilon", "sigmas": short(table),
                },
                "plans": plans,
                "run": run(scheduler, rng),
            })
    return {"versions": VERSIONS, "schedulers": found}


def run(scheduler, rng) -> dict:
    """A run of a few steps with predictions that are not a model's."""
    steps, length = 8, 16
    scheduler.set_timesteps(steps)
    start = torch.from_numpy(rng.normal(size=length).astype(np.float32))
    latents = start * scheduler.init_noise_sigma
    inputs, predictions = [], []
    for timestep in scheduler.timesteps:
        inputs.append(short(scheduler.scale_model_input(latents, timestep)))
        prediction = torch.from_numpy(rng.normal(size=length).astype(np.float32))
        predictions.append(short(prediction))
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return {"noise": short(start), "inputs": inputs, "predictions": predictions, "latents": short(latents)}


def tokenizer(folder: pathlib.Path, pad: str) -> CLIPTokenizer:
    merges = MERGES.read_text(encoding="utf-8").splitlines()
    letters = list(bytes_to_unicode().values())
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(merge.split()) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    made = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=pad)
    # Loaded as a pipeline loads it: only then is the padding a special token.
    made.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


NASTY = [
    "{}", " {} ", "{}'s portrait", "a{}b", "({})", "{},{}".replace(",{}", ", smiling"), "\"{}\"", "{}!!!", "...{}...",
    "a  photo   of\t{}\n in the  rain", "{}-like figure", "pre-{}", "é{}ü", "日本の{}さん", "👩‍🚀 {} 🚀", "&amp;{}&lt;",
    "PHOTO OF {} IN CAPITALS", "ΟΔΥΣΣΕΥΣ {}", "it's {} who'll ski", "{}’s “quoted” hat", "ﬁne {} ﬂag", "schÃ¶n {}",
    "{} 3.14159 1,000", "#{} @{} $5".replace("@{}", "@me"), "", "no person at all", "a person's dog",
]
STARTS = ["{}", "a photo of {}", "A watercolour of {}", "Portrait of {}", "A film poster with {}", "closeup shot of {}"]
DOINGS = ["as a clown", "skiing", "riding a horse", "holding an umbrella", "eating pizza", "playing the cello",
          "reading a newspaper", "dressed like a 1920s detective", "laughing at a long-forgotten joke"]
PLACES = ["in the Alps", "next to a T-Rex", "on Mars", "under a bridge", "at the Louvre, Paris", "by candle-light",
          "in front of St. Peter's", "near Ulaanbaatar", "beside a 4x4"]
STYLES = ["", ", oil on canvas", ", 4k, hyper-realistic", " in the style of Van Gogh", ", f/1.8 bokeh!", " (1987)"]


def prompts(count: int) -> list[str]:
    rng = random.Random(7)
    made = [" ".join([rng.choice(STARTS), rng.choice(DOINGS), rng.choice(PLACES)]) + rng.choice(STYLES)
            for _ in range(count)]
    long = ["a very " * times + "{} happy" + " indeed" * (80 - times) for times in (1, 20, 33, 34, 35, 36, 40)]
    return NASTY + long + made


def splices(count: int) -> dict:
    """Ids of SDXL's tokenizers without start and end token, -1 for a word, untruncated."""
    with tempfile.TemporaryDirectory() as folder:
        of = {key: tokenizer(pathlib.Path(folder), pad) for key, pad in (("ids", "<|endoftext|>"), ("ids_2", "!"))}
        for clip in of.values():
            clip.add_tokens(["<word>", *(f"<word>_{i}" for i in range(1, WORDS))])
        cases = []
        for prompt in prompts(count):
            found = {key: encoded(clip, prompt) for key, clip in of.items()}
            if found["ids_2"] == found["ids"]:
                del found["ids_2"]
            cases.append({"prompt": prompt, **found})
    return {"versions": VERSIONS, "words": WORDS, "cases": cases}


def encoded(clip: CLIPTokenizer, prompt: str) -> list[int]:
    first = clip.convert_tokens_to_ids("<word>")
    text = TextualInversionLoaderMixin().maybe_convert_prompt(prompt.replace("{}", "<word>"), clip)
    ids = clip(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return [-1 if i >= first else i for i in ids]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=200, help="number of made prompts in splice.json")
    torch.set_num_threads(1)
    count = parser.parse_args().prompts
    OUT.mkdir(parents=True, exist_ok=True)
    for name, content in (("noise", noise()), ("schedule", schedules()), ("splice", splices(count))):
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        # A line for each case keeps differences readable.
        (OUT / f"{name}.json").write_text(text.replace('},{"', '},\n{"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
