"""The scores by the original Python code: what the goldens say and the exported graphs are held to.

Nothing here imports the modules that graphs are made from. Each scorer loads an official checkpoint with the package
that the metric is defined by and computes the score with the formula of the stellar-metrics toolkit, at fp32, one
sample at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ..checkpoints import Checkpoints
from ..errors import ExportError


@dataclass(frozen=True)
class Sample:
    """Inputs of a score. Pictures are opened as the toolkit opens them: RGB, alpha dropped."""

    picture: Path
    prompt: str | None
    reference: Path | None
    auxiliary: Sequence[Path] = ()
    detectables: Sequence[str] = ()
    relations: Sequence[tuple[str, str, str]] = ()

    def image(self) -> Image.Image:
        return Image.open(self.picture).convert("RGB")

    def reference_image(self) -> Image.Image:
        return Image.open(self.reference).convert("RGB")

    def photos(self) -> list[Image.Image]:
        """The auxiliary photos and, as one of them, the reference."""
        return [Image.open(p).convert("RGB") for p in (*self.auxiliary, self.reference) if p is not None]


Scores = Mapping[str, float]
Scorer = Callable[[Sample], Scores]


def require(*modules: str) -> None:
    """Fails with the command to run if a reference package is absent."""
    import importlib.util

    absent = [m for m in modules if importlib.util.find_spec(m) is None]
    if absent:
        raise ExportError(
            f"the reference code of the goldens needs {', '.join(absent)}: pip install --no-deps -r "
            "requirements-reference.txt, or build with --no-goldens"
        )


def fit(model: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Loads weights into a package's model; layers get the sizes that their weights have, for slim random models."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = state[f"{name}.weight"].shape[:2]
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.num_features = len(state[f"{name}.weight"])
        for kind in (layer._parameters, layer._buffers):
            for leaf, old in kind.items():
                new = state.get(f"{name}.{leaf}")
                if old is not None and new is not None and old.shape != new.shape:
                    kind[leaf] = nn.Parameter(new.clone(), requires_grad=False) if kind is layer._parameters else new.clone()
    left = model.load_state_dict(state, strict=False)
    # Counters of training: some layers that a file has frozen count in the package, others the other way round.
    odd = [key for key in (*left.missing_keys, *left.unexpected_keys) if "num_batches_tracked" not in key]
    assert not odd, odd
    return model.eval()


def makers(
    checkpoints: Checkpoints, clip: str, hps: str, models: Sequence[str] = ()
) -> dict[str, Callable[[], Scorer]]:
    """How to make the scorer of each model; `models` are those of the pack, as one score may need two."""
    # Deprecations of torch inside the pinned, older packages; nothing that a user could act on.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    from . import clip as clip_reference
    from . import faces as faces_reference
    from . import hps as hps_reference
    from . import others, owlvit, relations

    return {
        "clip": lambda: clip_reference.clip_scorer(checkpoints, clip),
        "aesthetic": lambda: clip_reference.aesthetic_scorer(checkpoints),
        "hpsv1": lambda: hps_reference.hpsv1_scorer(checkpoints),
        "hpsv2": lambda: hps_reference.hpsv2_scorer(checkpoints, hps),
        "pick_score": lambda: others.pick_score_scorer(checkpoints),
        "image_reward": lambda: others.image_reward_scorer(checkpoints),
        "dreamsim": lambda: others.dreamsim_scorer(checkpoints),
        "dino": lambda: others.dino_scorer(checkpoints),
        "faces": lambda: faces_reference.faces_scorer(checkpoints),
        "owlvit": lambda: owlvit.owlvit_scorer(checkpoints),
        "egtr": lambda: relations.rfs_scorer(checkpoints, grounded="owlvit" in models),
    }
