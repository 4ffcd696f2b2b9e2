"""Golden pictures of a generator pack: what diffusers' own pipeline gives with the same weights.

The words of a photo go into the prompt as diffusers puts in a textual inversion of several vectors: as new tokens with
rows of their own. The adapters are not fused. So neither the graphs nor `splice.py` have a part in it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps

from ..checkpoints import Folder
from ..errors import ExportError
from ..goldens import FILE, PICTURES, SCHEMA
from ..pack import Builder
from .base import Base
from .splice import PLACEHOLDER
from .words import pixels_of_photo

if TYPE_CHECKING:
    from .export import Options

# Absolute, of the final latents; and the least share of bytes that are equal.
TOLERANCE = {"fp32": dict(latents=1e-4, bytes=0.999), "fp16": dict(latents=1e-1, bytes=0.8)}
# Larger models are held at this side, which takes minutes instead of hours on a processor.
MOST_SIDE = 256
# End-of-text in CLIP's vocabulary.
END = 49407
TOKEN = "<photo>"

LONG = "{} " + "walking slowly along a very long road that leads over seven hills and seven rivers " * 8


@dataclass(frozen=True)
class Golden:
    """One golden picture. `photo` is a picture of this package or one of `MADE`, `mask` one of `MADE`."""

    name: str
    prompt: str
    photo: str | None = None
    mask: str | None = None
    negative_prompt: str | None = None
    seed: int = 42
    steps: int = 5
    guidance: float = 5.0
    aspect: tuple[int, int] = (2, 2)
    """Height and width in halves of the side."""


GOLDENS = (
    Golden("masked", "{} as a clown skiing", "astronaut-face.jpg", "mask-colours.png", steps=20),
    Golden("same-without-mask", "{} as a clown skiing", "astronaut-face.jpg", steps=20),
    Golden("other-photo", "{} as a clown skiing", "brick-225x180.jpg", "mask-colours.png", steps=20),
    Golden("turned-photo", "a portrait of {}'s face, as a painting", "turned.jpg", seed=7),
    Golden("no-photo", "a person as a clown skiing"),
    Golden("photo-without-placeholder", "a red bus in the rain", "rocket.jpg", seed=2**32 + 7),
    Golden("negative-prompt", "a photo of {} in space", "astronaut-face.jpg", None, "blurry, ugly, low quality"),
    Golden("wide", "a{}b on a horse", "astronaut-face.jpg", "mask-colours.png", seed=0, aspect=(2, 3)),
    Golden("tall", "{}", "chelsea.webp", seed=2**31, guidance=7.5, aspect=(3, 1)),
    Golden("no-guidance", "{} riding  a   bicycle", "astronaut-face.jpg", guidance=1.0),
    Golden("too-long", LONG, "astronaut-face.jpg", guidance=3.0),
    Golden("non-ascii", "café crème für {} — 한국어 \U0001f600 don’t “quote” ﬁne", "astronaut-face.jpg"),
    Golden("exclamation-marks", "wow! {} won!!! yes !", "astronaut-face.jpg", None, "no! not this"),
    Golden("one-step", "a photo of {}", "astronaut-face.jpg", "mask-colours.png", steps=1),
)


def mask_in_colours() -> bytes:
    """A palette file like those of CelebAMask-HQ, whose colours are parts of a face; skin has no green and no blue."""
    mask = Image.new("P", (64, 64), 0)
    mask.putpalette([0, 0, 0, 204, 0, 0, 0, 0, 204, 76, 153, 0])
    draw = ImageDraw.Draw(mask)
    draw.ellipse((10, 2, 54, 50), fill=2)
    draw.ellipse((16, 10, 48, 60), fill=1)
    draw.rectangle((27, 30, 36, 42), fill=3)
    return _file(mask, "PNG")


def turned_photo() -> bytes:
    """A photo that its EXIF data turn by a quarter."""
    photo = Image.open(PICTURES / "astronaut-face.jpg").convert("RGB").resize((96, 120))
    photo = photo.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    return _file(photo, "JPEG", quality=90, exif=exif)


MADE: dict[str, Callable[[], bytes]] = {"mask-colours.png": mask_in_colours, "turned.jpg": turned_photo}


def _file(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def picture(name: str) -> bytes:
    """The file of a photo or mask."""
    return MADE[name]() if name in MADE else (PICTURES / name).read_bytes()


@dataclass(frozen=True)
class Generated:
    """What the pipeline gave for a golden."""

    golden: Golden
    height: int
    width: int
    noise: np.ndarray
    """f32 [4, h, w]: torch's for the seed, before it is scaled."""
    latents: np.ndarray
    """f32 [4, h, w], before the division by the scaling factor."""
    image: Image.Image


