"""Makes the pictures of the golden samples from scikit-image's public-domain and CC0 pictures, and by formula.

    python tools/make_pictures.py SKIMAGE_DATA_FOLDER

The pictures are committed; this says how they came about. Sources and licences: stellar_export/pictures/README.md.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).parent.parent / "stellar_export" / "pictures"


def waves(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Coloured waves of several lengths, as bytes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    layers = [
        sum(np.sin(x * fx + y * fy + p) for fx, fy, p in rng.uniform((0.0, 0.0, 0.0), (0.5, 0.5, 6.28), (4, 3)))
        for _ in range(channels)
    ]
    return np.clip(128 + 32 * np.stack(layers, axis=-1), 0, 255).astype(np.uint8)


def main(source: Path) -> None:
    OUT.mkdir(exist_ok=True)
    astronaut = Image.open(source / "astronaut.png").convert("RGB")
    astronaut.save(OUT / "astronaut.jpg", quality=88, subsampling=2)
    astronaut.crop((131, 5, 331, 262)).save(OUT / "astronaut-face.jpg", quality=90, subsampling=0)
    Image.open(source / "chelsea.png").convert("RGB").save(OUT / "chelsea.webp", quality=70, method=6)
    Image.open(source / "coffee.png").convert("RGB").resize((451, 301), 3).save(
        OUT / "coffee.jpg", quality=75, subsampling=1, progressive=True
    )
    Image.open(source / "camera.png").convert("L").resize((181, 181), 3).save(OUT / "camera-grey.png", optimize=True)
    Image.open(source / "rocket.jpg").crop((230, 0, 400, 427)).save(OUT / "rocket.jpg", quality=80)
    hubble = Image.open(source / "hubble_deep_field.jpg").convert("RGB").crop((100, 100, 324, 280))
    hubble.save(OUT / "hubble-224x180.jpg", quality=75)
    Image.open(source / "brick.png").convert("L").crop((60, 60, 285, 240)).save(OUT / "brick-225x180.jpg", quality=75)
    Image.fromarray(waves(61, 97, 4, 1), "RGBA").save(OUT / "waves-rgba.png", optimize=True)
    Image.fromarray(waves(90, 120, 3, 2)).quantize(24).save(OUT / "waves-palette.png", optimize=True)
    Image.fromarray(np.repeat(waves(1, 3000, 3, 3), 100, axis=0)).save(OUT / "stripes-3000x100.png", optimize=True)
    Image.fromarray(waves(3, 5, 3, 4)).save(OUT / "tiny-5x3.png")
    Image.fromarray(np.full((1, 1, 3), (200, 30, 90), np.uint8)).save(OUT / "pixel-1x1.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
