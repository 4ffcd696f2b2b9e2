"""EGTR's random checkpoint, in the layout of its training's folder."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import egtr
from .preprocess import IMAGENET_MEAN, IMAGENET_STD
from .random_specs import linear_spec, norm_spec
from .resnet import EXPANSION, RESNET_50

if TYPE_CHECKING:
    from .random_checkpoints import Maker, Sizes

Spec = dict[str, tuple[int, ...]]

# Of matrices, where it is not 1: one class stands out of 150, and where a point lies depends little on the token, as
# trained ones do; much would let errors of rounding grow from layer to layer.
GAINS = {"class_embed": 2.0, "sampling_offsets": 0.3}

# Added to the logits of classes. Without it a random model sees no people, and every relation's score is nearly 0.
FREQUENT = {
    ("man", "person", "woman"): 5.0,
    ("cat", "coat", "cup", "dog", "flag", "table", "tower", "tree", "zebra"): 5.0,
}


def make(maker: Maker) -> None:
    """As a training leaves it: the configuration beside what Lightning writes."""
    s, (classes, predicates) = maker.sizes, egtr.VISUAL_GENOME
    maker.json(
        dict(
            model_type="deformable_detr",
            architecture="SenseTime/deformable-detr",
            backbone="resnet50",
            num_queries=s.egtr_queries,
            d_model=s.egtr_width,
            encoder_layers=s.egtr_layers,
            decoder_layers=s.egtr_layers,
            encoder_ffn_dim=4 * s.egtr_width,
            decoder_ffn_dim=4 * s.egtr_width,
            encoder_attention_heads=s.egtr_heads,
            decoder_attention_heads=s.egtr_heads,
            id2label={str(i): f"LABEL_{i}" for i in range(classes)},
            label2id={f"LABEL_{i}": i for i in range(classes)},
            num_rel_labels=predicates,
            use_freq_bias=True,
            freq_bias_eps=1e-12,
            logit_adjustment=False,
        ),
        "files",
        egtr.FOLDER,
        "config.json",
    )
    if (s.egtr_shortest, s.egtr_longest) != (800, 1333):
        size = dict(size=s.egtr_shortest, max_size=s.egtr_longest)
        maker.json(
            dict(feature_extractor_type="DetrFeatureExtractor", image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD, **size),
            "files",
            egtr.FOLDER,
            "preprocessor_config.json",
        )
    state = {name: tensor(maker, name, shape) for name, shape in spec(s).items()}
    for name in state:
        # One tensor under many names.
        if match := re.fullmatch(r"(model\.(?:class|bbox)_embed)\.\d+(\..*)", name):
            state[name] = state[f"{match[1]}.0{match[2]}"]
    lightning = dict(epoch=24, global_step=0, state_dict=state, callbacks={}, optimizer_states=[], lr_schedulers=[])
    torch.save(lightning, maker.file("files", egtr.FOLDER, "checkpoints", "epoch=24-validation_loss=0.00.ckpt"))


def tensor(maker: Maker, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Gains by which classes and predicates stand out, and the points of attention lie some places apart."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1000)
    if maker.constant:
        return maker.tensor(name, name, shape)
    leaf = name.rsplit(".", 1)[-1]
    if name == "model.triplet_dist":
        return triplet_table(maker, *shape)
    values = maker.normal(f"egtr:{name}", *shape)
    if name == "model.rel_dist":
        values = np.exp(values) / np.exp(values).sum()
    elif len(shape) == 4:
        if shape[1] > 3:
            # Without a part that all inputs share, which after a ReLU would be most of every output.
            values -= values.mean(axis=(1, 2, 3), keepdims=True)
        values *= (2 / np.prod(shape[1:])) ** 0.5
    elif leaf == "running_var":
        values = np.exp(0.2 * values)
    elif leaf == "weight" and len(shape) == 1:
        values = 1 + 0.2 * values
    elif name.endswith("sampling_offsets.bias"):
        values = 2 * values
    elif name.endswith(("level_embed", "query_position_embeddings.weight")):
        pass
    elif leaf == "weight":
        gain = next((g for part, g in GAINS.items() if part in name), 1.0)
        values *= gain / shape[1] ** 0.5
    else:
        values = 0.1 * values
    if re.fullmatch(r"model\.class_embed\.\d+\.bias", name):
        values += frequent()
    return torch.from_numpy(np.asarray(values).astype(np.float16).astype(np.float32))


def frequent() -> np.ndarray:
    """What trained weights say before they have seen a picture: most are of people, some things are common."""
    names = json.loads(egtr.LABELS.read_text())["classes"]
    return np.array([next((bias for of, bias in FREQUENT.items() if name in of), 0.0) for name in names])


def triplet_table(maker: Maker, subjects: int, objects: int, predicates: int) -> torch.Tensor:
    """As training counts it: logarithms of how often, far below 0 for never, and all 0 for a pair never seen.

    Few rows differ, so that a graph that keeps equal rows once is small.
    """
    few = maker.normal("egtr:triplet_dist", 64, predicates)
    few = np.where(few > 1, few, -20 * (few < -2))
    few[::2] = 0
    rows = few[(np.arange(subjects * objects) * 7919) % len(few)]
    return torch.from_numpy(rows.astype(np.float16).astype(np.float32)).reshape(subjects, objects, predicates)


def spec(s: Sizes) -> Spec:
    """The keys of a trained EGTR's state dict, with the prefix that Lightning gives them."""
    d, base = s.egtr_width, 64 // s.egtr_divisor
    levels = points = 4
    classes, predicates = egtr.VISUAL_GENOME
    model = "model.model"
    found: Spec = {}

    def batch_norm(at: str, width: int, counted: bool = False) -> None:
        found.update({f"{at}.{n}": (width,) for n in ("weight", "bias", "running_mean", "running_var")})
        if counted:  # frozen ones do not count, and those in a `downsample` the original forgets to freeze
            found[f"{at}.num_batches_tracked"] = ()

    trunk, into = f"{model}.backbone.conv_encoder.model", base
    found[f"{trunk}.conv1.weight"] = (base, 3, 7, 7)
    batch_norm(f"{trunk}.bn1", base)
    for stage, depth in enumerate(RESNET_50[0]):
        inner = base << stage
        for i in range(depth):
            at = f"{trunk}.layer{stage + 1}.{i}"
            convs = ((inner, into, 1), (inner, inner, 3), (EXPANSION * inner, inner, 1))
            for n, (out, a, kernel) in enumerate(convs, 1):
                found[f"{at}.conv{n}.weight"] = (out, a, kernel, kernel)
                batch_norm(f"{at}.bn{n}", out)
            if i == 0:
                found[f"{at}.downsample.0.weight"] = (EXPANSION * inner, into, 1, 1)
                batch_norm(f"{at}.downsample.1", EXPANSION * inner, counted=True)
            into = EXPANSION * inner
    for i, (a, kernel) in enumerate(((into // 4, 1), (into // 2, 1), (into, 1), (into, 3))):
        found[f"{model}.input_proj.{i}.0.weight"] = (d, a, kernel, kernel)
        found[f"{model}.input_proj.{i}.0.bias"] = (d,)
        found |= norm_spec(f"{model}.input_proj.{i}.1", d)

    def deformable(at: str) -> Spec:
        spots = s.egtr_heads * levels * points
        return {
            **linear_spec(f"{at}.sampling_offsets", 2 * spots, d),
            **linear_spec(f"{at}.attention_weights", spots, d),
            **linear_spec(f"{at}.value_proj", d, d),
            **linear_spec(f"{at}.output_proj", d, d),
        }

    def layer(at: str, attention: Spec, norms: Sequence[str]) -> Spec:
        own = attention | linear_spec(f"{at}.fc1", 4 * d, d) | linear_spec(f"{at}.fc2", d, 4 * d)
        for name in (*norms, "final_layer_norm"):
            own |= norm_spec(f"{at}.{name}", d)
        return own

    found[f"{model}.level_embed"] = (levels, d)
    found[f"{model}.query_position_embeddings.weight"] = (s.egtr_queries, 2 * d)
    found |= linear_spec(f"{model}.reference_points", 2, d)
    for i in range(s.egtr_layers):
        at = f"{model}.encoder.layers.{i}"
        found |= layer(at, deformable(f"{at}.self_attn"), ["self_attn_layer_norm"])
        at = f"{model}.decoder.layers.{i}"
        own = {k: v for p in "qkv" for k, v in linear_spec(f"{at}.self_attn.{p}_proj", d, d).items()}
        own |= linear_spec(f"{at}.self_attn.out_proj", d, d) | deformable(f"{at}.encoder_attn")
        found |= layer(at, own, ["self_attn_layer_norm", "encoder_attn_layer_norm"])
        found |= linear_spec(f"model.class_embed.{i}", classes, d) | head(f"model.bbox_embed.{i}", d, d, 4)
        found |= linear_spec(f"model.proj_q.{i}", d, d) | linear_spec(f"model.proj_k.{i}", d, d)
    found |= linear_spec("model.final_sub_proj", d, d) | linear_spec("model.final_obj_proj", d, d)
    found |= linear_spec("model.rel_predictor_gate", 1, 2 * d)
    found |= head("model.rel_predictor", 2 * d, d, predicates)
    found |= head("model.connectivity_layer", 2 * d, d, 1)
    found["model.triplet_dist"] = (classes + 1, classes + 1, predicates)
    found["model.rel_dist"] = (predicates,)
    return found


def head(at: str, into: int, width: int, out: int) -> Spec:
    """Three layers, as Deformable DETR has them for boxes."""
    return {
        **linear_spec(f"{at}.layers.0", width, into),
        **linear_spec(f"{at}.layers.1", width, width),
        **linear_spec(f"{at}.layers.2", out, width),
    }
