"""A tiny random Stable Diffusion 1.x in the layout of `CompVis/stable-diffusion-v1-4`, with an image encoder beside it.

It is what ELITE is for. Sizes and weights are those of the tiny SDXL where both models have the part.
"""

from __future__ import annotations

from pathlib import Path

from . import tiny_sdxl

# Stable Diffusion 1.x's block types, slim: four levels, attention in the three upper ones.
UNET = dict(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(16, 32, 32, 32),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    attention_head_dim=2,
    cross_attention_dim=tiny_sdxl.TEXT_WIDTHS[0],
    norm_num_groups=8,
)
VAE = tiny_sdxl.VAE | dict(scaling_factor=0.18215, force_upcast=False)
# As in the scheduler_config.json of the official model.
SCHEDULER = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    num_train_timesteps=1000,
    set_alpha_to_one=False,
    skip_prk_steps=True,
    steps_offset=1,
)


def make(out: Path, seed: int = 0) -> None:
    """Writes the folder `out`, which must not exist or be empty.

    Raises `ExportError` if something else is there.
    """
    maker = tiny_sdxl.begun(out, seed)
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    unet, vae = tiny_sdxl.unet_and_vae(UNET, VAE, seed)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=tiny_sdxl.text_encoder(maker, 1),
        tokenizer=tiny_sdxl.tokenizer(maker, "tokenizer", "<|endoftext|>"),
        unet=unet,
        scheduler=PNDMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    tiny_sdxl.image_encoder(maker, "image_encoder")
    tiny_sdxl.mark(maker, seed, "tiny-sd")
