"""Writes tests/data/faces: small images and the faces that facenet-pytorch 2.6.0 finds in them.

    pip install pillow torch torchvision && pip install --no-deps facenet-pytorch==2.6.0
    python scripts/faces_fixtures.py

The photo is NASA's of Eileen Collins, in the public domain, as in the demo pack's goldens. Images are opened upright, as
in the service; the reference toolkit ignores the EXIF orientation.
"""

import json
from pathlib import Path

import torch
from facenet_pytorch import MTCNN
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[1]
OUT = ROOT / "tests/data/faces"
GOLDENS = ROOT / "packs/demo/goldens"
# Approximate box of the face in the photo.
FACE = (165, 55, 285, 215)


def make_images() -> None:
    """Writes the images that the goldens do not have."""
    photo = Image.open(GOLDENS / "astronaut.jpg").convert("RGB")
    head = photo.crop((90, 0, 346, 256))
    ImageOps.grayscale(head).save(OUT / "grey.png", optimize=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    head.transpose(Image.Transpose.ROTATE_90).save(OUT / "turned.jpg", quality=85, exif=exif)
    # Two faces, one of them mirrored, and one across the edge.
    pair = Image.new("RGB", (400, 180), (90, 120, 90))
    small = head.resize((160, 160), Image.Resampling.BILINEAR)
    pair.paste(small, (10, 10))
    pair.paste(ImageOps.mirror(small), (180, 10))
    pair.paste(small.resize((120, 120)), (330, 40))
    pair.save(OUT / "several.jpg", quality=90)
    # A face about 15 pixels wide on a plain background.
    width = FACE[2] - FACE[0]
    tiny = Image.new("RGB", (96, 96), (128, 128, 128))
    side = round(256 * 15 / width)
    tiny.paste(head.resize((side, side), Image.Resampling.BILINEAR), (30, 30))
    tiny.save(OUT / "face-of-15-pixels.png", optimize=True)
    head.resize((19, 24), Image.Resampling.BILINEAR).save(OUT / "19-pixels-wide.png", optimize=True)
    head.resize((20, 20), Image.Resampling.BILINEAR).save(OUT / "20-pixels-wide.png", optimize=True)


def main() -> None:
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    make_images()
    detector = MTCNN(margin=0.9, keep_all=True, device="cpu").eval()
    goldens = ["astronaut.jpg", "astronaut-face.jpg", "chelsea.webp", "coffee.jpg", "stripes-3000x100.png", "pixel-1x1.png"]
    paths = [GOLDENS / name for name in goldens] + sorted(p for p in OUT.iterdir() if p.suffix != ".json")
    cases = []
    for path in paths:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        faces = []
        # The package fails on smaller images: its pyramid has no level.
        if min(image.size) >= 20:
            boxes, probabilities, landmarks = detector.detect(image, landmarks=True)
            if boxes is not None:
                faces = [
                    {"box": list(map(float, b)), "probability": float(p), "landmarks": [list(map(float, x)) for x in l]}
                    for b, p, l in zip(boxes, probabilities, landmarks, strict=True)
                ]
        print(path.name, image.size, [(round(f["probability"], 4), [round(x) for x in f["box"]]) for f in faces])
        cases.append({"image": path.relative_to(ROOT).as_posix(), "faces": faces})
    (OUT / "expected.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
