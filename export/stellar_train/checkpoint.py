"""Checkpoints of a training in progress: trained tensors, the optimiser's state, and the number of the step.

All randomness of a step follows from the seed and the step's number (`loop.generator`), so a checkpoint needs no state
of a random generator, and a resumed training makes the same draws as one that was never interrupted.
"""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from . import files
from .errors import TrainError

FOLDER = "progress"


@dataclass
class Checkpoint:
    step: int
    tensors: dict[str, Tensor]
    optimiser: dict[str, Any]


def save(out: Path, checkpoint: Checkpoint, about: dict[str, str], keep: int) -> None:
    """Writes `OUT/progress/step-N` and removes all but the last `keep`."""

    def fill(folder: Path) -> None:
        files.write_tensors(folder / "trained.safetensors", checkpoint.tensors)
        buffer = io.BytesIO()
        torch.save(checkpoint.optimiser, buffer)
        files.write(folder / "optimiser.pt", buffer.getvalue())
        files.write_json(folder / "state.json", {"step": checkpoint.step, **about})

    files.write_folder(out / FOLDER / f"step-{checkpoint.step:08}", fill)
    for old in _steps(out)[:-keep]:
        shutil.rmtree(old)


def load(out: Path, about: dict[str, str]) -> Checkpoint | None:
    """The last checkpoint; `None` if there is none. One of another configuration, base or data is refused."""
    found = _steps(out)
    if not found:
        return None
    folder = found[-1]
    state = json.loads((folder / "state.json").read_text())
    if differing := [name for name, value in about.items() if state.get(name) != value]:
        raise TrainError(f"{folder} is of another training: {', '.join(differing)} differ; give another --out")
    optimiser = torch.load(folder / "optimiser.pt", map_location="cpu", weights_only=True)
    return Checkpoint(state["step"], load_file(folder / "trained.safetensors"), optimiser)


def clear(out: Path) -> None:
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def _steps(out: Path) -> list[Path]:
    # A folder with a dot in front was not finished.
    return sorted((out / FOLDER).glob("step-*"))
