"""The models that the exporter knows, by the names that --only uses."""

from __future__ import annotations

from . import clip_models, dino, dreamsim, egtr, faces, hps, imagereward, owlvit
from .clip_models import CLIP_L, DEFAULT_CLIP
from .jobs import Family

FAMILIES: dict[str, Family] = {
    "clip": clip_models.clip_graphs,
    "aesthetic": clip_models.aesthetic_graphs,
    "hpsv1": hps.hpsv1_graphs,
    "hpsv2": hps.hpsv2_graphs,
    "pick_score": clip_models.pick_score_graphs,
    "image_reward": imagereward.graphs,
    "dreamsim": dreamsim.graphs,
    "dino": dino.graphs,
    "faces": faces.graphs,
    "owlvit": owlvit.graphs,
    "egtr": egtr.graphs,
}

__all__ = ["CLIP_L", "DEFAULT_CLIP", "FAMILIES"]
