"""What a dataset asks a generator for, and a folder of its images in the layout that the service's commands read."""

from __future__ import annotations

import json
import os
import re
import tempfile
import unicodedata
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Literal, Mapping, NamedTuple, Optional, Tuple, Union

from . import pixels
from .models import Metadata
from .pixels import Image

__all__ = ["Dataset", "DatasetError", "Job", "Photo", "format_prompt"]

MANIFEST = "dataset.jsonl"
PERSON = "a person"
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_PROMPT_FILES = (("prompts_t.json", "T"), ("prompts_h.json", "H"))
_LISTS = ("categories", "detectables", "relations")
# Keys of the layout, which further facts may not replace.
_RESERVED = (
    "save_name",
    "prompt",
    "image_path",
    "attributes",
    "detectables",
    "categories",
    "relations",
    "is_stellar_t",
)


class DatasetError(ValueError):
    """A dataset or a folder of generated images is not as it should be."""


class Photo(NamedTuple):
    """A photo of a person."""

    name: str
    """Its name among the person's photos."""
    path: Path
    """The file."""
    attributes: Dict[str, bool]
    """Facial attributes by CelebA's names."""
    mask: Optional[Path]
    """The file of its mask, in which the person is not black."""


class _Prompt(NamedTuple):
    text: str
    kind: Optional[str]
    categories: List[str]
    detectables: List[str]
    relations: List[List[str]]


@dataclass(frozen=True)
class Job:
    """One image to generate."""

    name: str
    """Name of the sample and of its files."""
    prompt: str
    """The prompt as text models read it: the person is "a person"."""
    template: str
    """The prompt as in the dataset: ``{}`` stands for the person."""
    identity: str
    """The person."""
    photo: Path
    """The file of the photo that the generator is given."""
    mask: Optional[Path]
    """The file of the photo's mask, if the dataset has one."""
    others: List[Path]
    """The person's other photos."""
    kind: Optional[str]
    """Kind of the prompt; Stellar has ``T`` and ``H``."""
    index: int
    """Number of the job in the dataset."""
    seed: int
    """A seed that depends on the name alone."""
    image_path: str
    """The photo as the layout names it."""
    metadata: Metadata
    """What else is known about the sample."""

    def prompt_for(self, person: str) -> str:
        """Returns the prompt for a generator with a word of its own for the person, such as ``"sks person"``."""
        return format_prompt(self.template, person)


def format_prompt(template: str, person: str = PERSON) -> str:
    """Returns ``template.format(person)``. Raises :class:`DatasetError` for placeholders other than the person."""
    rest = re.sub(r"\{\{|\}\}", "", template)
    found = re.findall(r"\{0?\}", rest)
    if re.search(r"[{}]", re.sub(r"\{0?\}", "", rest)) or (len(found) > 1 and "{}" in found):
        raise DatasetError(
            f"the prompt {template!r} has a brace that is not the one `{{}}`: only the person can be inserted (in "
            "several places, write `{0}` in each), and literal braces must be doubled"
        )
    return template.format(person)


