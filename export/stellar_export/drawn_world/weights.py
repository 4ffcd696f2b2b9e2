"""Trained weights as they are kept: half precision, and of token tables only the rows that were trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import ExportError

FOLDER = Path(__file__).parent / "weights"
ROWS, VALUES = "#rows", "#values"


def changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is to be kept of a state that was trained: tensors that differ, rows that differ where few do."""
    kept: dict[str, Tensor] = {}
    for name, old in before.items():
        new = after[name].to(torch.float16)
        if not new.isfinite().all():
            raise ExportError(f"{name} has values that half precision cannot hold")
        other = (new != old.to(torch.float16)).reshape(len(new), -1).any(dim=1) if new.dim() else new != old
        if new.dim() == 2 and int(other.sum()) * 4 < len(new):
            if other.any():
                kept[name + ROWS] = torch.nonzero(other).flatten().to(torch.int32)
                kept[name + VALUES] = new[other].contiguous()
        elif bool(other.any()):
            kept[name] = new.contiguous()
    return kept


def write(path: Path, states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """One file for each model; `states` are the changes of each of its parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{part}:{name}": v for part, state in states.items() for name, v in state.items()}, path)


class Trained:
    """The kept weights of all models, to be laid over random ones."""

    def __init__(self, *files: Path):
        self.parts: dict[str, dict[str, Tensor]] = {}
        for path in files:
            for key, value in load_file(path).items():
                part, name = key.rsplit(":", 1)
                self.parts.setdefault(part, {})[name] = value

    @classmethod
    def of(cls, folder: Path | None) -> Trained:
        """All files of a folder; of none, nothing."""
        return cls(*sorted(folder.glob("*.safetensors"))) if folder else cls()

    def over(self, part: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state of a part with what was trained of it; as it is if nothing was."""
        for name, value in self.parts.get(part, {}).items():
            if name.endswith(ROWS):
                continue
            at = name.removesuffix(VALUES)
            if at not in state:
                raise ExportError(f"the trained weights of {part} have {at}, which its layout has not")
            if at != name:
                table = state[at].clone()
                table[self.parts[part][at + ROWS].long()] = value.float()
                state[at] = table
            elif state[at].shape != value.shape:
                raise ExportError(
                    f"{part}: {at} was trained at {list(value.shape)}, the sizes say {list(state[at].shape)}"
                )
            else:
                state[at] = value.float()
        return state
