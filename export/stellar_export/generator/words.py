"""The graph that makes words of a photo: the image encoders and the trained mapper on top of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from .. import clip, layouts
from ..checkpoints import Folder
from ..errors import ExportError
from ..nn import Normalise, Precision, VisionTransformer
from ..preprocess import CLIP_MEAN, CLIP_STD
from ..weights import POSITION_IDS, load_folder

SIDE = 224

# What a folder with a whole CLIP has beside the image encoder.
REST_OF_CLIP = (r"text_model\..*", r"text_projection\.weight", r"visual_projection\.weight", "logit_scale")


@dataclass(frozen=True)
class Encoder:
    """One image encoder, and the hidden states that the mapper reads."""

    body: VisionTransformer
    normalise: Normalise
    layers: tuple[int, ...]
    width: int
    official: bool


def encoder(folder: Folder, layers: Sequence[int], precision: Precision) -> Encoder:
    """Reads a folder of transformers: a CLIP's vision model, or a whole CLIP of which the rest is not used."""
    config, where = folder.json("config.json"), str(folder.path / "config.json")
    whole = "vision_config" in config or "vision_config_dict" in config
    sizes = clip.section(config, "vision", clip.VISION_DEFAULTS) if whole else {**clip.VISION_DEFAULTS, **config}
    tower = clip.tower(sizes, where)
    side, patch = sizes["image_size"], sizes["patch_size"]
    if side != SIDE:
        raise ExportError(f"{where}: image_size is {side}, the photo's pixels are {SIDE}×{SIDE}")
    depth = tower.layers + 1
    wrong = [n for n in layers if not -depth <= n < depth]
    if wrong:
        raise ExportError(f"{where}: the mapper reads hidden states {wrong}, the encoder has 0 to {depth - 1}")
    weights = load_folder(folder.path)
    body = clip.vision_body(weights, tower, side, patch, precision)
    # The mapper reads states before it.
    with weights.checking_only():
        layouts.norm(weights, "vision_model.post_layernorm", tower.width, tower.eps)
    weights.finish(POSITION_IDS, *REST_OF_CLIP)
    mean, std = CLIP_MEAN, CLIP_STD
    if (folder.path / "preprocessor_config.json").is_file():
        pixels = folder.json("preprocessor_config.json")
        mean, std = pixels.get("image_mean", mean), pixels.get("image_std", std)
    official = (tower.width, tower.layers, patch) in {(v, n, p) for v, n, p, *_ in clip.PUBLISHED}
    return Encoder(body, Normalise(mean, std), tuple(n % depth for n in layers), tower.width, official)


class PhotoWords(nn.Module):
    """Pixels u8 [B, 224, 224, 3], black behind the person → words for both encoders, f32 [B, N, D1], [B, N, D2]."""

    def __init__(self, encoders: Mapping[str, Encoder], mapper: nn.Module):
        super().__init__()
        self.names = tuple(encoders)
        self.bodies = nn.ModuleList(e.body for e in encoders.values())
        self.normalise = nn.ModuleList(e.normalise for e in encoders.values())
        self.layers = tuple(e.layers for e in encoders.values())
        self.mapper = mapper

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features: dict[str, list[Tensor]] = {}
        for name, body, normalise, layers in zip(self.names, self.bodies, self.normalise, self.layers, strict=True):
            states = body.states(normalise(pixels))
            features[name] = [states[n].float() for n in layers]
        return self.mapper(features)


def checkpoint_files(checkpoint: Path) -> list[Path]:
    """The files of a StellarNet checkpoint: description, mapper, adapters of the UNet."""
    from stellar_train import lora, mapper

    files = [checkpoint / name for name in (mapper.CONFIG, mapper.WEIGHTS, lora.FILE)]
    for path in files:
        if not path.is_file():
            raise ExportError(f"{path} is missing: a StellarNet checkpoint has {', '.join(p.name for p in files)}")
    return files


def trained(checkpoint: Path, outputs: tuple[int, int]) -> tuple[nn.Module, dict]:
    """The mapper of a StellarNet checkpoint, for text encoders of these widths, and the checkpoint's description."""
    from stellar_train.errors import TrainError
    from stellar_train.mapper import load

    checkpoint_files(checkpoint)
    try:
        mapper, config = load(checkpoint)
    except TrainError as error:
        raise ExportError(str(error)) from error
    for tower in config["encoders"]:
        banks = mapper.get_submodule(tower)
        found = tuple(banks[n].mapping_0[-1].out_features for n in ("1", "2"))
        if found != outputs:
            raise ExportError(
                f"{checkpoint}: its words are of {found} values, the base model's text encoders take {outputs}"
            )
        layers, words = config["layers"][tower], config["words"]
        if len(layers) != words:
            raise ExportError(f"{checkpoint}: {tower} has {len(layers)} layers for {words} words")
    return mapper.requires_grad_(False), config


def pixels_of_photo(photo, mask):
    """The pixels of `PhotoWords` for Pillow images: the photo (RGB) on black where the mask has no colour.

    The dataset's masks are coloured by part of the face, so any channel above 0 is foreground. `mask` may be None.
    """
    import numpy as np
    from PIL import Image

    if mask is not None:
        seen = np.asarray(mask.convert("RGB").resize(photo.size, Image.Resampling.NEAREST)).max(axis=2) > 0
        photo = Image.fromarray(np.asarray(photo) * seen[..., None].astype(np.uint8))
    return np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
