"""Finds checkpoints: under the root in the layout of README.md, else on the hub by their id.

ROOT/hub/<hub id>/…       folders as on the hub
ROOT/files/<name>         single files as their authors publish them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ExportError, MissingCheckpoint
from .manifest import Source, sha256_of_all

# A random root says so in this file, and a pack built from it can then never call itself official.
MARKER = "stellar_export.json"


@dataclass(frozen=True)
class Folder:
    """A checkpoint folder on this machine: a configuration and weights."""

    hub_id: str
    path: Path
    revision: str

    def json(self, name: str) -> dict:
        """A configuration file of the folder."""
        path = self.path / name
        if not path.is_file():
            raise ExportError(f"{path} is missing")
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise ExportError(f"{path}: not JSON ({error})") from error

    def source(self, files: Sequence[Path]) -> Source:
        return Source(self.hub_id, self.revision, files[0].name, sha256_of_all(files))


@dataclass(frozen=True)
class File:
    """A single checkpoint file on this machine."""

    checkpoint: str
    path: Path
    revision: str

    def source(self) -> Source:
        return Source(self.checkpoint, self.revision, self.path.name, sha256_of_all([self.path]))


class Checkpoints:
    """The root folder and, behind it, the hub."""

    def __init__(self, root: Path | None, say: Callable[[str], None] = print):
        self.root = root
        self.say = say

    @property
    def marked_demo(self) -> bool:
        """Whether the root was made by this package with random weights."""
        return self.root is not None and (self.root / MARKER).is_file()

    def local(self, *parts: str) -> Path | None:
        """A path under the root if it is there."""
        if self.root is None:
            return None
        path = self.root.joinpath(*parts)
        return path if path.exists() else None

    def folder(self, hub_id: str, patterns: Sequence[str], weights: bool = True) -> Folder:
        """The folder of a hub id; from the hub, only the files that match `patterns`, and one kind of weights."""
        if path := self.local("hub", hub_id):
            return Folder(hub_id, path, "local")
        try:
            from huggingface_hub import list_repo_files, snapshot_download

            wanted = list(patterns)
            if weights:
                wanted += _weight_patterns(list_repo_files(hub_id))
            self.say(f"  fetching {hub_id} ({', '.join(wanted)})")
            path = Path(snapshot_download(hub_id, allow_patterns=wanted))
        except Exception as error:  # no network, no such repository, no right to it: the way out is the same
            wanted = [*patterns, "model.safetensors"] if weights else patterns
            raise self._missing(hub_id, wanted, Path("hub", hub_id), error) from error
        return Folder(hub_id, path, path.name)

    def file(self, name: str, repo: str | None, hint: str = "") -> File:
        """A file under `files/`; from the hub if `repo` has it. `hint` says where else its authors publish it."""
        if path := self.local("files", name):
            return File(repo or name, path, "local")
        if repo is None:
            raise MissingCheckpoint(f"{self._expected(Path('files', name))} is missing; it is not on the hub: {hint}")
        try:
            from huggingface_hub import hf_hub_download

            self.say(f"  fetching {name} of {repo}")
            path = Path(hf_hub_download(repo, name))
        except Exception as error:
            raise self._missing(repo, [name], Path("files", name), error) from error
        return File(repo, path, path.parent.name)

    def files_folder(self, name: str, hint: str) -> Folder:
        """A folder under `files/` that is not on the hub; `hint` says where its authors publish it."""
        path = self.local("files", name)
        if path is None or not path.is_dir():
            raise MissingCheckpoint(f"{self._expected(Path('files', name))} is missing; it is not on the hub: {hint}")
        return Folder(name, path, "local")

    def _expected(self, relative: Path) -> Path:
        return (self.root or Path("CHECKPOINTS")) / relative

    def _missing(self, hub_id: str, files: Sequence[str], relative: Path, error: Exception) -> MissingCheckpoint:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return MissingCheckpoint(
            f"{hub_id} is not at {self._expected(relative)} and could not be fetched from the hub ({first[:160]}); "
            f"put its files there: {', '.join(files)}"
        )


def _weight_patterns(names: Sequence[str]) -> list[str]:
    """Safetensors where the repository has them, else PyTorch files; not both, they hold the same.

    Some repositories keep other packages' weights under other names, as `open_clip_model.safetensors`.
    """
    if any(n.startswith("model") and n.endswith(".safetensors") for n in names):
        return ["model*.safetensors", "model.safetensors.index.json"]
    return ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
