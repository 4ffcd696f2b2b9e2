"""Images of any kind as pixels or as files.

Files (paths and bytes) are sent as they are. Everything else becomes 8-bit RGB:

* PIL images as Pillow's ``convert("RGB")``, after their EXIF orientation is applied, as the service does with files.
* NumPy arrays, and whatever NumPy can read, are HWC or BHWC (or HW, grey). Torch tensors are CHW or BCHW (or HW).
* One channel is grey. A fourth channel is alpha: it is dropped and never composited, as in the service.
* ``uint8`` is taken as it is. Floats are in [0, 1]: they are clamped, multiplied by 255 and rounded, halves to the even
  number. NaN becomes black. Half precision is converted to 32 bits first. Other types are refused.

Floats far outside [0, 1] are most likely of another range, and give a :class:`PixelRangeWarning`.

No library is imported here unless the caller has used it: types are recognised by their attributes.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import struct
import sys
import warnings
import zlib
from typing import Any, List, NamedTuple, Sequence, Tuple, Union

__all__ = ["Image", "PixelRangeWarning", "Pixels", "encode_png", "to_file", "to_images"]

Image = Any
"""A path, the bytes of a file, a PIL image, or an array or tensor of one image."""

_FAR = (-0.5, 1.5)
"""Floats beyond these are not rounding errors of a decoder."""


class PixelRangeWarning(UserWarning):
    """Floats are far outside [0, 1]; they were clamped."""


class Pixels(NamedTuple):
    """An 8-bit RGB image: rows from the top, three bytes a pixel."""

    width: int
    height: int
    data: bytes


def to_images(images: Any) -> List[Union[Pixels, bytes]]:
    """Returns pixels for pixels and bytes for files, in order.

    ``images`` is one image, a sequence of images, or a batch: an array or tensor with four dimensions.
    """
    if isinstance(images, (Pixels, bytes, bytearray, memoryview, str, os.PathLike)) or _is_pil(images):
        return [_single(images)]
    if _is_tensor(images):
        return list(_tensor(images))
    if _is_array(images):
        return list(_array(images))
    if not isinstance(images, Sequence):
        try:
            images = list(images)
        except TypeError:
            raise TypeError(f"{_name(images)} is not an image: {_KINDS}") from None
    converted: List[Union[Pixels, bytes]] = []
    for image in images:
        converted.append(one(image))
    return converted


def one(image: Image) -> Union[Pixels, bytes]:
    """Like :func:`to_images` for exactly one image."""
    if isinstance(image, (list, tuple)) and not isinstance(image, Pixels):
        raise TypeError(f"one image is expected here, not a {_name(image)} of {len(image)}")
    found = to_images(image)
    if len(found) != 1:
        raise ValueError(f"one image is expected here, not a batch of {len(found)}: pass them one by one")
    return found[0]


def split(images: Any) -> List[Any]:
    """Returns the images of a sequence or batch without converting them."""
    if isinstance(images, (Pixels, bytes, bytearray, memoryview, str, os.PathLike)) or _is_pil(images):
        return [images]
    if _is_tensor(images) or _is_array(images):
        return list(images) if images.ndim == 4 else [images]
    try:
        return list(images)
    except TypeError:
        raise TypeError(f"{_name(images)} is not an image: {_KINDS}") from None


def size_of(image: Image) -> int:
    """Returns about how many bytes an image has in a request, without converting it."""
    if isinstance(image, Pixels):
        return len(image.data)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return 4 * len(image) // 3
    if _is_pil(image):
        return int(3 * image.width * image.height)
    if _is_tensor(image) or _is_array(image):
        sides = sorted(int(side) for side in image.shape)[-2:]
        return 3 * sides[0] * sides[-1]
    return 4 * os.stat(image).st_size // 3


def to_file(image: Image, compression: int = 1) -> bytes:
    """Returns the bytes of an image file: those of the given file, or a lossless PNG of the pixels."""
    found = one(image)
    return found if isinstance(found, bytes) else encode_png(found, compression)


_KINDS = "give a path, the bytes of a file, a PIL image, a NumPy array (HWC) or a torch tensor (CHW)"


def _single(image: Any) -> Union[Pixels, bytes]:
    if isinstance(image, Pixels):
        if len(image.data) != 3 * image.width * image.height:
            raise ValueError(f"{image.width}x{image.height} RGB pixels are not {len(image.data)} bytes")
        return image
    if isinstance(image, bytes):
        return image
    if isinstance(image, (bytearray, memoryview)):
        return bytes(image)
    if _is_pil(image):
        return _pil(image)
    with open(image, "rb") as file:
        return file.read()


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


def _is_pil(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "mode") and hasattr(value, "tobytes")


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "data_ptr")


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


_ORIENTATION = 0x0112
# Pillow's transpositions for EXIF orientations 2 to 8, by their numbers.
_TRANSPOSITIONS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


def _pil(image: Any) -> Pixels:
    getexif = getattr(image, "getexif", None)
    if getexif is not None:
        turn = _TRANSPOSITIONS.get(getexif().get(_ORIENTATION, 1))
        if turn is not None:
            image = image.transpose(turn)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return Pixels(image.width, image.height, image.tobytes())


def _shape_error(shape: Tuple[int, ...], layout: str, swapped: bool, way: str) -> ValueError:
    hint = f"; channels seem to be elsewhere: {way}" if swapped else ""
    return ValueError(f"an image of shape {tuple(shape)}: expected {layout} with 1, 3 or 4 channels{hint}")


def _warn_range(low: float, high: float) -> None:
    if low < _FAR[0] or high > _FAR[1]:
        message = (
            f"floats from {low:g} to {high:g} are clamped to [0, 1]: convert [-1, 1] with x / 2 + 0.5, "
            "and [0, 255] to uint8"
        )
        warnings.warn(message, PixelRangeWarning, stacklevel=2)


def _array(given: Any) -> List[Pixels]:
    # Others that NumPy can read, such as jax, depend on it.
    numpy: Any = importlib.import_module("numpy")
    array = numpy.asarray(given)
    kind = str(array.dtype)
    if array.ndim == 2:
        array = array[None, :, :, None]
    elif array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[3] not in (1, 3, 4):
        swapped = array.ndim == 4 and array.shape[1] in (1, 3, 4)
        raise _shape_error(given.shape, "HWC or BHWC", swapped, "move them to the end with numpy.moveaxis(x, -3, -1)")
    if 0 in array.shape:
        raise ValueError(f"an image of shape {tuple(given.shape)} has no pixels")
    if array.shape[3] == 4:
        array = array[..., :3]
    if kind in ("float16", "float32", "float64", "bfloat16"):
        work = array.astype(numpy.float32 if kind != "float64" else numpy.float64)
        with numpy.errstate(invalid="ignore"):
            _warn_range(float(numpy.fmin.reduce(work, axis=None)), float(numpy.fmax.reduce(work, axis=None)))
        # fmax and fmin prefer the number to NaN, so that NaN becomes 0.
        numpy.fmax(work, 0, out=work)
        numpy.fmin(work, 1, out=work)
        work *= 255
        numpy.rint(work, out=work)
        array = work.astype(numpy.uint8)
    elif kind != "uint8":
        raise TypeError(f"an array of {kind}: convert it to uint8, or to floats in [0, 1]")
    if array.shape[3] == 1:
        array = numpy.repeat(array, 3, axis=3)
    _, height, width, _ = array.shape
    return [Pixels(width, height, numpy.ascontiguousarray(each).tobytes()) for each in array]


def _tensor(given: Any) -> List[Pixels]:
    tensor = given.detach()
    kind = str(tensor.dtype).replace("torch.", "")
    if tensor.ndim == 2:
        tensor = tensor[None, None]
    elif tensor.ndim == 3:
        tensor = tensor[None]
    if tensor.ndim != 4 or tensor.shape[1] not in (1, 3, 4):
        swapped = tensor.ndim == 4 and tensor.shape[3] in (1, 3, 4)
        raise _shape_error(given.shape, "CHW or BCHW", swapped, "move them to the front with x.movedim(-1, -3)")
    if 0 in tensor.shape:
        raise ValueError(f"an image of shape {tuple(given.shape)} has no pixels")
    if tensor.shape[1] == 4:
        tensor = tensor[:, :3]
    if kind in ("float16", "bfloat16", "float32", "float64"):
        work = tensor if kind in ("float32", "float64") else tensor.float()
        # On the device of the tensor: three quarters fewer bytes are copied from a GPU.
        work = work.nan_to_num(nan=0.0, posinf=float("inf"), neginf=float("-inf"))
        low, high = work.aminmax()
        _warn_range(float(low), float(high))
        tensor = work.clamp(0, 1).mul_(255).round_().byte()
    elif kind != "uint8":
        raise TypeError(f"a tensor of {kind}: convert it to uint8, or to floats in [0, 1]")
    if tensor.shape[1] == 1:
        tensor = tensor.expand(-1, 3, -1, -1)
    tensor = tensor.permute(0, 2, 3, 1).contiguous().cpu()
    _, height, width, _ = tensor.shape
    # Works without NumPy too. `tensor` stays alive until the bytes are copied.
    size = 3 * width * height
    start = tensor.data_ptr()
    return [Pixels(width, height, ctypes.string_at(start + size * at, size)) for at in range(tensor.shape[0])]


def encode_png(pixels: Pixels, compression: int = 1) -> bytes:
    """Returns a lossless PNG. ``compression`` is zlib's level from 0, which only stores, to 9."""
    width, height, data = pixels
    if not width or not height:
        raise ValueError("an image without pixels")
    row = 3 * width
    numpy: Any = sys.modules.get("numpy")
    if compression and numpy is not None:
        # Filter 2, the difference to the row above: smaller and faster to compress than no filter.
        rows = numpy.frombuffer(data, numpy.uint8).reshape(height, row)
        filtered = numpy.empty((height, row + 1), numpy.uint8)
        filtered[:, 0] = 2
        filtered[0, 1:] = rows[0]
        numpy.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
        raw = filtered.tobytes()
    else:
        view = memoryview(data)
        raw = b"".join(part for at in range(0, row * height, row) for part in (b"\0", view[at : at + row]))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(raw, compression)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))))
