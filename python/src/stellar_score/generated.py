"""Images that the service generates."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple, Tuple

from . import errors
from .transport import Response

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["TIMEOUT", "Generated"]

# The service's own deadline for an image is ten minutes.
TIMEOUT = 660.0

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Generated(NamedTuple):
    """A generated image."""

    png: bytes
    """The PNG file, whose text ``stellar-score`` is JSON with the pack and the settings."""
    flags: Tuple[str, ...]
    """What was not as expected, such as ``unmasked``."""

    def image(self) -> Image:
        """Returns the image as a PIL image. It needs Pillow."""
        try:
            from PIL import Image
        except ImportError:
            raise ImportError("image() needs Pillow: install it, or use png, the bytes of the file") from None
        return Image.open(io.BytesIO(self.png))


def read(response: Response) -> Generated:
    """Returns the image of a response. Raises :class:`ForeignResponse` for one that is not a PNG file."""
    if not response.body.startswith(_SIGNATURE):
        raise errors.ForeignResponse(f"{response.url} did not respond with a PNG file", response.status)
    flags = (flag.strip() for flag in response.headers.get("stellar-flags", "").split(","))
    return Generated(response.body, tuple(flag for flag in flags if flag))
