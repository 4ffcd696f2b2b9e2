"""Random checkpoints in the official layouts: for tests, benchmarks and the demo pack.

They go through the same loading code as official ones. All values are float16 numbers from numpy's generator, whose
stream does not depend on the machine.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from . import aesthetic, dino, dreamsim, faces, hps, imagereward, owlvit, random_egtr, vocabulary
from .checkpoints import MARKER
from .clip_models import CLIP_L, DEFAULT_CLIP, PICK_SCORE, PICK_SCORE_PROCESSOR
from .drawn_world.weights import Trained
from .preprocess import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from .random_specs import (
    OWL_CONTEXT,
    OWL_SIDE,
    affine_spec,
    hf_clip_spec,
    hf_vit_spec,
    image_reward_spec,
    linear_spec,
    norm_spec,
    openai_clip_spec,
    owlvit_spec,
    timm_spec,
)

# What constant weights are: no number that an optimiser would take a graph apart for.
CONSTANT = 0.02


@dataclass(frozen=True)
class Sizes:
    """The sizes of random models. What a layout fixes (patch and activation of a model, 768 of the L/14) stays."""

    vision_width: int = 32
    vision_layers: int = 2
    vision_heads: int = 2
    text_width: int = 32
    text_layers: int = 2
    text_heads: int = 2
    projection: int = 32
    dreamsim_width: int = 0
    """Width of DreamSim's three towers of twelve layers; 0: `vision_width`."""
    face_divisor: int = 8
    """By how much InceptionResnetV1 is slimmer than published, but for its embedding; 1: not at all."""
    distinct_tokens: int = 0
    """How many different rows a token embedding has; 0: each token its own. Few make a small pack."""
    owl_patch: int = 14
    """Patch side of OWL-ViT, whose pictures are 840 wide: 3,600 patches as published, a quarter of them with 28."""
    egtr_width: int = 32
    """Of EGTR's transformer; a multiple of 32. 256 as published."""
    egtr_layers: int = 2
    """Of EGTR's encoder and of its decoder; 6 as published."""
    egtr_heads: int = 4
    """Of EGTR's attention; 8 as published."""
    egtr_queries: int = 20
    """How many objects EGTR says something about; 200 as published."""
    egtr_divisor: int = 16
    """By how much EGTR's ResNet-50 is slimmer than published; 1: not at all."""
    egtr_shortest: int = 160
    """EGTR's pictures: their shortest edge, 800 as published."""
    egtr_longest: int = 266
    """The longest edge that they may have, 1333 as published."""
    vision_mlp: int = 0
    """Inner width of the layers of the image tower of `clip`; 0: four times `vision_width`."""
    patch: int = 0
    """Patch side of the CLIP model of `clip`; 0: that of the published model."""
    tower_patch: int = 0
    """Patch side of the other CLIP models; 0: 14 as published."""
    act: str = ""
    """Activation of the CLIP model of `clip`; empty: that of the published model."""