class Dataset:
    """A folder with photos and prompts in the Stellar layout or with a manifest, and a folder of generated images.

    ::

        dataset = Dataset("data/stellar", out="generations")
        for job in dataset.jobs():
            image = generate(job.prompt, job.photo)
            dataset.save(image, job)

    :param path: the folder of the dataset (docs/DATASETS.md).
    :param out: the folder of the generated images. It is created by the first :meth:`save`.
    :param photos: ``all``: an image for each prompt and each photo of its person; ``first``: for the first photo only.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        out: Union[str, os.PathLike[str], None] = None,
        photos: Literal["all", "first"] = "all",
    ) -> None:
        if photos not in ("all", "first"):
            raise ValueError(f"photos={photos!r}: choose 'all' or 'first'")
        self.path = Path(path)
        self.out = None if out is None else Path(out)
        self.photos: Dict[str, List[Photo]] = {}
        """The photos of each person."""
        self._prompts: Dict[str, List[_Prompt]] = {}
        self._first_only = photos == "first"
        if (self.path / MANIFEST).is_file():
            self._read_manifest()
        else:
            self._read_stellar()
        self._all = list(self._make_jobs())
        self._check_unique()

    def __repr__(self) -> str:
        return f"<Dataset {self.path}: {len(self.photos)} people, {len(self._all)} jobs>"

    def __len__(self) -> int:
        return len(self._all)

    def _read_stellar(self) -> None:
        is_identity = re.compile(r"[0-9]{3,}").fullmatch
        folders = sorted(each for each in self.path.iterdir() if each.is_dir() and is_identity(each.name))
        if not folders:
            raise DatasetError(f"{self.path} has neither folders 000, 001, … as in Stellar, nor a file {MANIFEST}")
        for folder in folders:
            numbers = sorted(int(each.stem) for each in folder.glob("*.jpg") if each.stem.isdecimal())
            photos = []
            for number in numbers:
                facts = folder / f"{number}_attributes.json"
                attributes = _labels(_json(facts).get("attributes", {}), facts) if facts.is_file() else {}
                mask = folder / f"{number}_bg.png"
                file = folder / f"{number}.jpg"
                photos.append(Photo(str(number), file, attributes, mask if mask.is_file() else None))
            if not photos:
                raise DatasetError(f"{folder} has no photo: expected 0.jpg, 1.jpg, …")
            self.photos[folder.name] = photos
            found = [(folder / name, kind) for name, kind in _PROMPT_FILES if (folder / name).is_file()]
            plain = folder / "prompt.json"
            files: List[Tuple[Path, Optional[str]]] = [*found] or ([(plain, None)] if plain.is_file() else [])
            self._prompts[folder.name] = [prompt for file, kind in files for prompt in _prompts_of(file, kind)]

    def _read_manifest(self) -> None:
        path = self.path / MANIFEST
        waiting: List[Tuple[str, Optional[str], _Prompt]] = []
        beside: Dict[Path, Path] = {}
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path}: line {number}"
                try:
                    entry = json.loads(line)
                except ValueError as error:
                    raise DatasetError(f"{where} is not JSON: {error}") from None
                if not isinstance(entry, dict) or ("photo" in entry) == ("prompt" in entry):
                    raise DatasetError(f"{where} has neither `photo` nor `prompt`, or both: use exactly one per line")
                if "photo" in entry:
                    self._add_photo(entry, where, beside)
                else:
                    waiting.append((where, entry.get("identity"), _prompt_of(entry, where)))
        for photos in self.photos.values():
            photos.sort(key=lambda photo: photo.name)
        self.photos = dict(sorted(self.photos.items()))
        self._prompts = {identity: [] for identity in self.photos}
        for where, identity, prompt in waiting:
            if identity is not None and identity not in self.photos:
                raise DatasetError(f"{where}: the manifest has no photo of identity {identity!r}")
            for each in [identity] if identity is not None else self.photos:
                self._prompts[each].append(prompt)

    def _add_photo(self, entry: Dict[str, Any], where: str, beside: Dict[Path, Path]) -> None:
        """Adds the photo of a line. ``beside`` has the photo of each mask that no line names."""
        _check_keys(entry, ("identity", "photo", "name", "mask", "attributes", "finegrained_attributes"), where)
        identity, relative = entry.get("identity"), entry["photo"]
        if not isinstance(identity, str) or not identity.strip():
            raise DatasetError(f"{where}: `identity` is missing or empty")
        path = self._file("photo", relative, where)
        if entry.get("mask") is not None:
            mask: Optional[Path] = self._file("mask", entry["mask"], where)
        else:
            mask = path.with_name(f"{path.stem}_bg.png")
            if not mask.is_file():
                mask = None
            elif (other := beside.setdefault(mask, path)) != path:
                first, second, shared = (each.relative_to(self.path).as_posix() for each in (other, path, mask))
                raise DatasetError(
                    f"{where}: {first} and {second} have the same mask {shared}: rename one of them, or name their "
                    "masks"
                )
        photo = Photo(entry.get("name") or path.stem, path, dict(entry.get("attributes") or {}), mask)
        photos = self.photos.setdefault(identity, [])
        if any(other.name == photo.name for other in photos):
            raise DatasetError(f"{where}: {identity} already has a photo named {photo.name!r}")
        photos.append(photo)

    def _file(self, key: str, relative: str, where: str) -> Path:
        path = Path(relative)
        if path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"{where}: `{key}` is {relative!r}: it must be a path below the folder of {MANIFEST}")
        if not (self.path / path).is_file():
            raise DatasetError(f"{where}: there is no file {relative}")
        return self.path / path

    def _make_jobs(self) -> Iterator[Job]:
        index = 0
        for identity, photos in self.photos.items():
            for nth, prompt in enumerate(self._prompts[identity]):
                for photo in photos[:1] if self._first_only else photos:
                    yield self._job(index, identity, nth, prompt, photo)
                    index += 1

    def _job(self, index: int, identity: str, nth: int, prompt: _Prompt, photo: Photo) -> Job:
        name = _file_name(f"{identity}-{photo.name}-{nth:02}")
        metadata: Metadata = {"identity": identity}
        if photo.attributes:
            metadata["attributes"] = photo.attributes
        if prompt.detectables:
            metadata["detectables"] = prompt.detectables
        if prompt.relations:
            metadata["relations"] = prompt.relations
        if prompt.categories:
            metadata["categories"] = prompt.categories
        if prompt.kind is not None:
            metadata["prompt_kind"] = prompt.kind
        relative = photo.path.relative_to(self.path).as_posix()
        return Job(
            name=name,
            prompt=format_prompt(prompt.text),
            template=prompt.text,
            identity=identity,
            photo=photo.path,
            mask=photo.mask,
            others=[other.path for other in self.photos[identity] if other is not photo],
            kind=prompt.kind,
            index=index,
            seed=zlib.crc32(name.encode("utf-8")),
            # The last two parts identify the photo; a photo in the folder itself has only one.
            image_path=f"{self.path.resolve().name or 'dataset'}/{relative}",
            metadata=metadata,
        )

    def _check_unique(self) -> None:
        names: Dict[str, Job] = {}
        for job in self._all:
            if names.setdefault(job.name.casefold(), job) is not job:
                raise DatasetError(f"two images would have the name {job.name}: give the photos or people other names")
        ends: Dict[Tuple[str, ...], Path] = {}
        for photo in (photo for photos in self.photos.values() for photo in photos):
            end = photo.path.relative_to(self.path).parts[-2:]
            if ends.setdefault(end, photo.path) != photo.path:
                raise DatasetError(
                    f"{photo.path} and {ends[end]} have the same folder and file name, by which generated images are "
                    "matched to photos: rename one of them"
                )

    def jobs(self, kind: Optional[str] = None, rank: int = 0, world: int = 1) -> Iterator[Job]:
        """Yields what is still to be generated, in the order of the dataset.

        An image counts as done once both its files are there, so an interrupted script can be started again.

        :param kind: only prompts of this kind.
        :param rank: the number of this process among ``world`` processes that share the work.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}: ranks are 0 to {world - 1}")
        for job in self._all:
            if (kind is None or job.kind == kind) and job.index % world == rank and not self.is_done(job):
                yield job

    def all_jobs(self) -> List[Job]:
        """Returns all jobs, whether they are done or not."""
        return list(self._all)

    def is_done(self, job: Job) -> bool:
        """Returns whether a job is done. Raises :class:`DatasetError` if the files are those of another job."""
        out = self._out()
        about = out / f"{job.name}.json"
        if self._image(job) is None or not about.is_file():
            return False
        found = _json(about)
        photo = str(found.get("image_path", "")).replace("\\", "/").split("/")[-2:]
        if found.get("prompt") != job.template or photo != job.image_path.split("/")[-2:]:
            raise DatasetError(f"{about} is for another prompt or photo: the dataset has changed, use another folder")
        return True

    def _image(self, job: Job) -> Optional[Path]:
        files = (self._out() / (job.name + ending) for ending in _ENDINGS)
        return next((file for file in files if file.is_file()), None)

    def _out(self) -> Path:
        if self.out is None:
            raise ValueError("name the folder of the generated images: Dataset(path, out='generations')")
        return self.out

    def save(self, image: Image, job: Job, **facts: Any) -> Path:
        """Saves a generated image with its JSON file, and returns the path of the image.

        Pixels become a PNG, and a file is copied as it is. Both files appear complete or not at all. ``facts``, such
        as the seed and the steps, are written into the JSON file.
        """
        taken = [key for key in facts if key in _RESERVED]
        if taken:
            raise ValueError(f"{', '.join(taken)}: these keys belong to the layout")
        out = self._out()
        out.mkdir(parents=True, exist_ok=True)
        data = pixels.to_file(image)
        ending = _ending(data)
        about: Dict[str, Any] = {
            "index": job.index,
            "prompt": job.template,
            "image_path": job.image_path,
            "save_name": job.name,
            "attributes": {name: 1 if there else -1 for name, there in job.metadata.get("attributes", {}).items()},
            "detectables": job.metadata.get("detectables", []),
            "categories": job.metadata.get("categories", []),
            "relations": job.metadata.get("relations", []),
        }
        if job.kind in ("T", "H"):
            about["is_stellar_t"] = job.kind == "T"
        about.update(facts)
        text = json.dumps(about, ensure_ascii=False, indent=1).encode("utf-8")
        target = out / (job.name + ending)
        before = self._image(job)
        if before is not None and before != target:
            # A second image of the same name would be refused.
            before.unlink()
        _write(target, data)
        # The JSON file is written last: without it, the image does not count as done.
        _write(out / f"{job.name}.json", text + b"\n")
        return target

    def samples(self) -> List[Dict[str, Any]]:
        """Returns the arguments of :meth:`Run.add` for every image in the folder."""
        found = []
        for job in self._all:
            if self.is_done(job):
                sample = {"name": job.name, "image": self._image(job), "prompt": job.prompt, "reference": job.photo}
                found.append({**sample, "auxiliary": job.others, "metadata": job.metadata})
        return found


