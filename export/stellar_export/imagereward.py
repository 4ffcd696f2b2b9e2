"""ImageReward: BLIP's image tower, BERT with cross-attention to its tokens, and a reward head."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import aesthetic, layouts, preprocess, vocabulary
from .checkpoints import File
from .errors import ExportError
from .jobs import GraphJob, Request, image_job
from .manifest import IoSpec, Source
from .nn import (
    Attentive,
    Embedding,
    LayerNorm,
    Linear,
    Normalise,
    Precision,
    VisionTransformer,
    activation,
    attend,
    stored,
)
from .onnx_graph import Probe
from .preprocess import CLIP_MEAN, CLIP_STD
from .weights import POSITION_IDS, Weights, load_state_dict

REPO = "THUDM/ImageReward"
FILE, CONFIG = "ImageReward.pt", "med_config.json"
SIZES = "imagereward_tiny.json"
BERT = "bert-base-uncased"

VIT = dict(img_size=224, patch_size=16, embed_dim=1024, depth=24, num_heads=16)
VIT_EPS = 1e-6
CONTEXT = 35

# ImageReward.py: the reward is reported in standard deviations of the training set.
MEAN, STD = 0.16717362830052426, 1.0333394966054072
LOOSENESS = 10  # tokens and rewards are no unit vectors: a hundred thousand values of up to ten
MASKED = -10000.0  # what BERT adds where there is padding


class ImageTower(nn.Module):
    """Pixels → all tokens after the final norm, `f32[N, 1+patches, width]`."""

    def __init__(self, normalise: Normalise, body: VisionTransformer, norm: LayerNorm):
        super().__init__()
        self.normalise, self.body, self.norm = normalise, body, norm

    def forward(self, pixels: Tensor) -> Tensor:
        return self.norm(self.body(self.normalise(pixels))).float()


class Attention(Attentive):
    """BERT's attention with its residual and norm; keys and values from the text itself or from image tokens."""

    def __init__(self, query: Linear, key_value: Linear, out: Linear, norm: LayerNorm, heads: int):
        super().__init__()
        self.query, self.key_value, self.out, self.norm, self.heads = query, key_value, out, norm, heads

    def forward(self, x: Tensor, others: Tensor, mask: Tensor | None) -> Tensor:
        compute = self.query.compute
        k, v = self.key_value(others.to(compute)).chunk(2, dim=-1)
        mixed = attend(self.query(x.to(compute)), k, v, self.heads, self.form, mask)
        return self.norm(self.out(mixed).float() + x)