def reference_name() -> str:
    """The versions of the packages that the pictures come from."""
    import diffusers
    import transformers

    torch_version = torch.__version__.split("+")[0]
    return f"diffusers {diffusers.__version__}, transformers {transformers.__version__}, torch {torch_version}"


class Reference:
    """diffusers' pipeline of a base model, with trained words."""

    def __init__(self, base: Base, options: Options):
        from diffusers import StableDiffusionXLPipeline

        self.pipeline = StableDiffusionXLPipeline.from_pretrained(base.path, torch_dtype=torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.words = None
        if options.stellarnet:
            self.words = ReferenceWords(base, options)
            self.make_room(self.words.count)
            self.adapt(options.stellarnet)

    def make_room(self, count: int) -> None:
        """New tokens for the words in both tokenizers, with rows in both encoders."""
        p = self.pipeline
        tokens = [TOKEN, *(f"{TOKEN}_{i}" for i in range(1, count))]
        for tokenizer, encoder in ((p.tokenizer, p.text_encoder), (p.tokenizer_2, p.text_encoder_2)):
            if tokenizer.add_tokens(tokens) != count:
                raise ExportError(f"the vocabulary has {TOKEN} already")
            encoder.resize_token_embeddings(END + 1 + count, pad_to_multiple_of=None)
            # The published configurations have 2 here, for which transformers pools at the largest id. That is the end
            # token only as long as there are no new ones.
            encoder.text_model.eos_token_id = END

    def adapt(self, checkpoint: Path) -> None:
        """Puts the trained adapters into the UNet, beside its weights."""
        from safetensors.torch import load_file

        from stellar_train import lora, mapper

        config = mapper.load(checkpoint)[1]
        lora.inject(self.pipeline.unet, config["lora_rank"], config["lora_alpha"])
        lora.restore(self.pipeline.unet, load_file(checkpoint / lora.FILE))
        self.pipeline.unet.requires_grad_(False)

    def prompt_of(self, golden: Golden) -> str:
        """The prompt as diffusers is given it, with the words of the photo in the encoders."""
        if golden.photo is None or PLACEHOLDER not in golden.prompt:
            return golden.prompt
        p = self.pipeline
        words = self.words.of(golden)
        with torch.no_grad():
            for encoder, vectors in zip((p.text_encoder, p.text_encoder_2), words, strict=True):
                encoder.get_input_embeddings().weight[END + 1 :] = vectors
        return golden.prompt.replace(PLACEHOLDER, TOKEN)

    @torch.no_grad()
    def generate(self, golden: Golden, side: int) -> Generated:
        p = self.pipeline
        height, width = (side * n // 2 for n in golden.aspect)
        factor = p.vae_scale_factor
        noise = torch.randn(
            (1, p.unet.config.in_channels, height // factor, width // factor),
            generator=torch.Generator("cpu").manual_seed(golden.seed),
        )
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        embedded = p.encode_prompt(
            self.prompt_of(golden),
            negative_prompt=golden.negative_prompt,
            do_classifier_free_guidance=golden.guidance > 1,
        )
        given = dict(zip(names, embedded, strict=True))
        kept = {}

        def keep(_pipeline, _step, _timestep, tensors):
            kept.update(tensors)
            return tensors

        picture = p(
            **given,
            num_inference_steps=golden.steps,
            guidance_scale=golden.guidance,
            height=height,
            width=width,
            latents=noise.clone(),
            callback_on_step_end=keep,
        ).images[0]
        return Generated(golden, height, width, noise[0].numpy(), kept["latents"][0].numpy(), picture)


class ReferenceWords:
    """transformers' image encoders and the trained mapper."""

    def __init__(self, base: Base, options: Options):
        from transformers import CLIPVisionModel

        from stellar_train.mapper import load

        from .export import encoder_folder

        self.mapper, self.config = load(options.stellarnet)
        self.count = self.config["words"]
        self.towers = {}
        for name in self.config["encoders"]:
            folder: Folder = encoder_folder(base, options, name)
            self.towers[name] = (CLIPVisionModel.from_pretrained(folder.path).eval(), _mean_and_deviation(folder))

    @torch.no_grad()
    def of(self, golden: Golden) -> tuple[torch.Tensor, torch.Tensor]:
        """The words of a golden's photo for both encoders, f32 [N, D1] and [N, D2]."""
        from stellar_train.mapper import hidden_states

        pixels = torch.from_numpy(golden_pixels(golden)).permute(2, 0, 1)[None]
        features = {
            name: hidden_states(tower, (pixels / 255 - mean) / deviation, self.config["layers"][name])
            for name, (tower, (mean, deviation)) in self.towers.items()
        }
        first, second = self.mapper(features)
        return first[0], second[0]


def _mean_and_deviation(folder: Folder) -> tuple[torch.Tensor, torch.Tensor]:
    from transformers import CLIPImageProcessor

    here = (folder.path / "preprocessor_config.json").is_file()
    processor = CLIPImageProcessor.from_pretrained(folder.path) if here else CLIPImageProcessor()
    return tuple(torch.tensor(v)[:, None, None] for v in (processor.image_mean, processor.image_std))


def golden_pixels(golden: Golden) -> np.ndarray:
    """u8 [224, 224, 3]: the golden's photo, turned as its EXIF data say, on black."""
    photo = ImageOps.exif_transpose(Image.open(io.BytesIO(picture(golden.photo)))).convert("RGB")
    mask = Image.open(io.BytesIO(picture(golden.mask))) if golden.mask else None
    return pixels_of_photo(photo, mask)


def chosen(with_words: bool) -> list[Golden]:
    """The goldens of a pack; without trained words, the prompts are about someone, and no golden is there twice."""
    if with_words:
        return list(GOLDENS)
    different = {}
    for golden in GOLDENS:
        plain = replace(golden, photo=None, mask=None, prompt=golden.prompt.replace(PLACEHOLDER, "someone"))
        different.setdefault(replace(plain, name=""), plain)
    return list(different.values())


def compute(base: Base, options: Options) -> Iterator[Generated]:
    """Generates all goldens."""
    torch.set_num_threads(1)
    reference = Reference(base, options)
    unet = reference.pipeline.unet
    side = min(unet.config.sample_size * reference.pipeline.vae_scale_factor, MOST_SIDE)
    for golden in chosen(options.stellarnet is not None):
        yield reference.generate(golden, side)


def write(builder: Builder, base: Base, options: Options, say: Callable[[str], None]) -> dict:
    """Writes `goldens/` into the pack; returns the manifest's table."""
    say("goldens:")
    folder = builder.folder / "goldens"
    folder.mkdir()
    samples = []
    for made in compute(base, options):
        golden = made.golden
        if not np.isfinite(made.latents).all():
            raise ExportError(
                f"the golden {golden.name} has latents that are not finite: a pack of these weights cannot be checked; "
                "see whether the base model and the trained weights are complete"
            )
        place = f"goldens/{golden.name}"
        np.save(folder / f"{golden.name}.noise.npy", made.noise)
        np.save(folder / f"{golden.name}.latents.npy", made.latents)
        made.image.save(folder / f"{golden.name}.png")
        for name in (golden.photo, golden.mask):
            if name:
                (folder / name).write_bytes(picture(name))
        samples.append(
            dict(
                name=golden.name,
                prompt=golden.prompt,
                negative_prompt=golden.negative_prompt,
                photo=f"goldens/{golden.photo}" if golden.photo else None,
                mask=f"goldens/{golden.mask}" if golden.mask else None,
                seed=golden.seed,
                steps=golden.steps,
                guidance=golden.guidance,
                width=made.width,
                height=made.height,
                noise=f"{place}.noise.npy",
                latents=f"{place}.latents.npy",
                image=f"{place}.png",
            )
        )
    document = dict(
        schema=SCHEMA,
        kind="generator",
        reference=reference_name(),
        tolerance=TOLERANCE[options.precision.name],
        samples=samples,
    )
    say(f"  {len(samples)} pictures by {document['reference']}")
    table = builder.write_json(document, *FILE.split("/"))
    return dict(file=table["path"], sha256=table["sha256"])
