"""From CLIP features of a photo to the word vectors of S*.

The form is that of ELITE's global mapper (csyxwei/ELITE, `train_global.py`): word i reads the i-th chosen hidden state
of a vision tower and is MLP(class token) + mean over the patches of another MLP. A `Bank` has ELITE's own key names.
The StellarNet-like mapper has one bank for each pair of vision tower and text encoder and adds those of the towers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from . import files
from .errors import TrainError

CONFIG, WEIGHTS = "stellarnet.json", "mapper.safetensors"
SCHEMA = 1


class Bank(nn.Module):
    """The word vectors [B, words, output] from as many hidden states [B, 1 + patches, width] of one vision tower."""

    def __init__(self, width: int, output: int, words: int = 5, hidden: int = 1024) -> None:
        super().__init__()
        self.words, self.width = words, width
        for i in range(words):
            setattr(self, f"mapping_{i}", _mlp(width, hidden, output))
            setattr(self, f"mapping_patch_{i}", _mlp(width, hidden, output))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        words = []
        for i, state in enumerate(states):
            whole = getattr(self, f"mapping_{i}")(state[:, :1])
            patches = getattr(self, f"mapping_patch_{i}")(state[:, 1:]).mean(dim=1, keepdim=True)
            words.append(whole + patches)
        return torch.cat(words, dim=1)


def _mlp(width: int, hidden: int, output: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.LayerNorm(hidden),
        nn.LeakyReLU(),
        nn.Linear(hidden, hidden),
        nn.LayerNorm(hidden),
        nn.LeakyReLU(),
        nn.Linear(hidden, output),
    )


class Mapper(nn.Module):
    """The words of both text encoders of SDXL: [B, words, D1] and [B, words, D2].

    `widths` has the hidden size of each vision tower under its folder's name (`image_encoder`, `image_encoder_2`),
    `outputs` the embedding sizes (D1, D2) of the text encoders. Keys of the state dict:
    `<tower>.<1|2>.mapping_<word>.<layer>.<weight|bias>`, and `mapping_patch_<word>` likewise.
    """

    def __init__(self, widths: Mapping[str, int], outputs: tuple[int, int], words: int = 5, hidden: int = 1024) -> None:
        super().__init__()
        self.words, self.towers = words, tuple(widths)
        for tower, width in widths.items():
            banks = {str(n): Bank(width, output, words, hidden) for n, output in enumerate(outputs, 1)}
            self.add_module(tower, nn.ModuleDict(banks))

    def forward(self, features: Mapping[str, Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        """`features`: for each tower the chosen hidden states [B, 1 + patches, width], one for each word."""
        totals: list[Tensor] = []
        for n in ("1", "2"):
            parts = [self.get_submodule(tower)[n](features[tower]) for tower in self.towers]
            totals.append(torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0])
        return totals[0], totals[1]


def hidden_states(tower: nn.Module, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """The chosen hidden states of a `CLIPVisionModel(WithProjection)`; `pixels` are normalised, [B, 3, H, W].

    Indices are those of transformers: 0 is the embedding, n the output of layer n, −1 the last layer's output before
    the final norm (`last_hidden_state`).
    """
    states = tower.vision_model(pixels, output_hidden_states=True).hidden_states
    return [states[n] for n in layers]


def load(folder: Path) -> tuple[Mapper, dict]:
    """The mapper of a trained checkpoint and the content of its `stellarnet.json`; every key must be there."""
    path = folder / CONFIG
    if not path.is_file():
        raise TrainError(f"{folder} is not a StellarNet checkpoint: it has no {CONFIG}")
    config = files.read_json(path)
    if config.get("schema") != SCHEMA:
        raise TrainError(f"{path}: schema {config.get('schema')} is not known; this program reads {SCHEMA}")
    state = load_file(folder / WEIGHTS)
    try:
        widths = {t: state[f"{t}.1.mapping_0.0.weight"].shape[1] for t in config["encoders"]}
        first = config["encoders"][0]
        outputs = tuple(state[f"{first}.{n}.mapping_0.6.weight"].shape[0] for n in (1, 2))
        mapper = Mapper(widths, outputs, config["words"], config["hidden"])
    except (KeyError, IndexError) as missing:
        raise TrainError(f"{folder}: {CONFIG} and {WEIGHTS} do not belong together: {missing} is missing") from missing
    try:
        mapper.load_state_dict(state)
    except RuntimeError as error:
        raise TrainError(f"{folder / WEIGHTS}: {error}") from error
    return mapper.eval(), config
