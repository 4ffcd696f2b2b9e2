"""OWL-ViT in Hugging Face layout: objects in a picture by the words for them, for goa.

The text tower is a graph of its own, so that the words of a prompt are embedded once. The image graph takes their
embeddings beside the picture. No query's logit depends on another query, so padding queries need no mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import clip, layouts, preprocess, vocabulary
from .checkpoints import Folder
from .clip_models import CLIP_FILES
from .errors import ExportError
from .jobs import GraphJob, Request, clip_text_job, pictures
from .manifest import IoSpec
from .nn import (
    Attentive,
    AttentionForm,
    LayerNorm,
    Linear,
    Normalise,
    Precision,
    VisionTransformer,
    activation,
)
from .onnx_graph import Probe
from .weights import POSITION_IDS, Weights, load_folder, weight_files

HUB_ID = "google/owlvit-large-patch14"

# (vision width, layers, image, patch, text width, layers) of the published models: B/32, B/16, L/14.
PUBLISHED = {(768, 12, 768, 32, 512, 12), (768, 12, 768, 16, 512, 12), (1024, 24, 840, 14, 768, 12)}

# What transformers 4.33 assumes for a value that config.json leaves out.
TEXT_DEFAULTS = clip.TEXT_DEFAULTS | dict(max_position_embeddings=16)
VISION_DEFAULTS = clip.VISION_DEFAULTS | dict(image_size=768)

NORM_EPS = 1e-6  # added to the lengths that embeddings are divided by

# Logits are cosines times up to 10, and the least logits add errors of the scale: no unit vectors.
LOOSENESS = 10

# What the keys of the text half begin with.
PREFIX = "owlvit."


@dataclass(frozen=True)
class Config(clip.ClipConfig):
    """The sizes of an OWL-ViT, which are those of a CLIP."""

    @property
    def side(self) -> int:
        """Patches a row."""
        return self.image // self.patch

    @property
    def official(self) -> bool:
        """Whether the sizes are those of a published model."""
        sizes = (self.vision.width, self.vision.layers, self.image, self.patch, self.text.width, self.text.layers)
        return sizes in PUBLISHED


def read_config(folder: Folder) -> Config:
    """Reads `config.json` as transformers 4.33 does."""
    config, where = folder.json("config.json"), f"{folder.path / 'config.json'}"
    if config.get("model_type", "owlvit") != "owlvit":
        raise ExportError(f"{where}: model_type is {config['model_type']!r}, expected 'owlvit'")
    vision = VISION_DEFAULTS | (config.get("vision_config") or {})
    text = TEXT_DEFAULTS | (config.get("text_config") or {})
    projection = config.get("projection_dim", 512)
    if projection != text["hidden_size"]:
        raise ExportError(
            f"{where}: queries of {projection} values (projection_dim) do not fit class embeddings of "
            f"{text['hidden_size']} (hidden_size of the text)"
        )
    return Config(
        vision=clip.tower(vision, where),
        image=vision["image_size"],
        patch=vision["patch_size"],
        text=clip.tower(text, where),
        vocabulary=text["vocab_size"],
        context=text["max_position_embeddings"],
        projection=projection,
    )


def unit(x: Tensor) -> Tensor:
    """Nearly unit length, as the class head makes it."""
    return x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + NORM_EPS)


def box_bias(side: int) -> Tensor:
    """The logits of each patch's place and size, which the box head corrects: `[patches, 4]`."""
    steps = torch.arange(1, side + 1, dtype=torch.float32) / side
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    place = torch.stack([x, y], dim=-1).reshape(-1, 2).clip(0, 1)
    size = torch.full_like(place, 1.0) / side
    return torch.cat([torch.log(p + 1e-4) - torch.log1p(-p + 1e-4) for p in (place, size)], dim=-1)