def _json(path: Path) -> Dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise DatasetError(f"{path} is not a JSON object")
    return document


def _labels(labels: Mapping[str, Any], path: Path) -> Dict[str, bool]:
    for name, label in labels.items():
        if label not in (1, -1):
            raise DatasetError(f"{path}: {name} is {label}: 1 means present, -1 absent")
    return {name: label == 1 for name, label in labels.items()}


def _check_keys(entry: Mapping[str, Any], known: Tuple[str, ...], where: str) -> None:
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise DatasetError(f"{where}: unknown key `{unknown[0]}`: the keys are {', '.join(known)}")


def _prompt_of(entry: Dict[str, Any], where: str) -> _Prompt:
    _check_keys(entry, ("prompt", "identity", "kind", "categories", "detectables", "relations"), where)
    try:
        format_prompt(entry["prompt"])
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from None
    lists = (list(entry.get(key) or []) for key in _LISTS)
    return _Prompt(entry["prompt"], entry.get("kind"), *lists)


def _prompts_of(path: Path, kind: Optional[str]) -> Iterator[_Prompt]:
    content = _json(path)
    texts = content.get("prompts")
    if not isinstance(texts, list):
        raise DatasetError(f"{path} has no list `prompts`")
    for key in _LISTS:
        if content.get(key) is not None and len(content[key]) != len(texts):
            raise DatasetError(f"{path} has {len(texts)} prompts and {len(content[key])} {key}")
    for at, text in enumerate(texts):
        try:
            format_prompt(text)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from None
        lists = (list(content[key][at]) if content.get(key) else [] for key in _LISTS)
        yield _Prompt(text, kind, *lists)


def _file_name(name: str) -> str:
    """Returns a name that every file system and the service accept. A changed name gets a mark of the original."""
    plain = unicodedata.normalize("NFC", name)
    safe = re.sub(r"[^\w.-]+", "_", plain).lstrip(".") or "_"
    encoded = safe.encode("utf-8")
    if safe != plain or len(encoded) > 200:
        mark = f"{zlib.crc32(name.encode('utf-8')):08x}"
        safe = encoded[:200].decode("utf-8", "ignore") + "-" + mark
    return safe


def _ending(data: bytes) -> str:
    if data.startswith(b"\x89PNG"):
        return ".png"
    if data.startswith(b"\xff\xd8"):
        return ".jpg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ".webp"
    raise ValueError("the file is neither PNG, JPEG nor WebP")


def _write(path: Path, data: bytes) -> None:
    # Commands ignore names that begin with a dot.
    handle, temporary = tempfile.mkstemp(prefix=f".{os.getpid()}-", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner can read.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
