"""Reads official weight files tensor by tensor and accounts for every key in them.

A model that is not loaded completely still exports and still gives numbers, so nothing here is lenient: each tensor is
taken by name with the shape that the configuration implies, and a key that nobody took is an error that names it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from .errors import ExportError

# In the order in which transformers looks for them.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

# Buffers of indices (0, 1, 2, …) that older library versions saved beside the weights.
POSITION_IDS = r"(.*\.)?position_ids"


class Weights:
    """A state dict that is read lazily and strictly."""

    def __init__(self, origin: str, names: Mapping[str, Callable[[], torch.Tensor]]):
        """`origin` is how errors call the file; `names` gives a loader for every key."""
        self.origin = origin
        self._loaders = dict(names)
        self._taken: set[str] = set()
        self._checking_only = False

    def __contains__(self, name: str) -> bool:
        return name in self._loaders

    def names(self) -> list[str]:
        return list(self._loaders)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor that sizes are read from; does not count as taking it."""
        return tuple(self._load(name).shape)

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor as float32, after checking that it has this shape."""
        tensor = self._load(name)
        if tuple(tensor.shape) != shape:
            raise ExportError(
                f"{self.origin}: {name} has shape {list(tensor.shape)}, the configuration implies {list(shape)}"
            )
        self._taken.add(name)
        if self._checking_only:
            return torch.empty(shape, device="meta")
        return tensor.float()

    def renamed(self, rename: Callable[[str], str]) -> Weights:
        """The same tensors under other names, none of them taken."""
        return Weights(self.origin, {rename(name): loader for name, loader in self._loaders.items()})

    @contextlib.contextmanager
    def checking_only(self) -> Iterator[None]:
        """Inside, tensors are checked and counted as taken but not read: for the towers a graph leaves out."""
        before, self._checking_only = self._checking_only, True
        try:
            yield
        finally:
            self._checking_only = before

    def count(self, pattern: str) -> int:
        """How many different numbers the group of `pattern` takes: the depth of a stack of layers."""
        return len({m.group(1) for m in (re.match(pattern, n) for n in self._loaders) if m})

    def finish(self, *ignored: str) -> None:
        """Fails if a key was neither taken nor matches one of the `ignored` patterns."""
        left = [n for n in self._loaders if n not in self._taken and not any(re.fullmatch(p, n) for p in ignored)]
        if left:
            raise ExportError(f"{self.origin}: unexpected {'key' if len(left) == 1 else 'keys'} {_listing(left)}")

    def _load(self, name: str) -> torch.Tensor:
        if name not in self._loaders:
            raise ExportError(f"{self.origin}: key {name} is missing")
        return self._loaders[name]()


def _listing(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def of_state_dict(origin: str, state: Mapping[str, torch.Tensor]) -> Weights:
    """Weights that are in memory already."""
    odd = [k for k, v in state.items() if not isinstance(v, torch.Tensor)]
    if odd:
        raise ExportError(f"{origin}: not a state dict, {_listing(odd)} hold no tensor")
    return Weights(origin, {k: (lambda v=v: v) for k, v in state.items()})


def load_pickle(path: Path) -> object:
    """What `torch.save` wrote, on the CPU whatever device it was saved from, mapped rather than read where possible."""
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # written before torch 1.6: not a zip archive, cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen unrelated types for a damaged file
        raise ExportError(f"{path}: not a readable PyTorch file ({str(error).splitlines()[0]})") from error


def load_state_dict(path: Path, *inside: str) -> Weights:
    """The state dict in a PyTorch file, below the keys `inside`."""
    state = load_pickle(path)
    for key in inside:
        if not isinstance(state, dict) or key not in state:
            raise ExportError(f"{path}: no {key!r} in the file")
        state = state[key]
    if not isinstance(state, dict):
        raise ExportError(f"{path}: holds a {type(state).__name__}, not a state dict")
    return of_state_dict(str(path), state)


def weight_files(folder: Path, names: Sequence[str] = WEIGHT_FILES) -> list[Path]:
    """The weight files of a folder in Hugging Face layout: one file, or an index followed by its shards.

    `names` are looked for in their order.
    """
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return [path]
        shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        absent = [s for s in shards if not (folder / s).is_file()]
        if absent:
            raise ExportError(f"{path} names {_listing(absent)}, which {'is' if len(absent) == 1 else 'are'} not there")
        return [path, *(folder / s for s in shards)]
    raise ExportError(f"{folder}: no weights (looked for {', '.join(names)})")


def load_folder(folder: Path, names: Sequence[str] = WEIGHT_FILES) -> Weights:
    """The weights of a folder in Hugging Face layout: safetensors or PyTorch, whole or in shards."""
    files = [p for p in weight_files(folder, names) if not p.name.endswith(".index.json")]
    loaders: dict[str, Callable[[], torch.Tensor]] = {}
    for path in files:
        if path.suffix == ".safetensors":
            try:
                handle = safe_open(path, framework="pt")
            except Exception as error:
                raise ExportError(f"{path}: not a readable safetensors file ({error})") from error
            loaders.update({k: (lambda h=handle, k=k: h.get_tensor(k)) for k in handle.keys()})  # noqa: SIM118 (the handle is no dict)
        else:
            part = load_state_dict(path)
            loaders.update(part._loaders)
    return Weights(str(files[0] if len(files) == 1 else folder), loaders)
