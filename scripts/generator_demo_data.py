"""What generator_demo.py trains on: the benchmark's people, captions of drawings, and tiny bases."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

# What captions call a person: a word for each channel of the mean colour of face and clothes, from dark to bright.
COLOURS = (
    ("rust", "coral", "rose", "ruby", "scarlet"),
    ("olive", "moss", "fern", "lime", "emerald"),
    ("navy", "slate", "denim", "azure", "cobalt"),
    ("brick", "cherry", "wine", "salmon", "crimson"),
    ("pine", "sage", "mint", "jade", "clover"),
    ("ink", "storm", "ocean", "sky", "sapphire"),
)
# Drawings that are noisier teach the VAE noise.
QUALITY = 0.6
# Channels of the VAE that hold the colours: three pairs and a pair of constants.
CARRIED = 8


def keep_people(prompts: Path, people: int) -> None:
    """Cuts the benchmark's lists to its first people, two photos each: everyone else becomes training data."""
    for name in ("stellar_t.json", "stellar_h.json"):
        path = prompts / name
        kept = list(json.loads(path.read_text(encoding="utf-8")).items())[:people]
        path.write_text(json.dumps(dict(kept)), encoding="utf-8")
    path = prompts / "celebahq_ids.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[: 1 + 2 * people]) + "\n", encoding="utf-8")


