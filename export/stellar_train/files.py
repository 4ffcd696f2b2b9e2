"""Files and folders that appear complete or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from .errors import TrainError


def write(path: Path, data: bytes) -> None:
    """Writes a file beside its place, forces it to disk and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    _sync(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainError(f"{path} cannot be read, it is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise TrainError(f"{path} is not a JSON object and cannot be read as one: give another folder")
    return found


def write_json(path: Path, value: Any) -> None:
    write(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    write(path, safetensors.torch.save(plain))


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Makes a folder beside its place, lets `fill` write into it, and renames it; one that is there is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    fill(beside)
    _sync(beside)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(beside, path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
