"""Names and shapes of the tensors in the official layouts, for random checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import aesthetic, vocabulary

if TYPE_CHECKING:
    from .random_checkpoints import Sizes

# OWL-ViT's pictures and the most tokens of its queries.
OWL_SIDE, OWL_CONTEXT = 840, 16


def linear_spec(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm_spec(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def hf_clip_spec(s: Sizes, patch: int, projection: int, image: int = 224, context: int = 77) -> dict[str, tuple[int, ...]]:
    """The keys of a transformers CLIPModel."""

    def layers(at: str, width: int, mlp: int, n: int) -> dict[str, tuple[int, ...]]:
        spec: dict[str, tuple[int, ...]] = {}
        for i in range(n):
            for p in ("q_proj", "k_proj", "v_proj", "out_proj"):
                spec |= linear_spec(f"{at}.encoder.layers.{i}.self_attn.{p}", width, width)
            spec |= norm_spec(f"{at}.encoder.layers.{i}.layer_norm1", width)
            spec |= linear_spec(f"{at}.encoder.layers.{i}.mlp.fc1", mlp, width)
            spec |= linear_spec(f"{at}.encoder.layers.{i}.mlp.fc2", width, mlp)
            spec |= norm_spec(f"{at}.encoder.layers.{i}.layer_norm2", width)
        return spec

    v, t = s.vision_width, s.text_width
    return {
        "logit_scale": (),
        "text_model.embeddings.token_embedding.weight": (vocabulary.CLIP_TOKENS, t),
        "text_model.embeddings.position_embedding.weight": (context, t),
        **layers("text_model", t, 4 * t, s.text_layers),
        **norm_spec("text_model.final_layer_norm", t),
        "vision_model.embeddings.class_embedding": (v,),
        "vision_model.embeddings.patch_embedding.weight": (v, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": ((image // patch) ** 2 + 1, v),
        **norm_spec("vision_model.pre_layrnorm", v),
        **layers("vision_model", v, s.vision_mlp or 4 * v, s.vision_layers),
        **norm_spec("vision_model.post_layernorm", v),
        "visual_projection.weight": (projection, v),
        "text_projection.weight": (projection, t),
    }


def owlvit_spec(s: Sizes) -> dict[str, tuple[int, ...]]:
    """The keys of a transformers OwlViTForObjectDetection: a CLIP, and two heads on its patches."""
    v, t = s.vision_width, s.text_width
    spec = hf_clip_spec(s, s.owl_patch, t, OWL_SIDE, OWL_CONTEXT)
    spec = {f"owlvit.{name.replace('pre_layrnorm', 'pre_layernorm')}": shape for name, shape in spec.items()}
    spec |= norm_spec("layer_norm", v) | linear_spec("class_head.dense0", t, v)
    spec |= linear_spec("class_head.logit_shift", 1, v) | linear_spec("class_head.logit_scale", 1, v)
    for i, out in enumerate((v, v, 4)):
        spec |= linear_spec(f"box_head.dense{i}", out, v)
    return spec


def affine_spec(at: str, into: int) -> dict[str, tuple[int, ...]]:
    """The five layers of the aesthetic and of the reward head."""
    widths = (into, 1024, 128, 64, 16, 1)
    spec: dict[str, tuple[int, ...]] = {}
    for layer, a, b in zip(aesthetic.LAYERS, widths, widths[1:], strict=False):
        spec |= linear_spec(f"{at}.{layer}", b, a)
    return spec


def openai_clip_spec(s: Sizes, vision: int, text: int, patch: int = 14, image: int = 224) -> dict[str, tuple[int, ...]]:
    """The keys of OpenAI's CLIP, which are those of open_clip too."""

    def layers(at: str, width: int, n: int) -> dict[str, tuple[int, ...]]:
        spec: dict[str, tuple[int, ...]] = {}
        for i in range(n):
            block = f"{at}.resblocks.{i}"
            spec |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
            spec |= linear_spec(f"{block}.attn.out_proj", width, width)
            spec |= norm_spec(f"{block}.ln_1", width)
            spec |= linear_spec(f"{block}.mlp.c_fc", 4 * width, width)
            spec |= linear_spec(f"{block}.mlp.c_proj", width, 4 * width)
            spec |= norm_spec(f"{block}.ln_2", width)
        return spec

    return {
        "positional_embedding": (77, text),
        "text_projection": (text, s.projection),
        "logit_scale": (),
        "visual.class_embedding": (vision,),
        "visual.positional_embedding": ((image // patch) ** 2 + 1, vision),
        "visual.proj": (vision, s.projection),
        "visual.conv1.weight": (vision, 3, patch, patch),
        **norm_spec("visual.ln_pre", vision),
        **layers("visual.transformer", vision, s.vision_layers),
        **norm_spec("visual.ln_post", vision),
        **layers("transformer", text, s.text_layers),
        "token_embedding.weight": (vocabulary.CLIP_TOKENS, text),
        **norm_spec("ln_final", text),
    }


def timm_spec(at: str, width: int, depth: int, patch: int = 16, image: int = 224) -> dict[str, tuple[int, ...]]:
    """The keys of a ViT as timm, DINO and BLIP write it."""
    spec: dict[str, tuple[int, ...]] = {
        f"{at}cls_token": (1, 1, width),
        f"{at}pos_embed": (1, (image // patch) ** 2 + 1, width),
        f"{at}patch_embed.proj.weight": (width, 3, patch, patch),
        f"{at}patch_embed.proj.bias": (width,),
    }
    for i in range(depth):
        block = f"{at}blocks.{i}"
        spec |= norm_spec(f"{block}.norm1", width)
        spec |= linear_spec(f"{block}.attn.qkv", 3 * width, width)
        spec |= linear_spec(f"{block}.attn.proj", width, width)
        spec |= norm_spec(f"{block}.norm2", width)
        spec |= linear_spec(f"{block}.mlp.fc1", 4 * width, width)
        spec |= linear_spec(f"{block}.mlp.fc2", width, 4 * width)
    return spec | norm_spec(f"{at}norm", width)


def image_reward_spec(s: Sizes) -> dict[str, tuple[int, ...]]:
    """The keys of ImageReward.pt, less the buffer of position ids."""
    width, image = s.text_width, s.vision_width
    text = "blip.text_encoder"
    spec = timm_spec("blip.visual_encoder.", image, s.vision_layers)
    spec |= {
        f"{text}.embeddings.word_embeddings.weight": (vocabulary.BERT_TOKENS + 2, width),
        f"{text}.embeddings.position_embeddings.weight": (512, width),
        **norm_spec(f"{text}.embeddings.LayerNorm", width),
    }
    for i in range(s.text_layers):
        layer = f"{text}.encoder.layer.{i}"
        for name, others in (("attention", width), ("crossattention", image)):
            spec |= linear_spec(f"{layer}.{name}.self.query", width, width)
            spec |= linear_spec(f"{layer}.{name}.self.key", width, others)
            spec |= linear_spec(f"{layer}.{name}.self.value", width, others)
            spec |= linear_spec(f"{layer}.{name}.output.dense", width, width)
            spec |= norm_spec(f"{layer}.{name}.output.LayerNorm", width)
        spec |= linear_spec(f"{layer}.intermediate.dense", 4 * width, width)
        spec |= linear_spec(f"{layer}.output.dense", width, 4 * width)
        spec |= norm_spec(f"{layer}.output.LayerNorm", width)
    spec |= linear_spec("blip.vision_proj", 256, image) | linear_spec("blip.text_proj", 256, width)
    return spec | affine_spec("mlp.layers", width)


def hf_vit_spec(width: int, depth: int, patch: int = 16, image: int = 224) -> dict[str, tuple[int, ...]]:
    """The keys of a transformers ViTModel without pooler."""
    spec: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, (image // patch) ** 2 + 1, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (width,),
    }
    for i in range(depth):
        layer = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            spec |= linear_spec(f"{layer}.attention.attention.{name}", width, width)
        spec |= linear_spec(f"{layer}.attention.output.dense", width, width)
        spec |= linear_spec(f"{layer}.intermediate.dense", 4 * width, width)
        spec |= linear_spec(f"{layer}.output.dense", width, 4 * width)
        spec |= norm_spec(f"{layer}.layernorm_before", width)
        spec |= norm_spec(f"{layer}.layernorm_after", width)
    return spec | norm_spec("layernorm", width)
