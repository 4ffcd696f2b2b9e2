"""Samples for scripts/toolkit_bench.py: a dataset in the toolkit's layout, from which the requests to the service are read."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

from faces_bench import marked
from PIL import Image, ImageOps


@dataclass(frozen=True)
class Sources:
    """Material for samples: photos by identity, and images with the content of their prompts."""

    photos: list[list[Path]]
    attributes: list[dict[str, int]]
    """For each identity, 1 or -1 by CelebA name."""
    images: list[tuple[Path, dict]]

    @staticmethod
    def of(checkout: Path) -> "Sources":
        """The photos and images of the toolkit's tests."""
        assets = checkout / "tests" / "assets"
        people = sorted((assets / "mock_stellar_dataset").glob("*/"))
        photos = [found for person in people if (found := sorted(person.glob("*.jpg")))]
        images = [(path, json.loads(path.with_suffix(".json").read_text())) for path in sorted(assets.glob("stellar_net/*.png"))]
        if not photos or not images:
            raise FileNotFoundError(
                f"{assets} has no mock_stellar_dataset/*/*.jpg and stellar_net/*.png: name a complete checkout of the toolkit"
            )
        about = (files[0].with_name(f"{files[0].stem}_attributes.json") for files in photos)
        return Sources(photos, [json.loads(path.read_text())["attributes"] for path in about], images)


@dataclass(frozen=True)
class Sample:
    name: str
    prompt: str
    detectables: list[str]
    attributes: dict[str, int]
    image: Path
    reference: Path
    auxiliary: list[Path]

    def form(self) -> list[tuple[str, str | bytes]]:
        """The fields of a request to the service."""
        return [
            ("image", self.image.read_bytes()),
            ("prompt", self.prompt),
            ("reference", self.reference.read_bytes()),
            *(("auxiliary", path.read_bytes()) for path in self.auxiliary),
            ("metadata", json.dumps(dict(detectables=self.detectables, attributes=self.attributes))),
        ]


@dataclass
class Samples:
    """Makes datasets of `identities` identities with `photos` photos and `prompts` samples each."""

    sources: Sources
    identities: int
    prompts: int
    photos: int
    sides: list[int]
    _made: dict = field(default_factory=dict, repr=False)
    _opened: dict = field(default_factory=dict, repr=False)

    def make(self, folder: Path, round: str, photos_of: str | None = None) -> list[Sample]:
        """Writes the samples of a round: the same pixels in every round, but other files and other prompts.

        So a cache by content has none of them, unless `photos_of` names an earlier round with the same photos.
        """
        samples = []
        (folder / "images").mkdir(parents=True)
        for who in range(self.identities):
            person = self.sources.photos[who % len(self.sources.photos)]
            attributes = self.sources.attributes[who % len(self.sources.photos)]
            home = folder / "photos" / f"{who:03}"
            home.mkdir(parents=True)
            photos = []
            for i in range(self.photos):
                side = self.sides[(who + i) % len(self.sides)]
                variant = who // len(self.sources.photos) * self.photos + i // len(person)
                data = self.file(person[i % len(person)], side, variant, "JPEG")
                photos.append(home / f"{i}.jpg")
                write(photos[-1], data, f"{who} {i} {photos_of or round}")
            for i in range(self.prompts):
                at = who * self.prompts + i
                source, about = self.sources.images[at % len(self.sources.images)]
                name = f"{who:03}-{i:03}"
                image = folder / "images" / f"{name}.png"
                data = self.file(source, self.sides[at % len(self.sides)], at // len(self.sources.images), "PNG")
                write(image, data, f"{name} {round}")
                prompt = f"{about['prompt']}, number {at} of {round}"
                text = about | dict(prompt=prompt, save_name=name, image_path=str(photos[0]), attributes=attributes)
                image.with_suffix(".json").write_text(json.dumps(text))
                words = prompt.format("a person")
                samples.append(Sample(name, words, about["detectables"], attributes, image, photos[0], photos[1:]))
        return samples

    def file(self, source: Path, side: int, variant: int, kind: str) -> bytes:
        """A square crop of an image with that side. Variants are mirrored or cropped slightly differently, so that all differ."""
        key = source, side, variant
        if key not in self._made:
            image = self.opened(source)
            if variant % 2:
                image = ImageOps.mirror(image)
            cut = variant // 2 * max(2, image.width // 100)
            image = image.crop((cut, cut, image.width, image.height))
            data = io.BytesIO()
            # In upright photos, faces are above the middle.
            ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC, centering=(0.5, 0.3)).save(data, kind, quality=95)
            self._made[key] = data.getvalue()
        return self._made[key]

    def opened(self, source: Path) -> Image.Image:
        """Opens an image once, no larger than needed: photos have 24 megapixels."""
        if source not in self._opened:
            image = Image.open(source).convert("RGB")
            image.thumbnail((3 * max(self.sides), 2 * max(self.sides)))
            self._opened[source] = image
        return self._opened[source]


def write(path: Path, data: bytes, mark: str) -> None:
    """Writes the file with a comment that makes it unique."""
    path.write_bytes(data)
    path.write_bytes(marked(path, mark))