class Detector(Attentive):
    """Pixels and the embeddings of queries → a logit of each query and a box for each patch."""

    def __init__(self, w: Weights, c: Config, pre: preprocess.Preprocess, precision: Precision):
        super().__init__()
        v, at = c.vision, "owlvit.vision_model"
        self.compute = precision.compute
        self.normalise = Normalise(pre.mean, pre.std)
        blocks = [
            layouts.hf_clip_block(w, f"{at}.encoder.layers.{i}", v.width, v.mlp, v.heads, v.act, v.eps, precision)
            for i in range(v.layers)
        ]
        self.body = VisionTransformer(
            patch=w.take(f"{at}.embeddings.patch_embedding.weight", v.width, 3, c.patch, c.patch),
            patch_bias=None,
            cls=w.take(f"{at}.embeddings.class_embedding", v.width),
            position=w.take(f"{at}.embeddings.position_embedding.weight", c.side**2 + 1, v.width),
            norm_pre=layouts.norm(w, f"{at}.pre_layernorm", v.width, v.eps),
            blocks=blocks,
            precision=precision,
        )
        self.norm_post: LayerNorm = layouts.norm(w, f"{at}.post_layernorm", v.width, v.eps)
        self.norm: LayerNorm = layouts.norm(w, "layer_norm", v.width, v.eps)
        self.classes = layouts.linear(w, "class_head.dense0", c.text.width, v.width, precision)
        self.shift = layouts.linear(w, "class_head.logit_shift", 1, v.width, precision)
        self.scale = layouts.linear(w, "class_head.logit_scale", 1, v.width, precision)
        self.boxes = nn.ModuleList(
            layouts.linear(w, f"box_head.dense{i}", out, v.width, precision)
            for i, out in enumerate((v.width, v.width, 4))
        )
        self.bias = nn.Parameter(box_bias(c.side), requires_grad=False)

    def forward(self, pixels: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.norm_post(self.body(self.normalise(pixels)))
        x = self.norm(tokens[:, 1:] * tokens[:, :1])
        cosine = torch.matmul(unit(self.classes(x).float()), unit(queries.float()).transpose(1, 2))
        shifted, scale = cosine + self.shift(x).float(), self.scale(x).float()
        # ELU + 1, without ELU where it would leave the GPU: ONNX Runtime has none of this opset there.
        factor = F.relu(scale) + torch.exp(scale.clamp(max=0)) if self.form == AttentionForm.NODE else F.elu(scale) + 1
        logits = shifted * factor
        first, second, last = self.boxes
        boxes = last(activation("gelu", second(activation("gelu", first(x)))))
        return logits, torch.sigmoid(boxes.float() + self.bias)


def finish(w: Weights, c: Config) -> None:
    """The contrastive half of the model is in the file and not used for detection."""
    if "owlvit.visual_projection.weight" in w:
        w.take("owlvit.visual_projection.weight", c.projection, c.vision.width)
    w.finish(POSITION_IDS, r"(owlvit\.)?logit_scale", "box_bias")


def probe(c: Config, batch: int, queries: int, seed: int) -> Probe:
    """Pictures and unit vectors."""
    embeddings = np.random.default_rng(seed).standard_normal((batch, queries, c.projection))
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return Probe({"pixels": pictures(batch, c.image, c.image, seed), "queries": embeddings.astype(np.float32)})


def graphs(request: Request) -> Iterator[GraphJob]:
    """goa: the words' embeddings, and where they are in a picture."""
    folder = request.checkpoints.folder(HUB_ID, CLIP_FILES)
    config, pre = read_config(folder), preprocess.read(folder)
    if (pre.height, pre.width) != (config.image, config.image) or pre.geometry["resize"] != "exact":
        raise ExportError(
            f"{folder.path}: pictures of {pre.height}×{pre.width} ({pre.geometry['resize']}) for a model of "
            f"{config.image}×{config.image}"
        )
    request.needs_tokenizer("clip", vocabulary.clip_merges_of(folder))
    source, p = folder.source(weight_files(folder.path)), request.precision

    def modules(image: bool) -> nn.Module:
        """One of the halves, the whole checkpoint checked."""
        w = load_folder(folder.path)
        with w.checking_only():
            _ = clip.text_tower(w, config, p, PREFIX) if image else Detector(w, config, pre, p)
        module = Detector(w, config, pre, p) if image else clip.text_tower(w, config, p, PREFIX)
        finish(w, config)
        return module

    yield clip_text_job(
        "owlvit.text",
        modules(image=False),
        config.projection,
        config.context,
        source,
        config.official,
        cleaning="hf_fast",
        pad=0,
    )
    patches = config.side**2
    # A picture of the published sizes keeps a processor's cores busy for half a minute; batches are for GPUs.
    large = config.vision.width * patches > 2**20 and p.compute == torch.float32
    yield GraphJob(
        roles=["owlvit.image"],
        kind="grounding",
        module=modules(image=True),
        inputs=[
            IoSpec("pixels", pre.geometry["dtype"], (config.image, config.image, 3)),
            IoSpec("queries", "f32", (-1, config.projection)),
        ],
        outputs=[IoSpec("logits", "f32", (patches, -1)), IoSpec("boxes", "f32", (patches, 4))],
        example=probe(config, 2, 3, 0),
        probes=[probe(config, 1, 1, 1)] if large else [probe(config, 1, 1, 1), probe(config, 2, 5, 2)],
        source=source,
        official=config.official,
        geometry=pre.geometry,
        max_batch=1 if large else 4,
        looseness=LOOSENESS,
    )