class Layer(nn.Module):
    """Self-attention, cross-attention, feed-forward, each followed by its norm."""

    def __init__(self, own: Attention, cross: Attention, up: Linear, down: Linear, norm: LayerNorm):
        super().__init__()
        self.own, self.cross, self.up, self.down, self.norm = own, cross, up, down, norm

    def forward(self, x: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        x = self.cross(self.own(x, x, mask), image, None)
        return self.norm(self.down(activation("gelu", self.up(x.to(self.up.compute)))).float() + x)


class Reward(Attentive):
    """Image tokens and a padded prompt → the normalised reward, `f32[N]`."""

    def __init__(
        self,
        tokens: Embedding,
        position: Tensor,
        norm: LayerNorm,
        layers: Sequence[Layer],
        weight: Tensor,
        bias: Tensor,
        precision: Precision,
    ):
        super().__init__()
        self.compute = precision.compute
        self.tokens = tokens
        self.position = stored(position[:CONTEXT], precision)
        self.norm = norm
        self.layers = nn.ModuleList(layers)
        self.weight = nn.Parameter((weight / STD).float(), requires_grad=False)
        self.bias = nn.Parameter(((bias - MEAN) / STD).float(), requires_grad=False)

    def forward(self, image_tokens: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        image = image_tokens.to(self.compute)
        mask = (1.0 - attention_mask.float())[:, None, None, :] * MASKED
        mask = mask.to(self.compute).expand(-1, -1, input_ids.shape[1], -1)
        x = self.norm((self.tokens(input_ids) + self.position.to(self.compute)).float())
        for layer in self.layers:
            x = layer(x, image, mask)
        return (x[:, 0] * self.weight).sum(dim=-1) + self.bias


def image_tower(w: Weights, sizes: dict, precision: Precision) -> ImageTower:
    at, width, patch = "blip.visual_encoder", sizes["embed_dim"], sizes["patch_size"]
    body = VisionTransformer(
        patch=w.take(f"{at}.patch_embed.proj.weight", width, 3, patch, patch),
        patch_bias=w.take(f"{at}.patch_embed.proj.bias", width),
        cls=w.take(f"{at}.cls_token", 1, 1, width),
        position=w.take(f"{at}.pos_embed", 1, (sizes["img_size"] // patch) ** 2 + 1, width),
        norm_pre=None,
        blocks=[
            layouts.timm_block(w, f"{at}.blocks.{i}", width, 4 * width, sizes["num_heads"], "gelu", VIT_EPS, precision)
            for i in range(sizes["depth"])
        ],
        precision=precision,
    )
    return ImageTower(Normalise(CLIP_MEAN, CLIP_STD), body, layouts.norm(w, f"{at}.norm", width, VIT_EPS))


def reward(w: Weights, config: dict, image_width: int, precision: Precision) -> Reward:
    at, width, eps = "blip.text_encoder", config["hidden_size"], config["layer_norm_eps"]
    heads, mlp = config["num_attention_heads"], config["intermediate_size"]

    def attention(name: str, others: int) -> Attention:
        key, value = (
            (w.take(f"{name}.self.{p}.weight", width, others), w.take(f"{name}.self.{p}.bias", width))
            for p in ("key", "value")
        )
        return Attention(
            layouts.linear(w, f"{name}.self.query", width, width, precision),
            Linear(torch.cat([key[0], value[0]]), torch.cat([key[1], value[1]]), precision),
            layouts.linear(w, f"{name}.output.dense", width, width, precision),
            layouts.norm(w, f"{name}.output.LayerNorm", width, eps),
            heads,
        )

    def layer(name: str) -> Layer:
        return Layer(
            attention(f"{name}.attention", width),
            attention(f"{name}.crossattention", image_width),
            layouts.linear(w, f"{name}.intermediate.dense", mlp, width, precision),
            layouts.linear(w, f"{name}.output.dense", width, mlp, precision),
            layouts.norm(w, f"{name}.output.LayerNorm", width, eps),
        )

    tokens = Embedding(w.take(f"{at}.embeddings.word_embeddings.weight", config["vocab_size"], width), precision)
    position = w.take(f"{at}.embeddings.position_embeddings.weight", config["max_position_embeddings"], width)
    norm = layouts.norm(w, f"{at}.embeddings.LayerNorm", width, eps)
    layers = [layer(f"{at}.encoder.layer.{i}") for i in range(config["num_hidden_layers"])]
    weight, bias = aesthetic.fold(w, width, at="mlp.layers")
    return Reward(tokens, position, norm, layers, weight, bias, precision)


def finish(w: Weights) -> None:
    """The projections of BLIP's contrastive loss are in the file and not used."""
    w.finish(POSITION_IDS, r"blip\.(vision|text)_proj\.(weight|bias)")


def read_config(file: File) -> dict:
    config = json.loads(file.path.read_text())
    for key, value in (("hidden_act", "gelu"), ("position_embedding_type", "absolute"), ("add_cross_attention", True)):
        if config.get(key, value) != value:
            raise ExportError(f"{file.path}: {key} = {config[key]!r} is not supported, only {value!r}")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise ExportError(f"{file.path}: {config['num_attention_heads']} heads do not divide {config['hidden_size']}")
    if config["max_position_embeddings"] < CONTEXT:
        raise ExportError(f"{file.path}: {config['max_position_embeddings']} positions, prompts have up to {CONTEXT}")
    return config


def score_probe(batch: int, tokens: int, width: int, seed: int) -> Probe:
    """Image tokens of unit variance and prompts of different lengths."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1000, vocabulary.BERT_TOKENS, (batch, CONTEXT))
    lengths = np.array([CONTEXT, 2, 11])[np.arange(batch) % 3]
    mask = np.arange(CONTEXT)[None, :] < lengths[:, None]
    ids[:, 0], ids[np.arange(batch), lengths - 1] = 101, 102
    return Probe(
        {
            "image_tokens": rng.standard_normal((batch, tokens, width)).astype(np.float32),
            "input_ids": (ids * mask).astype(np.int64),
            "attention_mask": mask.astype(np.int64),
        }
    )


def graphs(request: Request) -> Iterator[GraphJob]:
    """image_reward: image tokens once a picture, the reward once a pair."""
    file = request.checkpoints.file(FILE, REPO)
    config = read_config(request.checkpoints.file(CONFIG, REPO))
    bert = request.checkpoints.folder(BERT, ("vocab.txt",), weights=False)
    request.needs_tokenizer("bert", vocabulary.bert_vocabulary_of(bert))
    sizes = dict(VIT)
    if path := request.checkpoints.local("files", SIZES):
        sizes |= json.loads(Path(path).read_text())["vit"]
    width, tokens = sizes["embed_dim"], (sizes["img_size"] // sizes["patch_size"]) ** 2 + 1
    source: Source = file.source()
    official = sizes == VIT and (config["hidden_size"], config["num_hidden_layers"]) == (768, 12)

    def image_module() -> ImageTower:
        w = load_state_dict(file.path)
        with w.checking_only():
            reward(w, config, width, request.precision)
        module = image_tower(w, sizes, request.precision)
        finish(w)
        return module

    def score_module() -> Reward:
        w = load_state_dict(file.path)
        with w.checking_only():
            image_tower(w, sizes, request.precision)
        module = reward(w, config, width, request.precision)
        finish(w)
        return module

    geometry = preprocess.shortest_edge(sizes["img_size"], crop="half_even")
    image = image_job(
        ["image_reward.image"], image_module(), [IoSpec("tokens", "f32", (tokens, width))], geometry, source, official
    )
    image.looseness = LOOSENESS
    yield image
    yield GraphJob(
        roles=["image_reward.score"],
        kind="joint",
        module=score_module(),
        inputs=[
            IoSpec("image_tokens", "f32", (tokens, width)),
            IoSpec("input_ids", "i64", (CONTEXT,)),
            IoSpec("attention_mask", "i64", (CONTEXT,)),
        ],
        outputs=[IoSpec("reward", "f32", ())],
        example=score_probe(2, tokens, width, 0),
        probes=[score_probe(1, tokens, width, 1), score_probe(3, tokens, width, 2)],
        source=source,
        official=official,
        text=dict(tokenizer="bert", cleaning="bert", context=CONTEXT, pad=0),
        looseness=LOOSENESS,
    )