class Maker:
    """Draws weights whose outputs spread: attention that is not uniform, activations that do not fade with depth.

    With `constant` it draws none: weights are one number, of which a file keeps one copy.
    """

    def __init__(self, root: Path, seed: int, sizes: Sizes, constant: bool = False, trained: Path | None = None):
        self.root, self.seed, self.sizes, self.constant = root, seed, sizes, constant
        self.trained = Trained.of(trained)

    def normal(self, tag: str, *shape: int) -> np.ndarray:
        """Standard normal values that depend on the seed and the tag alone."""
        if self.constant:
            return np.full(shape, CONSTANT)
        return np.random.Generator(np.random.PCG64([self.seed, zlib.crc32(tag.encode())])).standard_normal(shape)

    def state(self, model: str, spec: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
        """A tensor for each name, distributed by what the name says it is, or trained."""
        state = {name: self.tensor(f"{model}:{name}", name, shape) for name, shape in spec.items()}
        return self.trained.over(model, state)

    def tensor(self, tag: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        leaf, low = name.rsplit(".", 1)[-1], name.lower()
        if self.constant:
            if not is_table(name):
                return torch.tensor(CONSTANT).expand(shape)
            # Its rows differ, or the exporter would keep one of them and a list of numbers of rows.
            return torch.arange(int(np.prod(shape[:-1])), dtype=torch.float32).reshape(*shape[:-1], 1).expand(shape)
        if leaf == "logit_scale":
            values = np.full(shape, 4.6052)
        elif leaf == "weight" and len(shape) == 1:  # of a norm
            values = 1 + 0.2 * self.normal(tag, *shape)
        elif leaf in ("bias", "in_proj_bias"):
            values = 0.1 * self.normal(tag, *shape)
        elif is_token_table(name):
            values = 0.5 * self.table(tag, *shape)
        elif ("embedding" in low and "patch" not in low) or leaf in ("cls_token", "pos_embed"):
            values = 0.5 * self.normal(tag, *shape)
        elif leaf in ("proj", "text_projection"):  # OpenAI's [in, out]
            values = self.normal(tag, *shape) * 1.3 / shape[0] ** 0.5
        else:
            fan_in = int(np.prod(shape[1:]))
            # The reward is no cosine: at the others' gain its errors in half precision would be several percent.
            calm = "blip.text_encoder" in low or low.startswith("mlp.layers")
            values = self.normal(tag, *shape) * (1.0 if calm else 1.3) / fan_in**0.5
            if not calm and any(s in low for s in ("q_proj", "k_proj", "query", "key")):
                values *= 1.5
            elif leaf == "in_proj_weight" or "qkv" in low:
                values[: 2 * shape[0] // 3] *= 1.5
        return torch.from_numpy(np.asarray(values).astype(np.float16).astype(np.float32))

    def table(self, tag: str, rows: int, width: int) -> np.ndarray:
        few = self.sizes.distinct_tokens
        if not few or few >= rows:
            return self.normal(tag, rows, width)
        return self.normal(tag, few, width)[(np.arange(rows) * 7919) % few]

    def file(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def json(self, value: object, *parts: str) -> None:
        self.file(*parts).write_text(json.dumps(value, indent=1) + "\n")

    def safetensors(self, state: Mapping[str, torch.Tensor], *parts: str) -> None:
        save_file({k: v.contiguous() for k, v in state.items()}, self.file(*parts), metadata={"format": "pt"})

    def weights(self, state: Mapping[str, torch.Tensor], hub_id: str) -> None:
        """A model's weights in Hugging Face layout; of the two kinds of files only PyTorch's keeps repeated values once."""
        if self.constant:
            torch.save(state, self.file("hub", hub_id, "pytorch_model.bin"))
        else:
            self.safetensors(state, "hub", hub_id, "model.safetensors")

    # ---- CLIP in Hugging Face layout

    def clip(self, hub_id: str, patch: int, act: str, projection: int) -> None:
        s = self.sizes
        self.clip_tokenizer(hub_id)
        self.json(
            dict(
                model_type="clip",
                architectures=["CLIPModel"],
                projection_dim=projection,
                text_config=dict(
                    hidden_size=s.text_width,
                    intermediate_size=4 * s.text_width,
                    num_hidden_layers=s.text_layers,
                    num_attention_heads=s.text_heads,
                    hidden_act=act,
                    projection_dim=projection,
                    vocab_size=vocabulary.CLIP_TOKENS,
                    max_position_embeddings=77,
                    bos_token_id=0,
                    eos_token_id=2,
                    pad_token_id=1,
                ),
                vision_config=dict(
                    hidden_size=s.vision_width,
                    intermediate_size=s.vision_mlp or 4 * s.vision_width,
                    num_hidden_layers=s.vision_layers,
                    num_attention_heads=s.vision_heads,
                    hidden_act=act,
                    projection_dim=projection,
                    image_size=224,
                    patch_size=patch,
                ),
            ),
            "hub",
            hub_id,
            "config.json",
        )
        spec = hf_clip_spec(s, patch, projection)
        self.weights(self.state(hub_id, spec), hub_id)

    def tokenizer_files(self, *parts: str, pad: str = "<|endoftext|>", context: int = 77) -> None:
        """CLIP's tokenizer as transformers saves it, in this folder under the root."""
        merges = vocabulary.clip_merges_of_package()
        special = dict(
            bos_token="<|startoftext|>",
            eos_token="<|endoftext|>",
            unk_token="<|endoftext|>",
            pad_token=pad,
        )
        self.file(*parts, "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
        self.json(vocabulary.clip_vocabulary(merges), *parts, "vocab.json")
        self.json(special, *parts, "special_tokens_map.json")
        self.json(
            dict(tokenizer_class="CLIPTokenizer", model_max_length=context, do_lower_case=True, errors="replace", **special),
            *parts,
            "tokenizer_config.json",
        )

    def clip_tokenizer(
        self, hub_id: str, preprocessor: bool = True, pad: str = "<|endoftext|>", context: int = 77
    ) -> None:
        self.tokenizer_files("hub", hub_id, pad=pad, context=context)
        if preprocessor:
            self.json(
                dict(
                    crop_size=224,
                    do_center_crop=True,
                    do_normalize=True,
                    do_resize=True,
                    feature_extractor_type="CLIPFeatureExtractor",
                    image_mean=CLIP_MEAN,
                    image_std=CLIP_STD,
                    resample=3,
                    size=224,
                ),
                "hub",
                hub_id,
                "preprocessor_config.json",
            )

    # ---- the models by the names that --only uses

    def make_clip(self, hub_id: str = DEFAULT_CLIP) -> None:
        patch = 32 if "patch32" in hub_id or "B-32" in hub_id else 16 if "patch16" in hub_id or "B-16" in hub_id else 14
        act = "quick_gelu" if hub_id.startswith("openai/") else "gelu"
        projection = 768 if hub_id == CLIP_L else self.sizes.projection
        self.clip(hub_id, self.sizes.patch or patch, self.sizes.act or act, projection)

    def make_aesthetic(self) -> None:
        if not (self.root / "hub" / CLIP_L).exists():
            self.clip(CLIP_L, self.sizes.tower_patch or 14, "quick_gelu", 768)
        torch.save(self.state("aesthetic", affine_spec("layers", 768)), self.file("files", aesthetic.FILE))

    def make_hpsv1(self) -> None:
        # OpenAI's layout derives the heads from the width, so there is no model narrower than one head.
        vision, text = (
            -(-n // hps.OPENAI_HEAD) * hps.OPENAI_HEAD for n in (self.sizes.vision_width, self.sizes.text_width)
        )
        state = self.state("hpsv1", openai_clip_spec(self.sizes, vision, text, self.sizes.tower_patch or 14))
        torch.save({"state_dict": state}, self.file("files", hps.HPSV1))

    def make_hpsv2(self, version: str = "v2.0") -> None:
        s = self.sizes
        state = self.state(f"hps{version}", openai_clip_spec(s, s.vision_width, s.text_width, s.tower_patch or 14))
        if not self.constant:  # in half precision numbers of rows would be equal
            state = {k: v.half() for k, v in state.items()}  # as published
        torch.save({"epoch": 0, "name": "random", "state_dict": state}, self.file("files", hps.HPSV2_FILES[version]))
        vision = dict(image_size=224, layers=s.vision_layers, width=s.vision_width, patch_size=s.tower_patch or 14)
        text = dict(context_length=77, vocab_size=vocabulary.CLIP_TOKENS, width=s.text_width, layers=s.text_layers)
        self.json(
            dict(
                embed_dim=s.projection,
                vision_cfg=vision | dict(head_width=s.vision_width // s.vision_heads),
                text_cfg=text | dict(heads=s.text_heads),
            ),
            "files",
            hps.HPSV2_CONFIG,
        )

    def make_pick_score(self) -> None:
        self.clip(PICK_SCORE, self.sizes.tower_patch or 14, "gelu", self.sizes.projection)
        self.clip_tokenizer(PICK_SCORE_PROCESSOR)
        config = (self.root / "hub" / PICK_SCORE / "config.json").read_text()  # the processor's folder needs one too
        self.file("hub", PICK_SCORE_PROCESSOR, "config.json").write_text(config)

    def make_image_reward(self) -> None:
        s, vision = self.sizes, self.sizes.vision_width
        words = self.file("hub", imagereward.BERT, "vocab.txt")
        if not words.is_file():
            vocabulary.write_lines(vocabulary.bert_vocabulary_at_hand(), words)
        tokenizer = dict(do_lower_case=True, model_max_length=512, tokenizer_class="BertTokenizer")
        self.json(tokenizer, "hub", imagereward.BERT, "tokenizer_config.json")
        self.json(dict(model_type="bert", vocab_size=vocabulary.BERT_TOKENS), "hub", imagereward.BERT, "config.json")
        self.json(
            dict(
                model_type="bert",
                architectures=["BertModel"],
                hidden_act="gelu",
                hidden_size=s.text_width,
                intermediate_size=4 * s.text_width,
                num_hidden_layers=s.text_layers,
                num_attention_heads=s.text_heads,
                max_position_embeddings=512,
                type_vocab_size=2,
                vocab_size=vocabulary.BERT_TOKENS + 2,
                layer_norm_eps=1e-12,
                hidden_dropout_prob=0.1,
                attention_probs_dropout_prob=0.1,
                pad_token_id=0,
                encoder_width=vision,
                add_cross_attention=True,
            ),
            "files",
            imagereward.CONFIG,
        )
        vit = dict(img_size=224, patch_size=16, embed_dim=vision, depth=s.vision_layers, num_heads=s.vision_heads)
        self.json(dict(vit=vit, mlp_in=s.text_width), "files", imagereward.SIZES)
        state = self.state("image_reward", image_reward_spec(s))
        state["blip.text_encoder.embeddings.position_ids"] = torch.arange(512)[None]
        torch.save(state, self.file("files", imagereward.FILE))

    def make_dreamsim(self) -> None:
        s = self.sizes
        width, depth = s.dreamsim_width or s.vision_width, max(dreamsim.DINO_LAYERS, s.vision_layers)
        self.json(dict(embed_dim=width, depth=depth, num_heads=s.vision_heads), "files", dreamsim.SIZES)
        vit = timm_spec("", width, depth)
        torch.save(self.state("dreamsim-dino", vit), self.file("files", dreamsim.DINO))
        cache = ("hub", dreamsim.CACHE)
        for branch in dreamsim.BRANCHES:
            state = self.state(
                f"dreamsim-{branch}", vit | norm_spec("pos_drop", width) | {"proj": (width, s.projection)}
            )
            torch.save({"state_dict": state}, self.file(*cache, f"{branch}_vitb16_pretrain.pth.tar"))
        # DINO's training checkpoint, of which dreamsim loads a head that no score uses.
        head = {"mlp.0": (64, width), "mlp.2": (64, 64), "mlp.4": (32, 64)}
        spec = {k: v for name, (out, into) in head.items() for k, v in linear_spec(name, out, into).items()}
        state = self.state("dreamsim-head", spec | {"last_layer.weight": (64, 32)})
        torch.save(
            {"student": {f"module.head.{k}": v for k, v in state.items()}},
            self.file(*cache, "dino_vitb16_pretrain.pth"),
        )
        rank, adapter = 16, {}
        for branch in range(3):
            for block in range(depth):
                at = f"base_model.model.extractor_list.{branch}.model.blocks.{block}.attn.qkv"
                adapter[f"{at}.lora_A.weight"] = torch.from_numpy(
                    self.normal(f"{at}.A", rank, width) * width**-0.5
                ).float()
                adapter[f"{at}.lora_B.weight"] = torch.from_numpy(self.normal(f"{at}.B", 3 * width, rank)).float()
        self.safetensors(adapter, *cache, dreamsim.ADAPTER, "adapter_model.safetensors")
        config = dict(
            peft_type="LORA",
            r=rank,
            lora_alpha=0.5,
            lora_dropout=0.3,
            bias="none",
            target_modules=["qkv"],
            fan_in_fan_out=False,
            modules_to_save=None,
            inference_mode=True,
            base_model_name_or_path=None,
            task_type=None,
        )
        self.json(config, *cache, dreamsim.ADAPTER, "adapter_config.json")

    def make_dino(self) -> None:
        s, width = self.sizes, self.sizes.vision_width
        self.json(
            dict(
                model_type="vit",
                architectures=["ViTModel"],
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=s.vision_layers,
                num_attention_heads=s.vision_heads,
                patch_size=16,
                image_size=224,
                hidden_act="gelu",
                layer_norm_eps=1e-12,
                qkv_bias=True,
            ),
            "hub",
            dino.HUB_ID,
            "config.json",
        )
        self.json(
            dict(
                do_normalize=True,
                do_resize=True,
                feature_extractor_type="ViTFeatureExtractor",
                image_mean=IMAGENET_MEAN,
                image_std=IMAGENET_STD,
                resample=2,
                size=224,
            ),
            "hub",
            dino.HUB_ID,
            "preprocessor_config.json",
        )
        spec = hf_vit_spec(width, s.vision_layers)
        self.weights(self.state("dino", spec), dino.HUB_ID)

    def make_owlvit(self) -> None:
        s, side = self.sizes, OWL_SIDE
        self.clip_tokenizer(owlvit.HUB_ID, preprocessor=False, pad="!", context=OWL_CONTEXT)
        common = dict(hidden_act="quick_gelu", layer_norm_eps=1e-5)
        self.json(
            dict(
                model_type="owlvit",
                architectures=["OwlViTForObjectDetection"],
                projection_dim=s.text_width,
                text_config=dict(
                    hidden_size=s.text_width,
                    intermediate_size=4 * s.text_width,
                    num_hidden_layers=s.text_layers,
                    num_attention_heads=s.text_heads,
                    vocab_size=vocabulary.CLIP_TOKENS,
                    max_position_embeddings=OWL_CONTEXT,
                    **common,
                ),
                vision_config=dict(
                    hidden_size=s.vision_width,
                    intermediate_size=s.vision_mlp or 4 * s.vision_width,
                    num_hidden_layers=s.vision_layers,
                    num_attention_heads=s.vision_heads,
                    image_size=side,
                    patch_size=s.owl_patch,
                    **common,
                ),
            ),
            "hub",
            owlvit.HUB_ID,
            "config.json",
        )
        self.json(
            dict(
                crop_size=side,
                do_center_crop=False,
                do_normalize=True,
                do_resize=True,
                image_processor_type="OwlViTImageProcessor",
                processor_class="OwlViTProcessor",
                image_mean=CLIP_MEAN,
                image_std=CLIP_STD,
                resample=3,
                size=[side, side],
            ),
            "hub",
            owlvit.HUB_ID,
            "preprocessor_config.json",
        )
        state = self.state("owlvit", owlvit_spec(s))
        # Logits from about −9 to 3, as trained ones are: scores that spread, and labels that compete for a patch.
        for name, gain, bias in (("logit_scale", 0.8, 2.0), ("logit_shift", 0.3, -1.1)):
            state[f"class_head.{name}.weight"] = (state[f"class_head.{name}.weight"] * gain).half().float()
            state[f"class_head.{name}.bias"].fill_(bias)
        self.weights(self.trained.over("owlvit", state), owlvit.HUB_ID)

    def make_faces(self) -> None:
        """The embedding network; MTCNN's own weights are small and free, so there are no random ones."""
        state = {}
        for name, shape in faces.embedding_spec(self.sizes.face_divisor).items():
            values = self.normal(f"faces:{name}", *shape)
            if len(shape) > 1:
                # Without a part that all inputs share, which after a ReLU would be most of every embedding.
                values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
                values *= (2 / np.prod(shape[1:])) ** 0.5
            elif name.endswith("running_var"):
                values = np.exp(0.2 * values)
            elif faces.is_batch_norm(name) and name.endswith("weight"):
                values = 1 + 0.2 * values
            else:
                values = 0.1 * values
            state[name] = torch.from_numpy(values.astype(np.float16).astype(np.float32))
        torch.save(self.trained.over("faces", state), self.file(*faces.EMBEDDING))

    def make_egtr(self) -> None:
        random_egtr.make(self)


def is_table(name: str) -> bool:
    """Whether its rows are looked up by number, and equal ones kept once."""
    return is_token_table(name) or name.endswith("triplet_dist")


def is_token_table(name: str) -> bool:
    return name.endswith(("token_embedding.weight", "word_embeddings.weight"))


def make(
    root: Path,
    seed: int,
    sizes: Sizes | Mapping[str, Sizes],
    models: Sequence[str],
    clip: str = DEFAULT_CLIP,
    hps: str = "v2.0",
    constant: bool = False,
    trained: Path | None = None,
) -> None:
    """Writes the checkpoints of these models under `root` and marks it as random.

    `sizes` are those of all models, or of each. With `constant` all weights are one number. Weights in the folder
    `trained` take the place of random ones; those of the drawn world are of the demo pack's sizes.
    """
    of = {model: sizes if isinstance(sizes, Sizes) else sizes[model] for model in models}
    marked = asdict(sizes) if isinstance(sizes, Sizes) else {model: asdict(each) for model, each in of.items()}
    maker = Maker(root, seed, Sizes(), constant, trained)
    maker.json(dict(weights="demo", seed=seed, sizes=marked), MARKER)
    for model in models:
        maker.sizes = of[model]
        if model == "clip":
            maker.make_clip(clip)
        elif model == "hpsv2":
            maker.make_hpsv2(hps)
        else:
            getattr(maker, f"make_{model}")()
