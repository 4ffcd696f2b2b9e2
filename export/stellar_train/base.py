"""A base model in diffusers' folder layout: Stable Diffusion XL, or Stable Diffusion 1.x for ELITE."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModel

from stellar_export.generator.base import DIFFUSERS_FILES, fill, renamed_attention
from stellar_export.weights import load_folder

from .errors import TrainError
from .lms import LmsScheduler
from .text import TextEncoder

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Base:
    """The models of a base, frozen, on one device. The VAE computes in float32 whatever the precision."""

    def __init__(self, folder: Path, device: torch.device, precision: str = "fp32") -> None:
        if not (folder / "model_index.json").is_file():
            raise TrainError(f"{folder} is not a base model: it has no model_index.json")
        self.folder, self.device, self.dtype = folder, device, DTYPES[precision]
        self.is_xl = (folder / "text_encoder_2").is_dir()
        self.unet = _filled(UNet2DConditionModel, folder / "unet").to(device, self.dtype)
        self.vae = _filled(AutoencoderKL, folder / "vae").to(device)
        self.encoders = [
            self._encoder("", CLIPTextModel),
            *([self._encoder("_2", CLIPTextModelWithProjection)] if self.is_xl else []),
        ]
        schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        self.schedule_config = schedule
        if (kind := schedule.get("prediction_type", "epsilon")) != "epsilon":
            raise TrainError(f"{folder}: it predicts {kind}; only noise (epsilon) is supported")
        self.schedule = DDPMScheduler.from_config(schedule)
        self.latent_factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.scaling = self.vae.config.scaling_factor

    def _encoder(self, ending: str, kind: type) -> TextEncoder:
        tokenizer = CLIPTokenizer.from_pretrained(self.folder / f"tokenizer{ending}")
        model = strict(kind, self.folder / f"text_encoder{ending}").to(self.device, self.dtype)
        return TextEncoder(tokenizer, model, penultimate=self.is_xl)

    def autocast(self) -> AbstractContextManager:
        """Arithmetic in the base's precision; weights that are trained stay float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def checkpoint_gradients(self) -> None:
        """Recomputes the UNet's activations in the backward pass: less memory, about a third more time."""
        self.unet.enable_gradient_checkpointing()
        # diffusers only does so in training mode; with a dropout that would change the result, so it is refused.
        if any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in self.unet.modules()):
            raise TrainError(f"{self.folder}: its UNet has dropout; train without training.gradient_checkpointing")
        self.unet.train()

    def encode(self, prompts: Sequence[str], words: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor | None]:
        """Context [B, 77, D] (of SDXL the states of both encoders side by side) and SDXL's pooled vector [B, P]."""
        found = [e.encode(prompts, None if words is None else words[n]) for n, e in enumerate(self.encoders)]
        return torch.cat([hidden for hidden, _ in found], dim=-1), found[-1][1]

    def unconditional(self, count: int) -> tuple[Tensor, Tensor | None]:
        """The condition of the other half of guidance: zeros in SDXL, the empty prompt in SD 1.x."""
        context, pooled = self.encode([""] * count)
        if self.is_xl:
            return torch.zeros_like(context), torch.zeros_like(pooled)
        return context, None

    def predict(self, noisy: Tensor, timesteps: Tensor, context: Tensor, pooled: Tensor | None) -> Tensor:
        """The noise [B, 4, h, w] that the UNet sees in latents of square pictures without a crop."""
        added = None
        if pooled is not None:
            side = float(noisy.shape[-1] * self.latent_factor)
            sizes = torch.tensor([side, side, 0, 0, side, side], device=noisy.device)
            added = {"text_embeds": pooled, "time_ids": sizes.expand(len(noisy), -1)}
        return self.unet(noisy, timesteps, context, added_cond_kwargs=added).sample.float()

    @torch.no_grad()
    def moments(self, pictures: Tensor) -> Tensor:
        """Mean and log variance [B, 8, h, w] of the latents of pictures [B, 3, H, W] in [−1, 1]."""
        return self.vae.encode(pictures.to(self.device)).latent_dist.parameters.float().cpu()

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """Latents drawn from their moments, in the scale that the UNet reads."""
        mean, log_variance = moments.chunk(2, dim=1)
        return (mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise) * self.scaling

    @torch.no_grad()
    def generate(
        self, context: Tensor, pooled: Tensor | None, seeds: Sequence[int], steps: int, guidance: float, side: int
    ) -> list[Image.Image]:
        """Square pictures with diffusers' own pipeline; noise from torch's CPU generator.

        SDXL's own schedule is Euler's; with Stable Diffusion 1.x ELITE uses LMS.
        """
        nothing, no_pooled = self.unconditional(len(seeds))
        arguments = {
            "prompt_embeds": context.to(self.dtype),
            "negative_prompt_embeds": nothing.to(self.dtype),
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "height": side,
            "width": side,
            "output_type": "latent",
        }
        if self.is_xl:
            arguments |= {"pooled_prompt_embeds": pooled.to(self.dtype)}
            arguments |= {"negative_pooled_prompt_embeds": no_pooled.to(self.dtype)}
        pipeline = self._pipeline()
        pipeline.set_progress_bar_config(disable=True)
        with self.autocast():
            latents = pipeline(**arguments).images
        images = self.vae.decode(latents.float() / self.scaling).sample
        pixels = ((images / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(each) for each in pixels]

    def _pipeline(self):
        first = self.encoders[0]
        betas = {k: self.schedule_config[k] for k in ("beta_start", "beta_end", "beta_schedule")}
        parts = {"vae": self.vae, "unet": self.unet, "text_encoder": first.model, "tokenizer": first.tokenizer}
        if self.is_xl:
            second = self.encoders[1]
            return StableDiffusionXLPipeline(
                **parts,
                text_encoder_2=second.model,
                tokenizer_2=second.tokenizer,
                scheduler=EulerDiscreteScheduler(
                    **betas, num_train_timesteps=1000, steps_offset=1, timestep_spacing="leading"
                ),
                add_watermarker=False,
            )
        return StableDiffusionPipeline(
            **parts,
            scheduler=LmsScheduler(**betas, num_train_timesteps=1000, timestep_spacing="linspace"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def tower(folder: Path, device: torch.device, precision: str = "fp32") -> CLIPVisionModel:
    """A CLIP vision tower, frozen."""
    return strict(CLIPVisionModel, folder).to(device, DTYPES[precision])


def strict(kind: type, folder: Path):
    """A transformers model of a folder in which no weight is missing (`from_pretrained` alone only warns)."""
    if not (folder / "config.json").is_file():
        raise TrainError(f"{folder}: there is no model (config.json is missing)")
    try:
        model, found = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    except (OSError, RuntimeError) as error:
        raise TrainError(f"{folder}: {error}") from error
    # Not a weight: older files have the positions, newer ones do not.
    if missing := [key for key in found["missing_keys"] if not key.endswith("position_ids")]:
        raise TrainError(f"{folder}: {len(missing)} weights are missing, for example {missing[0]}")
    if found["mismatched_keys"]:
        raise TrainError(f"{folder}: weights of other sizes, for example {found['mismatched_keys'][0]}")
    return model.eval().requires_grad_(False)


def _filled(kind: type, folder: Path):
    """A diffusers model of a folder whose keys are exactly the module's."""
    if not (folder / "config.json").is_file():
        raise TrainError(f"{folder}: there is no model (config.json is missing)")
    weights = load_folder(folder, DIFFUSERS_FILES)
    if kind is AutoencoderKL:
        weights = renamed_attention(weights)
    return fill(kind, json.loads((folder / "config.json").read_text()), weights)


def digest(*folders: Path) -> str:
    """Of the configuration and weights in folders: what a checkpoint is only valid for."""
    hasher = hashlib.blake2b(digest_size=16)
    for folder in folders:
        files = sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors", ".bin", ".txt"))
        for path in files:
            hasher.update(path.relative_to(folder).as_posix().encode() + b"\0")
            with open(path, "rb") as file:
                while block := file.read(1 << 24):
                    hasher.update(block)
    return hasher.hexdigest()


def digest_of(parts: Sequence[Tensor | str]) -> str:
    """Of tensors and texts in memory."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(part.encode() + b"\0" if isinstance(part, str) else part.cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def device(name: str) -> torch.device:
    """The device of a configuration; `auto` is a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise TrainError(f"training.device = {name!r}: choose auto, cpu, cuda or cuda:N") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise TrainError(f"training.device = {name!r}: PyTorch sees no GPU here")
    return found
