"""A tiny random SDXL in the layout of `stabilityai/stable-diffusion-xl-base-1.0`, with two image encoders beside it.

Everything is read by the same code as the official folders. All weights are float16 numbers that depend on the seed
alone: those of the UNet and VAE from torch's uniform generator, the others from numpy's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..checkpoints import MARKER
from ..errors import ExportError
from ..preprocess import CLIP_MEAN, CLIP_STD
from ..random_checkpoints import Maker, Sizes
from ..vocabulary import CLIP_TOKENS

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

# Few distinct token rows keep the two token tables of a pack small.
DISTINCT_TOKENS = 256
CONTEXT = 77
TEXT_WIDTHS = (32, 40)
POOLED = 40
TIME_WIDTH = 8

# SDXL's block types and conditioning, slim: three levels, attention in the two lower ones.
UNET = dict(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(16, 32, 32),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 1, 1),
    attention_head_dim=(1, 2, 2),
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=TIME_WIDTH,
    projection_class_embeddings_input_dim=6 * TIME_WIDTH + POOLED,
    cross_attention_dim=sum(TEXT_WIDTHS),
    norm_num_groups=8,
)
VAE = dict(
    in_channels=3,
    out_channels=3,
    block_out_channels=(8, 16, 16, 16),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=1,
    latent_channels=4,
    sample_size=64,
    norm_num_groups=8,
    scaling_factor=0.13025,
    force_upcast=True,
)
# As in the scheduler_config.json of the official model.
SCHEDULER = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    num_train_timesteps=1000,
    prediction_type="epsilon",
    steps_offset=1,
    timestep_spacing="leading",
)
# Width and activation.
IMAGE_ENCODERS = {"image_encoder": (32, "quick_gelu"), "image_encoder_2": (40, "gelu")}
# Of a default-initialised decoder the pictures are nearly one grey; this spreads their values over the range.
CONTRAST = 3.0


def make(out: Path, seed: int = 0) -> None:
    """Writes the folder `out`, which must not exist or be empty.

    Raises `ExportError` if something else is there.
    """
    maker = begun(out, seed)
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    tokenizers = tokenizer(maker, "tokenizer", "<|endoftext|>"), tokenizer(maker, "tokenizer_2", "!")
    first, second = text_encoder(maker, 1), text_encoder(maker, 2)
    unet, vae = unet_and_vae(UNET, VAE, seed)
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=EulerDiscreteScheduler(**SCHEDULER),
        add_watermarker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    for name in IMAGE_ENCODERS:
        image_encoder(maker, name)
    mark(maker, seed, "tiny-sdxl")


def begun(out: Path, seed: int) -> Maker:
    """What writes into a new folder; `ExportError` if something is in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} exists and is not an empty folder; choose another --out")
    return Maker(out, seed, Sizes(distinct_tokens=DISTINCT_TOKENS))


def mark(maker: Maker, seed: int, model: str) -> None:
    """Says in the folder that its weights are made up."""
    maker.json(dict(weights="demo", seed=seed, model=model), MARKER)


def tokenizer(maker: Maker, name: str, pad: str) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    maker.tokenizer_files(name, pad=pad, context=CONTEXT)
    return CLIPTokenizer.from_pretrained(maker.file(name, "vocab.json").parent)


def unet_and_vae(unet: dict, vae: dict, seed: int) -> tuple[nn.Module, nn.Module]:
    """Random modules of these configurations."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = UNet2DConditionModel(**unet), AutoencoderKL(**vae)
    with torch.no_grad():
        made[1].decoder.conv_out.weight *= CONTRAST
    for module in made:
        round_to_half(module)
    return made


def text_encoder(maker: Maker, number: int) -> nn.Module:
    """CLIP-L's (1) or bigG's (2) text tower in small, with its activation and projection."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kind, layers, activation, projection = (
        (CLIPTextModel, 2, "quick_gelu", TEXT_WIDTHS[0]),
        (CLIPTextModelWithProjection, 3, "gelu", POOLED),
    )[number - 1]
    width = TEXT_WIDTHS[number - 1]
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        vocab_size=CLIP_TOKENS,
        max_position_embeddings=CONTEXT,
        num_attention_heads=2,
        # The published files have these, from before the ids were used.
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
        num_hidden_layers=layers,
        hidden_act=activation,
        projection_dim=projection,
    )
    return filled(maker, f"text_encoder_{number}", kind(config))


def image_encoder(maker: Maker, name: str) -> None:
    """Writes CLIP-L's or bigG's image tower in small."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    width, activation = IMAGE_ENCODERS[name]
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=224,
        patch_size=16,
        hidden_act=activation,
    )
    folder = maker.file(name, "config.json").parent
    filled(maker, name, CLIPVisionModel(config)).save_pretrained(folder, safe_serialization=True)
    CLIPImageProcessor(image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD)).save_pretrained(folder)


def filled(maker: Maker, tag: str, module: nn.Module) -> nn.Module:
    """The module with random weights whose outputs spread."""
    state = maker.state(tag, {name: tuple(p.shape) for name, p in module.named_parameters()})
    module.load_state_dict(state, strict=False)
    return module.eval()


def round_to_half(module: nn.Module) -> None:
    """Rounds the weights to float16 numbers, which a pack stores in half the space."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.half().float())