def captions(drawings: Path, out: Path, count: int) -> None:
    """Writes `captions.jsonl` for photos and typed drawings: their prompts with words for the person's colours."""
    from stellar_train.data import TEMPLATES

    draws = random.Random(0)
    records = [json.loads(line) for line in (drawings / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    records = [r for r in records if r["quality"] >= QUALITY and r["kind"] != "written" and r["face"]]
    draws.shuffle(records)
    records = records[:count]
    colours = np.array([person_colours(drawings / r["file"], r["face"]) for r in records])
    limits = np.quantile(colours, [0.2, 0.4, 0.6, 0.8], axis=0)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "captions.jsonl", "w", encoding="utf-8") as file:
        for record, colour in zip(records, colours, strict=True):
            levels = (colour > limits).sum(axis=0)
            person = " ".join(words[level] for words, level in zip(COLOURS, levels, strict=True))
            template = draws.choice(TEMPLATES) if record["kind"] == "photo" else record["prompt"]
            line = {"image": str(drawings / record["file"]), "caption": template.format(person)}
            file.write(json.dumps(line) + "\n")


def person_colours(path: Path, box: list[float]) -> np.ndarray:
    """Mean colours of a person's face, whose box is in shares of the side, and of the clothes [6], 0 to 1."""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB"), np.float32) / 255
    side = len(pixels)
    left, top, right, bottom = (round(share * side) for share in box)
    face = pixels[top:bottom, left:right].reshape(-1, 3).mean(axis=0)
    # The shoulders are as wide as the face and reach down to the edge. Something may be in front of them.
    clothes = np.median(pixels[round(0.9 * side) :, left:right].reshape(-1, 3), axis=0)
    return np.concatenate([face, clothes])


def tiny_base(out: Path, side: int, is_xl: bool) -> None:
    """The exporter's tiny SDXL or Stable Diffusion 1.x with a VAE that begins as the mean colours of blocks, and a UNet
    for this side."""
    from diffusers import AutoencoderKL

    from stellar_export.generator import tiny_sd, tiny_sdxl

    tiny = tiny_sdxl if is_xl else tiny_sd
    tiny.make(out)
    torch.manual_seed(0)
    sizes = {"block_out_channels": (CARRIED, 16, 32, 32), "norm_num_groups": 1, "sample_size": side}
    vae = AutoencoderKL(**tiny.VAE | sizes)
    begin_as_block_means(vae)
    vae.save_pretrained(out / "vae")
    path = out / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"sample_size": side // 8}, indent=2))


@torch.no_grad()
def begin_as_block_means(vae: nn.Module) -> None:
    """Sets the weights so that the first three latents are the mean colours of blocks: training then adds detail.

    From random weights a tiny VAE learns light and dark in minutes, and colours in hours. A channel is carried as a
    pair x, −x, because silu(x) − silu(−x) = x; the constants 1, −1 keep the norm before it from removing the scale.
    """
    for name, part in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
        elif name.endswith("conv_shortcut"):
            _carry(part, 0, 1.0)
        elif name.endswith("downsamplers.0.conv"):
            _carry(part, slice(0, 2), 0.25)
        elif name.endswith("upsamplers.0.conv"):
            _carry(part, 1, 1.0)
    for half in (vae.encoder, vae.decoder):
        into, norm, out = half.conv_in, half.conv_norm_out, half.conv_out
        into.weight[:CARRIED], into.bias[:CARRIED] = 0, 0
        into.bias[6], into.bias[7] = 1, -1
        out.weight[:3], out.bias[:3] = 0, 0
        for n in range(3):
            into.weight[2 * n, n, 1, 1], into.weight[2 * n + 1, n, 1, 1] = 1, -1
            out.weight[n, 2 * n, 1, 1], out.weight[n, 2 * n + 1, 1, 1] = 1, -1
        # About the deviation that it divides by.
        norm.weight.fill_((3.8 / norm.num_channels) ** 0.5)
    logarithms = vae.config.latent_channels
    vae.encoder.conv_out.weight[logarithms:], vae.encoder.conv_out.bias[logarithms:] = 0, 0
    for conv in (vae.quant_conv, vae.post_quant_conv):
        conv.weight.copy_(torch.eye(conv.out_channels)[:, :, None, None])
        nn.init.zeros_(conv.bias)


def _carry(conv: nn.Conv2d, at: int | slice, value: float) -> None:
    """Lets a convolution pass the first channels on as they are."""
    conv.weight[:CARRIED], conv.bias[:CARRIED] = 0, 0
    for n in range(CARRIED):
        conv.weight[n, n, at, at] = value


def mask_model(training: Path, out: Path, steps: int) -> None:
    """Trains a tiny segmentation model on the photos and masks of a training folder; writes an ONNX file."""
    from stellar_export.generator import tiny_mask
    from stellar_export.preprocess import IMAGENET_MEAN, IMAGENET_STD

    torch.manual_seed(0)
    size = (tiny_mask.SIDE, tiny_mask.SIDE)
    photos, masks = [], []
    for path in sorted((training / "images").iterdir()):
        with Image.open(path) as file:
            photo = np.asarray(file.convert("RGB").resize(size, Image.Resampling.LANCZOS), np.float32)
        photos.append((photo / photo.max() - IMAGENET_MEAN) / IMAGENET_STD)
        with Image.open(training / "masks" / f"{path.stem}.png") as file:
            masks.append(np.asarray(file.convert("RGB").resize(size, Image.Resampling.NEAREST)).max(axis=2) > 0)
    inputs = torch.from_numpy(np.stack(photos).astype(np.float32)).permute(0, 3, 1, 2)
    wanted = torch.from_numpy(np.stack(masks).astype(np.float32))[:, None]
    module = tiny_mask.TinyMask()
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (16,))
        loss = nn.functional.binary_cross_entropy_with_logits(module(inputs[chosen]), wanted[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tiny_mask.save(module, out)


def without_masks(dataset: Path, out: Path) -> None:
    """Copies a dataset without its masks."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(dataset, out, ignore=shutil.ignore_patterns("*_bg.png"))


def overlap(ours: Path, theirs: Path) -> float:
    """Mean intersection over union of the masks of two datasets with the same photos."""
    found = []
    for path in sorted(theirs.glob("*/*_bg.png")):
        with Image.open(path) as one, Image.open(ours / path.relative_to(theirs)) as other:
            a, b = (np.asarray(mask.convert("RGB")).max(axis=2) > 0 for mask in (one, other))
        found.append((a & b).sum() / (a | b).sum())
    return float(np.mean(found))
