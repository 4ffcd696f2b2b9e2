"""DINO ViT-S/16 in Hugging Face layout."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from . import layouts, preprocess
from .errors import ExportError
from .jobs import GraphJob, Request, embedding_image_job
from .nn import ACTIVATIONS, LayerNorm, Normalise, VisionTransformer, normalised
from .weights import Weights, load_folder, weight_files

HUB_ID = "facebook/dino-vits16"
PUBLISHED = (384, 12, 16)

# What transformers assumes for a value that config.json leaves out.
DEFAULTS = dict(
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    image_size=224,
    patch_size=16,
    num_channels=3,
    qkv_bias=True,
)


class DinoTower(nn.Module):
    """Pixels → L2-normalised class token after the final norm."""

    def __init__(self, normalise: Normalise, body: VisionTransformer, norm: LayerNorm):
        super().__init__()
        self.normalise, self.body, self.norm = normalise, body, norm

    def forward(self, pixels: Tensor) -> Tensor:
        return normalised(self.norm(self.body.class_token(self.normalise(pixels))))


def load(w: Weights, config: dict, pre: preprocess.Preprocess, precision) -> DinoTower:
    width, heads, eps, patch = (
        config[k] for k in ("hidden_size", "num_attention_heads", "layer_norm_eps", "patch_size")
    )
    tokens = (config["image_size"] // patch) ** 2 + 1
    body = VisionTransformer(
        patch=w.take("embeddings.patch_embeddings.projection.weight", width, 3, patch, patch),
        patch_bias=w.take("embeddings.patch_embeddings.projection.bias", width),
        cls=w.take("embeddings.cls_token", 1, 1, width),
        position=w.take("embeddings.position_embeddings", 1, tokens, width),
        norm_pre=None,
        blocks=[
            layouts.hf_vit_block(
                w, f"encoder.layer.{i}", width, config["intermediate_size"], heads, config["hidden_act"], eps, precision
            )
            for i in range(config["num_hidden_layers"])
        ],
        precision=precision,
    )
    tower = DinoTower(Normalise(pre.mean, pre.std), body, layouts.norm(w, "layernorm", width, eps))
    w.finish(r"pooler\..*")  # not used by the score
    return tower


def graphs(request: Request) -> Iterator[GraphJob]:
    """dino: cosine of class tokens."""
    folder = request.checkpoints.folder(HUB_ID, ("config.json", "preprocessor_config.json"))
    config, where = DEFAULTS | folder.json("config.json"), folder.path / "config.json"
    if config["hidden_act"] not in ACTIVATIONS or not config["qkv_bias"] or config["num_channels"] != 3:
        raise ExportError(f"{where}: only colour pictures, qkv_bias and one of {', '.join(ACTIVATIONS)} are supported")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise ExportError(f"{where}: {config['num_attention_heads']} heads do not divide {config['hidden_size']}")
    pre = preprocess.read(folder)
    if (pre.height, pre.width) != (config["image_size"],) * 2:
        raise ExportError(f"{where}: pictures of {pre.height}×{pre.width} for a model of {config['image_size']}")
    source = folder.source(weight_files(folder.path))
    official = (config["hidden_size"], config["num_hidden_layers"], config["patch_size"]) == PUBLISHED
    tower = load(load_folder(folder.path), config, pre, request.precision)
    yield embedding_image_job(["dino.image"], tower, config["hidden_size"], pre.geometry, source, official)
