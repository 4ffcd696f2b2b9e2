"""From photo and mask to what the models read: the target, its mask in latents, and the input of the vision towers."""

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from stellar_export.preprocess import CLIP_MEAN, CLIP_STD

from .errors import TrainError

_BLACK = (0, 0, 0)


def photo(path) -> Image.Image:
    """A photo as RGB, turned as its EXIF orientation says."""
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: not an image that can be read: {error}") from error


def foreground(path, size: tuple[int, int]) -> Image.Image:
    """A mask as mode L, 255 where any channel is above 0: CelebAMask's masks are palettes, skin is (204, 0, 0)."""
    shown = np.asarray(photo(path)).max(axis=2) > 0
    if not shown.any():
        raise TrainError(f"{path}: the mask is black everywhere: it must have another colour where the person is")
    return Image.fromarray(shown.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)


def on_black(picture: Image.Image, mask: Image.Image | None) -> Image.Image:
    """The photo with a black background; without a mask the photo itself."""
    return picture if mask is None else Image.composite(picture, Image.new("RGB", picture.size, _BLACK), mask)


def target(picture: Image.Image, side: int) -> Tensor:
    """The picture that the model learns to make: [3, side, side] in [−1, 1], centre crop of the resized photo."""
    square = _square(picture, side, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1


def latent_mask(mask: Image.Image, side: int, factor: int) -> Tensor:
    """The mask [1, side/factor, side/factor] of latents: 1 where any pixel below is foreground (max pooling)."""
    square = torch.from_numpy(np.array(_square(mask, side, Image.Resampling.NEAREST))).float() / 255
    return torch.nn.functional.max_pool2d(square[None], factor)


def _square(picture: Image.Image, side: int, filter_: Image.Resampling) -> Image.Image:
    width, height = picture.size
    scale = side / min(width, height)
    resized = picture.resize((max(side, round(width * scale)), max(side, round(height * scale))), filter_)
    left, top = (resized.width - side) // 2, (resized.height - side) // 2
    return resized.crop((left, top, left + side, top + side))


def clip_input(picture: Image.Image, side: int) -> Tensor:
    """The input [3, side, side] of a vision tower: squeezed to a square as in the reference, bicubic, normalised."""
    pixels = np.array(picture.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    normalised = (pixels - np.float32(CLIP_MEAN)) / np.float32(CLIP_STD)
    return torch.from_numpy(normalised).permute(2, 0, 1).contiguous()


def augmented(picture: Image.Image, generator: torch.Generator) -> Image.Image:
    """ELITE's augmentation of the mapper's input: flip, rotation up to 20°, blur and elastic distortion."""
    flip, angle, blur, elastic = torch.rand(4, generator=generator).tolist()
    if flip < 0.5:
        picture = ImageOps.mirror(picture)
    picture = picture.rotate(40 * angle - 20, Image.Resampling.BICUBIC, fillcolor=_BLACK)
    if blur < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 200))
    return _elastic(picture, generator) if elastic < 0.3 else picture


def _elastic(picture: Image.Image, generator: torch.Generator) -> Image.Image:
    """Moves pixels along a smooth random field by at most some 4 % of the side."""
    coarse = 0.04 * torch.randn(1, 2, 6, 6, generator=generator).clamp(-2, 2)
    width, height = picture.size
    field = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    whole = torch.eye(2, 3)[None]
    grid = torch.nn.functional.affine_grid(whole, [1, 1, height, width], align_corners=False)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    moved = torch.nn.functional.grid_sample(
        pixels, grid + field.permute(0, 2, 3, 1), padding_mode="zeros", align_corners=False
    )
    return Image.fromarray(moved[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy())
