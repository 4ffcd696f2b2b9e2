"""Zeroes the code of other GPUs in ONNX Runtime's CUDA provider: it compresses to a third and keeps its size and layout.

The section `.nv_fatbin` is a sequence of containers: a header (magic, version, header size, size) and entries (kind,
version, header size, size; the architecture at byte 28). The code of an entry is between its header and the next entry.
"""

import struct
from pathlib import Path

MAGIC = 0xBA55ED50


def section(data, name):
    """Returns offset and size of a section of a 64-bit ELF file."""
    offset, = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, offset + at * size) for at in range(count)]
    table = headers[names][4]
    for header in headers:
        begins = table + header[0]
        if data[begins : data.index(b"\0", begins)].decode() == name:
            return header[4], header[5]
    raise ValueError(f"the file has no section {name}")


def entries(data, begins, size):
    """Yields (offset of the code, its length, its architecture) of every entry."""
    at, end = begins, begins + size
    while at + 16 <= end:
        magic, _, header, length = struct.unpack_from("<IHHQ", data, at)
        if magic != MAGIC:
            at += 8
            continue
        entry, stop = at + header, at + header + length
        while entry < stop:
            _, _, head, code = struct.unpack_from("<HHIQ", data, entry)
            architecture, = struct.unpack_from("<I", data, entry + 28)
            yield entry + head, code, architecture
            entry += head + code
        at = stop


def thin(source, target, architectures):
    """Writes a copy with the code of only these architectures; returns the number of bytes of code that remain."""
    data = bytearray(Path(source).read_bytes())
    left = 0
    for at, length, architecture in list(entries(data, *section(data, ".nv_fatbin"))):
        if architecture in architectures:
            left += length
        else:
            data[at : at + length] = bytes(length)
    if not left:
        raise ValueError(f"{source} has no code for the architectures {sorted(architectures)}")
    Path(target).write_bytes(data)
    return left


if __name__ == "__main__":
    import sys

    print(thin(sys.argv[1], sys.argv[2], set(map(int, sys.argv[3].split(",")))))
