"""The training folder that `stellar-score dataset prepare --training` writes, and what it is refused for."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from .errors import TrainError

MANIFEST, SUMS = "training.json", "SHA256SUMS"
SCHEMA = 1
# Prompts of the benchmark, as its repository and `dataset prepare` name them. Nothing may be trained on them.
PROMPT_FILES = ("prompts_t.json", "prompts_h.json", "prompt.json", "stellar_t.json", "stellar_h.json", "dataset.jsonl")

# What a picture of a person may be called in training. None is a prompt of the benchmark: they have no scene.
TEMPLATES = (
    "a photo of {}",
    "the photo of {}",
    "a rendering of {}",
    "a cropped photo of {}",
    "a close-up photo of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "a good photo of {}",
    "a clear photo of {}",
    "a picture of {}",
    "an image of {}",
    "a portrait of {}",
    "a portrait photo of {}",
    "a headshot of {}",
    "a photo of the face of {}",
    "a depiction of {}",
)


@dataclass(frozen=True)
class Item:
    """A photo of the training data with its mask, and the SHA-256 that both files must have."""

    name: str
    image: Path
    mask: Path
    identity: int
    sums: tuple[str, str]

    def content(self) -> str:
        """Hash over both files. Raises `TrainError` if they are not those that the manifest was made of."""
        for path, wanted in zip((self.image, self.mask), self.sums, strict=True):
            if hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
                raise TrainError(f"{path} has changed since `dataset prepare --training`: make the folder again")
        return hashlib.sha256("".join(self.sums).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TrainingData:
    items: list[Item]
    digest: str
    excluded: int

    def split(self, held_out: int) -> tuple[list[Item], list[Item]]:
        """The photos to train on, and those of `held_out` identities, evenly spaced in the order of their numbers."""
        identities = sorted({item.identity for item in self.items})
        if held_out < 0 or held_out >= len(identities):
            raise TrainError(f"data.held_out = {held_out}: the training data have {len(identities)} identities")
        apart = {identities[len(identities) * n // held_out] for n in range(held_out)}
        return [i for i in self.items if i.identity not in apart], [i for i in self.items if i.identity in apart]


def read(folder: Path) -> TrainingData:
    """Reads a training folder. Refuses one without a manifest, with an evaluation identity, or with prompts."""
    path = folder / MANIFEST
    if not path.is_file():
        raise TrainError(
            f"{folder} has no {MANIFEST}, which says what was excluded: "
            "make the folder with `stellar-score dataset prepare --training`"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA or manifest["kind"] != "training":
            raise TrainError(f"{path}: schema {manifest['schema']!r}, kind {manifest['kind']!r} are not known")
        files, excluded, digest = manifest["files"], set(manifest["excluded"]), manifest["digest"]
        wrong = next((f for f in files if not {"image", "mask", "identity"} <= f.keys()), None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainError(f"{path} is not a manifest of training data: {error!r}") from error
    if wrong is not None:
        raise TrainError(f"{path}: {wrong} has not the keys image, mask and identity")
    if len(excluded) != manifest.get("excluded_identities", len(excluded)) or not excluded:
        raise TrainError(f"{path}: `excluded` does not list the excluded identities")
    _refuse_prompts(folder, path, manifest)
    for file in files:
        if file["identity"] in excluded:
            raise TrainError(
                f"{path}: {file['image']} shows identity {file['identity']}, which is kept for evaluation: "
                "what is trained on it may not be compared; make the folder again"
            )
    if len(files) != manifest.get("images", len(files)):
        raise TrainError(f"{path}: it lists {len(files)} files and says that there are {manifest['images']}")
    sums = _sums(folder, digest)
    items = []
    for file in files:
        image, mask = (_inside(folder, file[key], path) for key in ("image", "mask"))
        if unlisted := next((file[key] for key in ("image", "mask") if file[key] not in sums), None):
            raise TrainError(f"{folder / SUMS} does not list {unlisted}: make the folder again")
        items.append(Item(image.stem, image, mask, file["identity"], (sums[file["image"]], sums[file["mask"]])))
    if len({item.name for item in items}) != len(items):
        raise TrainError(f"{path}: two files have the same name")
    if not items:
        raise TrainError(f"{path}: it lists no files")
    return TrainingData(sorted(items, key=lambda item: item.name), digest, len(excluded))


def _sums(folder: Path, digest: str) -> dict[str, str]:
    """The hashes of all files, whose own hash is the digest of the data."""
    path = folder / SUMS
    if not path.is_file():
        raise TrainError(f"{folder} has no {SUMS}: make the folder with `stellar-score dataset prepare --training`")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise TrainError(f"{path} is not the one whose hash {MANIFEST} has as its digest: make the folder again")
    lines = (line.split("  ", 1) for line in content.decode().splitlines())
    return {parts[1]: parts[0] for parts in lines if len(parts) == 2}


def _refuse_prompts(folder: Path, path: Path, manifest: dict) -> None:
    found = next((folder / name for name in PROMPT_FILES if (folder / name).exists()), None)
    if found is not None:
        raise TrainError(f"{found}: prompts of the evaluation may not lie in training data; remove it")
    if {"prompt", "prompts"} & manifest.keys() or any(
        {"prompt", "prompts"} & file.keys() for file in manifest["files"]
    ):
        raise TrainError(f"{path} has prompts: training uses its own templates and never those of the evaluation")


def _inside(folder: Path, name: str, manifest: Path) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise TrainError(f"{manifest}: {name} is not below the folder")
    if not (folder / path).is_file():
        raise TrainError(f"{manifest}: there is no file {name}")
    return folder / path
