"""CLIP models in Hugging Face layout: laion, OpenAI, DataComp and MetaCLIP towers, PickScore."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from . import layouts
from .checkpoints import Folder
from .errors import ExportError
from .nn import (
    ACTIVATIONS,
    ClipImageTower,
    ClipTextTower,
    Embedding,
    Linear,
    Normalise,
    Precision,
    VisionTransformer,
)
from .preprocess import Preprocess
from .weights import POSITION_IDS, Weights

# What transformers 4.33 assumes for a value that config.json leaves out.
TEXT_DEFAULTS = dict(
    vocab_size=49408,
    hidden_size=512,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=8,
    max_position_embeddings=77,
    hidden_act="quick_gelu",
    layer_norm_eps=1e-5,
)
VISION_DEFAULTS = dict(
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    image_size=224,
    patch_size=32,
    hidden_act="quick_gelu",
    layer_norm_eps=1e-5,
)


@dataclass(frozen=True)
class Tower:
    """The sizes of one tower."""

    width: int
    mlp: int
    layers: int
    heads: int
    act: str
    eps: float


@dataclass(frozen=True)
class ClipConfig:
    """The sizes of a CLIP model."""

    vision: Tower
    image: int
    patch: int
    text: Tower
    vocabulary: int
    context: int
    projection: int


def section(config: dict, name: str, defaults: dict) -> dict:
    """The sizes of one tower in a CLIP's configuration."""
    merged = {**defaults, **(config.get(f"{name}_config") or {})}
    # A "…_config_dict" of older files overrides the section, its left-out values with the defaults, as in transformers.
    older = config.get(f"{name}_config_dict")
    return {**merged, **defaults, **older} if older is not None else merged


def tower(sizes: dict, where: str) -> Tower:
    found = Tower(
        sizes["hidden_size"],
        sizes["intermediate_size"],
        sizes["num_hidden_layers"],
        sizes["num_attention_heads"],
        sizes["hidden_act"],
        sizes["layer_norm_eps"],
    )
    if found.act not in ACTIVATIONS:
        raise ExportError(f"{where}: hidden_act {found.act!r} is not one of {', '.join(ACTIVATIONS)}")
    if found.width % found.heads:
        raise ExportError(f"{where}: {found.heads} heads do not divide a width of {found.width}")
    return found


def read_config(folder: Folder) -> ClipConfig:
    """Reads `config.json` as transformers 4.33 does."""
    config, where = folder.json("config.json"), f"{folder.path / 'config.json'}"
    if config.get("model_type", "clip") != "clip":
        raise ExportError(f"{where}: model_type is {config['model_type']!r}, expected 'clip'")
    vision = section(config, "vision", VISION_DEFAULTS)
    text = section(config, "text", TEXT_DEFAULTS)
    return ClipConfig(
        vision=tower(vision, where),
        image=vision["image_size"],
        patch=vision["patch_size"],
        text=tower(text, where),
        vocabulary=text["vocab_size"],
        context=text["max_position_embeddings"],
        projection=config.get("projection_dim", 512),
    )


def vision_body(w: Weights, v: Tower, image: int, patch: int, precision: Precision) -> VisionTransformer:
    """Takes the vision half up to its last layer; pictures are `image` wide, patches `patch`."""
    at = "vision_model"
    return VisionTransformer(
        patch=w.take(f"{at}.embeddings.patch_embedding.weight", v.width, 3, patch, patch),
        patch_bias=None,
        cls=w.take(f"{at}.embeddings.class_embedding", v.width),
        position=w.take(f"{at}.embeddings.position_embedding.weight", (image // patch) ** 2 + 1, v.width),
        norm_pre=layouts.norm(w, f"{at}.pre_layrnorm", v.width, v.eps),  # sic
        blocks=[
            layouts.hf_clip_block(w, f"{at}.encoder.layers.{i}", v.width, v.mlp, v.heads, v.act, v.eps, precision)
            for i in range(v.layers)
        ],
        precision=precision,
    )


def image_tower(w: Weights, c: ClipConfig, pre: Preprocess, precision: Precision) -> ClipImageTower:
    """Takes the vision half of a checkpoint."""
    if (pre.height, pre.width) != (c.image, c.image):
        raise ExportError(f"{w.origin}: pictures of {pre.height}×{pre.width} for a tower of {c.image}×{c.image}")
    v = c.vision
    body = vision_body(w, v, c.image, c.patch, precision)
    projection = Linear(w.take("visual_projection.weight", c.projection, v.width), None, precision)
    return ClipImageTower(
        Normalise(pre.mean, pre.std), body, layouts.norm(w, "vision_model.post_layernorm", v.width, v.eps), projection
    )


def text_tower(w: Weights, c: ClipConfig, precision: Precision, prefix: str = "") -> ClipTextTower:
    """Takes the text half of a checkpoint, whose keys begin with `prefix`."""
    t, at = c.text, f"{prefix}text_model"
    return ClipTextTower(
        tokens=Embedding(w.take(f"{at}.embeddings.token_embedding.weight", c.vocabulary, t.width), precision),
        position=w.take(f"{at}.embeddings.position_embedding.weight", c.context, t.width),
        blocks=[
            layouts.hf_clip_block(w, f"{at}.encoder.layers.{i}", t.width, t.mlp, t.heads, t.act, t.eps, precision)
            for i in range(t.layers)
        ],
        norm=layouts.norm(w, f"{at}.final_layer_norm", t.width, t.eps),
        projection=Linear(w.take(f"{prefix}text_projection.weight", c.projection, t.width), None, precision),
        precision=precision,
    )


def logit_scale(w: Weights) -> Tensor:
    """What the model multiplies its cosines with: the exponential of the learned temperature."""
    return w.take("logit_scale").exp()


class ScaledTextTower(nn.Module):
    """A text tower that also tells the model's logit scale, for scores that are published with it."""

    def __init__(self, tower: ClipTextTower, scale: Tensor):
        super().__init__()
        self.tower = tower
        self.register_buffer("scale", scale.reshape(1))

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.tower(input_ids), self.scale.expand(input_ids.shape[0])


def finish(w: Weights) -> None:
    """After both towers were taken: only the temperature may be left, which few scores use."""
    w.finish(POSITION_IDS, "logit_scale")


# (vision width, layers, patch, text width, layers) of the published models: B/32, B/16, L/14, H/14, g/14, bigG/14.
PUBLISHED = {
    (768, 12, 32, 512, 12),
    (768, 12, 16, 512, 12),
    (1024, 24, 14, 768, 12),
    (1280, 32, 14, 1024, 24),
    (1408, 40, 14, 1024, 24),
    (1664, 48, 14, 1280, 32),
}


def is_official(c: ClipConfig) -> bool:
    """Whether the sizes are those of a published model."""
    return (c.vision.width, c.vision.layers, c.patch, c.text.width, c.text.layers) in PUBLISHED
