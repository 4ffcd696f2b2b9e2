"""Bodies of requests: multipart forms, and tensors in the safetensors format."""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple, Union

__all__ = ["Field", "form", "safetensors"]

Field = Tuple[str, Union[str, bytes]]
"""The name of a field with its text, or with the bytes of a file."""


def form(fields: Iterable[Field]) -> Tuple[List[bytes], str]:
    """Returns a multipart form and its content type. Files are not copied."""
    # 128 random bits are in no file.
    boundary = os.urandom(16).hex()
    buffers: List[bytes] = []
    lead = ""
    for name, value in fields:
        file = '; filename="file"' if isinstance(value, bytes) else ""
        head = f'{lead}--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        buffers.append(head.encode("ascii"))
        buffers.append(value if isinstance(value, bytes) else value.encode("utf-8"))
        lead = "\r\n"
    buffers.append(f"{lead}--{boundary}--\r\n".encode("ascii"))
    return [buffer for buffer in buffers if buffer], f"multipart/form-data; boundary={boundary}"


def safetensors(
    tensors: Mapping[str, Tuple[Sequence[int], Sequence[bytes]]], metadata: Mapping[str, str]
) -> List[bytes]:
    """Returns a file in the safetensors format with 8-bit tensors: for each, its shape and its buffers in order."""
    header: Dict[str, Any] = {"__metadata__": dict(metadata)}
    buffers: List[bytes] = []
    at = 0
    for name, (shape, data) in tensors.items():
        end = at + sum(map(len, data))
        header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [at, end]}
        buffers += data
        at = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    # The format wants the data to begin at a multiple of eight.
    text += b" " * (-len(text) % 8)
    return [struct.pack("<Q", len(text)) + text, *buffers]
