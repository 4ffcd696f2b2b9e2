"""EGTR's scene graph by transformers' Deformable DETR, and its relations by the definition.

The original repository cannot be installed beside transformers 4.33. Its detector is transformers' own model; what it
adds is written here once more from the paper (Im et al., CVPR 2024, equations 2 to 6), pair by pair and with every
intermediate tensor made, in double precision. `export/README.md` says how far both were compared with the original.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..checkpoints import Checkpoints
from . import fit, require
from .clip import pixels_of

IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Graph:
    """What the model says of one picture."""

    classes: np.ndarray
    """Probabilities `[Q, C]`."""
    boxes: np.ndarray
    """Centre, width and height in parts of the picture, `[Q, 4]`."""
    relation: np.ndarray
    """Probabilities of the predicates between subject (first axis) and object, `[Q, Q, P]`."""
    connectivity: np.ndarray
    """Probability of any relation, `[Q, Q]`."""


class Original:
    """The model of a checkpoint folder."""

    def __init__(self, folder: Path):
        from transformers import DeformableDetrConfig, DeformableDetrModel

        settings = json.loads((folder / "config.json").read_text())
        settings |= dict(use_timm_backbone=True, use_pretrained_backbone=False)
        self.config = DeformableDetrConfig.from_dict(settings)
        path = sorted((folder / "checkpoints").glob("*.ckpt"))[-1]
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        state = {name.removeprefix("model."): value for name, value in state.items()}
        self.detector = DeformableDetrModel(self.config)
        fit(self.detector, {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
        self.head = {k: v.double() for k, v in state.items() if not k.startswith("model.")}
        self.projected: dict[tuple[str, int], Tensor] = {}
        for i, layer in enumerate(self.detector.decoder.layers):
            for name in ("q_proj", "k_proj"):
                getattr(layer.self_attn, name).register_forward_hook(self._keep(name, i))

    def _keep(self, name: str, layer: int) -> Callable[[nn.Module, tuple, Tensor], None]:
        def keep(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            self.projected[name, layer] = output[0].double()

        return keep

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Graph:
        """Of one standardised picture `[1, 3, H, W]`."""
        found = self.detector(pixel_values=pixels)
        states, start = found.last_hidden_state[0].double(), found.init_reference_points[0].double()
        last = self.config.decoder_layers - 1
        logits = self.linear(f"class_embed.{last}", states)
        boxes = self.layers(f"bbox_embed.{last}", states)
        boxes[:, :2] += torch.log(start.clamp(min=1e-5) / (1 - start).clamp(min=1e-5))
        relation, connectivity = self.relations(states, logits)
        parts = (logits.softmax(-1), boxes.sigmoid(), relation, connectivity)
        return Graph(*(part.float().numpy() for part in parts))

    def relations(self, states: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Of all pairs, one subject at a time."""
        layers = range(self.config.decoder_layers)
        subjects = [self.linear(f"proj_q.{i}", self.projected["q_proj", i]) for i in layers]
        objects = [self.linear(f"proj_k.{i}", self.projected["k_proj", i]) for i in layers]
        subjects.append(self.linear("final_sub_proj", states))
        objects.append(self.linear("final_obj_proj", states))
        kind = logits.argmax(-1)
        relation, connectivity = [], []
        for i in range(len(states)):
            # [objects, layers + 1, 2·d]: a subject's part beside that of each object.
            sources = torch.stack([torch.cat([s[i].expand_as(o), o], dim=-1) for s, o in zip(subjects, objects, strict=True)], dim=1)
            gates = torch.sigmoid(self.linear("rel_predictor_gate", sources))
            pairs = (gates * sources).sum(dim=1)
            scores = self.layers("rel_predictor", pairs)
            if self.config.use_freq_bias:
                scores = scores + self.head["triplet_dist"][kind[i], kind]
            relation.append(torch.sigmoid(scores))
            connectivity.append(torch.sigmoid(self.layers("connectivity_layer", pairs))[:, 0])
        return torch.stack(relation), torch.stack(connectivity)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.head[f"{name}.weight"].T + self.head[f"{name}.bias"]

    def layers(self, name: str, x: Tensor) -> Tensor:
        for i in range(3):
            x = self.linear(f"{name}.layers.{i}", x)
            x = torch.relu(x) if i < 2 else x
        return x


def size_of(folder: Path) -> Mapping[str, int]:
    """Shortest and longest edge, by the folder's file or as the original is evaluated."""
    file = folder / "preprocessor_config.json"
    found = json.loads(file.read_text()) if file.is_file() else dict(size=800, max_size=1333)
    return dict(shortest_edge=found["size"], longest_edge=found["max_size"])


def scene_grapher(checkpoints: Checkpoints) -> Callable[[Image.Image], Graph]:
    """The scene graph of a picture, from the file on."""
    require("transformers", "timm")
    from transformers import DeformableDetrImageProcessor

    folder = checkpoints.files_folder("egtr", "the graph was made from it").path
    model = Original(folder)
    processor = DeformableDetrImageProcessor(size=size_of(folder), **IMAGENET)
    return lambda picture: model(pixels_of(processor, [picture]))
