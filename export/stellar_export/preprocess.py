"""Reads the geometry and the normalisation of an image tower from its `preprocessor_config.json`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .checkpoints import Folder
from .errors import ExportError

FILTERS = {2: "bilinear", 3: "bicubic"}  # PIL's numbers

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the graph's input, and the numbers the graph applies itself."""

    geometry: dict
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def height(self) -> int:
        return self.geometry["height"]

    @property
    def width(self) -> int:
        return self.geometry["width"]


def shortest_edge(size: int, filter: str = "bicubic", crop: str = "floor") -> dict:
    """Shortest edge to `size`, then a centred square."""
    return dict(resize="shortest_edge", height=size, width=size, filter=filter, crop=crop, dtype="u8")


def exact(height: int, width: int, filter: str) -> dict:
    """Both sides at once, the aspect ratio is lost."""
    return dict(resize="exact", height=height, width=width, filter=filter, crop="none", dtype="u8")


def bounded(shortest: int, longest: int, filter: str) -> dict:
    """The shortest edge to `shortest`, or the longest to `longest` if that is less; the aspect ratio stays."""
    return dict(resize="bounded", shortest=shortest, longest=longest, filter=filter, crop="none", dtype="u8")


def letterbox(size: int) -> dict:
    """HPSv2's own: the longest side to `size` in floats, padded with black to a square."""
    return dict(resize="letterbox", height=size, width=size, filter="bicubic", crop="none", dtype="f32")


def read(folder: Folder) -> Preprocess:
    """The canonical ("slow", PIL) image processor that the file describes."""
    config, refuse, filter, mean, std = _common(folder, 3)
    size = config["size"]
    crops = config.get("do_center_crop", "crop_size" in config)
    if isinstance(size, int):
        size = {"shortest_edge": size} if crops else {"height": size, "width": size}
    elif isinstance(size, list):
        size = {"height": size[0], "width": size[1]}
    if crops:
        crop = config.get("crop_size", size)
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        side = size.get("shortest_edge")
        if side is None or (crop.get("height"), crop.get("width")) != (side, side):
            raise refuse(f"a crop of {crop} from a size of {size} is not supported, only a square of the shortest edge")
        return Preprocess(shortest_edge(side, filter), mean, std)
    if "height" not in size or "width" not in size:
        raise refuse(f"size {size} without a crop gives pictures of no fixed size")
    return Preprocess(exact(size["height"], size["width"], filter), mean, std)


def read_bounded(folder: Folder) -> Preprocess:
    """DETR's image processor: `size` and `max_size`, or `shortest_edge` and `longest_edge` of later versions."""
    config, refuse, filter, mean, std = _common(folder, 2)
    size, longest = config.get("size"), config.get("max_size")
    if isinstance(size, dict):
        size, longest = size.get("shortest_edge"), size.get("longest_edge")
    if not isinstance(size, int) or not isinstance(longest, int) or not 0 < size <= longest:
        raise refuse(f"size {config.get('size')} is no shortest and longest edge")
    return Preprocess(bounded(size, longest, filter), mean, std)


def _common(
    folder: Folder, resample: int
) -> tuple[dict, Callable[[str], ExportError], str, tuple[float, ...], tuple[float, ...]]:
    """The file, how to refuse it, the filter (`resample` if it names none), mean and standard deviation."""
    name = "preprocessor_config.json"
    config = folder.json(name)

    def refuse(why: str) -> ExportError:
        return ExportError(f"{folder.path / name}: {why}")

    if not config.get("do_resize", True) or not config.get("do_normalize", True) or not config.get("do_rescale", True):
        raise refuse("pictures that are not resized, rescaled and normalised are not supported")
    if abs(config.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-12:
        raise refuse(f"rescale_factor {config['rescale_factor']} is not 1/255")
    resample = config.get("resample", resample)
    if resample not in FILTERS:
        raise refuse(f"resample {resample} is neither 2 (bilinear) nor 3 (bicubic)")
    mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    if len(mean) != 3 or len(std) != 3:
        raise refuse("image_mean and image_std need three values each")
    return config, refuse, FILTERS[resample], mean, std
