"""Made-up training data: each identity is a colour inside the mask, and the background is noise that says nothing."""

import colorsys
import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import files
from .loop import generator

# Skin in CelebAMask's palette: masks are in colour, and a channel may be 0.
_SKIN = (204, 0, 0)
WORDS = ("red", "green", "blue", "dark", "bright", "old", "young", "happy", "sad", "tall", "short", "round", "flat")
WORDS += ("warm", "cold", "calm")


def identities(out: Path, count: int, photos: int = 1, side: int = 64, seed: int = 0, excluded: int = 2) -> None:
    """A folder as `stellar-score dataset prepare --training` writes it."""
    listed = []
    for n in range(count):
        for photo in range(photos):
            number = n * photos + photo
            draws = generator(seed, "identity", n, photo)
            picture = torch.rand(side, side, 3, generator=draws)
            inner = slice(side // 4, 3 * side // 4)
            grain = 0.02 * torch.randn(side // 2, side // 2, 3, generator=draws)
            picture[inner, inner] = (torch.tensor(colour(n, seed)) + grain).clamp(0, 1)
            mask = np.zeros((side, side, 3), np.uint8)
            mask[inner, inner] = _SKIN
            for folder, ending, array in (("images", "jpg", picture.mul(255).byte().numpy()), ("masks", "png", mask)):
                path = out / folder / f"{number}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path, quality=95)
            listed.append({"image": f"images/{number}.jpg", "mask": f"masks/{number}.png", "identity": 100 + n})
    names = sorted(file[key] for file in listed for key in ("image", "mask"))
    sums = "".join(f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in names).encode()
    files.write(out / "SHA256SUMS", sums)
    files.write_json(
        out / "training.json",
        {
            "schema": 1,
            "kind": "training",
            "images": len(listed),
            "identities": count,
            "excluded_identities": excluded,
            "excluded": list(range(excluded)),
            "digest": hashlib.sha256(sums).hexdigest(),
            "files": listed,
        },
    )


def captions(out: Path, side: int = 64, seed: int = 0) -> None:
    """A folder of plain colours with captions, for `stellar_train base`."""
    lines = []
    for n, word in enumerate(WORDS):
        picture = np.full((side, side, 3), np.array(colour(n, seed + 1)) * 255, np.uint8)
        path = out / "images" / f"{word}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        lines.append(f'{{"image": "images/{word}.png", "caption": "a photo of {word}"}}\n')
    files.write(out / "captions.jsonl", "".join(lines).encode())


def colour(n: int, seed: int) -> tuple[float, float, float]:
    """The n-th colour of a seed: hues at the golden ratio, so that any number of them differ."""
    saturation, value = torch.rand(2, generator=generator(seed, "colour", n)).tolist()
    return colorsys.hsv_to_rgb((0.1 + seed * 0.37 + n * 0.618034) % 1, 0.5 + saturation / 2, 0.4 + 0.6 * value)
