#!/usr/bin/env python3
"""Compares decoding and resizing with Pillow in alternating rounds, and prints a table of the ratios.

    pip install pillow numpy
    python scripts/bench_pillow.py [--rounds 21] [--seconds 5]

Both sides work in one thread on the same files in memory. A round measures a task once with Pillow and once with
this crate, in alternating order. The ratio is the median over the rounds of the ratio of both times, so that other
load on the machine affects both sides.
"""

import argparse
import io
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy
import PIL
from PIL import Image, features

ROOT = Path(__file__).resolve().parent.parent


def photo(width: int, height: int) -> Image.Image:
    """A photo-like image of any size, with smooth shades and edges: an enlarged face with sensor noise."""
    face = Image.open(ROOT / "tests/data/vision/decode/astronaut.png").convert("RGB")
    large = numpy.asarray(face.resize((width, height), Image.Resampling.BICUBIC), numpy.int16)
    noise = numpy.random.default_rng(1).normal(0, 4, large.shape).astype(numpy.int16)
    return Image.fromarray((large + noise).clip(0, 255).astype(numpy.uint8))


def write_files(folder: Path) -> None:
    small, large = photo(1024, 1024), photo(6000, 4000)
    small.save(folder / "1024x1024.png")
    small.save(folder / "1024x1024.jpg", quality=90)
    small.save(folder / "1024x1024.webp", quality=90)
    large.save(folder / "6000x4000.jpg", quality=90)
    large.save(folder / "6000x4000_progressive.jpg", quality=90, progressive=True)
    photo(1080, 2400).save(folder / "1080x2400.jpg", quality=90)


def decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def clip(image: Image.Image) -> Image.Image:
    """Hugging Face's slow processor: resizes the whole image, then crops it."""
    width, height = image.size
    short, long = min(width, height), int(224 * max(width, height) / min(width, height))
    new = (224, long) if width == short else (long, 224)
    left, top = (new[0] - 224) // 2, (new[1] - 224) // 2
    return image.resize(new, Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))


TASKS = {
    "decode": lambda data, image: decode(data),
    "clip": lambda data, image: clip(image),
    "dino": lambda data, image: image.resize((224, 224), Image.Resampling.BILINEAR),
    "owl": lambda data, image: image.resize((840, 840), Image.Resampling.BICUBIC),
    "decode+clip": lambda data, image: clip(decode(data)),
}

CASES = [
    ("decode", "1024x1024.png"),
    ("decode", "1024x1024.jpg"),
    ("decode", "1024x1024.webp"),
    ("decode", "6000x4000.jpg"),
    ("decode", "6000x4000_progressive.jpg"),
    ("clip", "1024x1024.png"),
    ("clip", "6000x4000.jpg"),
    ("clip", "1080x2400.jpg"),
    ("dino", "1024x1024.png"),
    ("dino", "6000x4000.jpg"),
    ("owl", "1024x1024.png"),
    ("owl", "6000x4000.jpg"),
    ("decode+clip", "1024x1024.png"),
    ("decode+clip", "1024x1024.jpg"),
    ("decode+clip", "6000x4000.jpg"),
]

TITLES = {
    "decode": "decode",
    "clip": "resize, CLIP crop to 224²",
    "dino": "resize, bilinear to 224²",
    "owl": "resize, bicubic to 840²",
    "decode+clip": "file to CLIP crop",
}


class Crate:
    """The crate's bench program, which runs one task at a time."""

    def __init__(self) -> None:
        build = ["cargo", "bench", "-p", "stellar-vision", "--no-run", "--message-format=json"]
        lines = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
        programs = [message.get("executable") for message in map(json.loads, lines) if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "vision"]
        self.process = subprocess.Popen([programs[-1], "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, task: str, path: Path) -> float:
        self.process.stdin.write(f"{task} {path}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()) / 1e9

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(crate: Crate, task: str, path: Path, rounds: int, seconds: float):
    data = path.read_bytes()
    image = decode(data)

    def pillow() -> float:
        start = time.perf_counter()
        TASKS[task](data, image)
        return time.perf_counter() - start

    def ours() -> float:
        return crate.seconds(task, path)

    pillow(), ours()
    pairs = []
    end = time.monotonic() + seconds
    while len(pairs) < 5 or (len(pairs) < rounds and time.monotonic() < end):
        pair = (pillow(), ours()) if len(pairs) % 2 else (ours(), pillow())[::-1]
        pairs.append(pair)
    return [statistics.median(column) for column in zip(*pairs)], statistics.median(a / b for a, b in pairs), len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="maximum rounds per case")
    parser.add_argument("--seconds", type=float, default=5, help="maximum seconds per case, after the fifth round")
    arguments = parser.parse_args()
    crate = Crate()
    print(f"Pillow {PIL.__version__} (libjpeg-turbo {features.version_feature('libjpeg_turbo')})\n")
    print("| task | picture | Pillow | stellar-score | times faster | rounds |")
    print("|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        for task, name in CASES:
            (theirs, ours), ratio, rounds = measure(crate, task, Path(folder) / name, arguments.rounds, arguments.seconds)
            row = f"| {TITLES[task]} | {name} | {1e3 * theirs:.2f} ms | {1e3 * ours:.2f} ms | **{ratio:.1f}** | {rounds} |"
            print(row, flush=True)
    crate.close()


if __name__ == "__main__":
    main()
