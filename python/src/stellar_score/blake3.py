"""BLAKE3, by which a run names photos that it has sent before. Written for a few hundred photos, not for speed."""

from __future__ import annotations

import sys
from typing import Any, List, Optional

__all__ = ["hexdigest"]

_IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_QUARTERS = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)
_START, _END, _PARENT, _ROOT = 1, 2, 4, 8
_CHUNK, _BLOCK = 1024, 64


def hexdigest(data: bytes) -> Optional[str]:
    """Returns the hash in hexadecimal digits, or None if the program does not use NumPy: pure Python takes too long."""
    package: Any = sys.modules.get("blake3")
    if package is not None and hasattr(package, "blake3"):
        return str(package.blake3(data).hexdigest())
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return None
    whole = (len(data) - 1) // _CHUNK if data else 0
    # All chunks but the last are computed side by side: row i of `words` is word i of every chunk.
    words = numpy.frombuffer(data, "<u4", whole * _CHUNK // 4).reshape(whole, _CHUNK // 4).T.astype(numpy.uint32)
    last = data[whole * _CHUNK :]
    blocks = max(1, -(-len(last) // _BLOCK))
    padded = numpy.frombuffer(last.ljust(blocks * _BLOCK, b"\0"), "<u4").astype(numpy.uint32)[:, None]
    size = len(last) - (blocks - 1) * _BLOCK
    root = 0 if whole else _ROOT
    nodes = _chunks(numpy, padded, numpy.array([whole], numpy.uint64), size, root)
    if whole:
        left = _chunks(numpy, words, numpy.arange(whole, dtype=numpy.uint64), _BLOCK, 0)
        nodes = numpy.concatenate([left, nodes], axis=1)
    while nodes.shape[1] > 1:
        count = nodes.shape[1]
        pairs = count // 2
        block = [row for side in (0, 1) for row in nodes[:, side : 2 * pairs : 2]]
        flags = _PARENT | (_ROOT if count == 2 else 0)
        start = [numpy.full(pairs, word, numpy.uint32) for word in _IV]
        parents = _compress(numpy, start, block, numpy.zeros(pairs, numpy.uint64), _BLOCK, flags)
        nodes = numpy.concatenate([numpy.stack(parents), nodes[:, 2 * pairs :]], axis=1)
    return bytes(nodes[:, 0].astype("<u4").tobytes()).hex()


def _chunks(numpy: Any, words: Any, counters: Any, last_size: int, root: int) -> Any:
    """Returns the chaining values of chunks with the same number of blocks, one per column."""
    values: List[Any] = [numpy.full(words.shape[1], word, numpy.uint32) for word in _IV]
    blocks = words.shape[0] // 16
    for at in range(blocks):
        is_last = at == blocks - 1
        flags = (_START if at == 0 else 0) | (_END | root if is_last else 0)
        block = list(words[16 * at : 16 * at + 16])
        values = _compress(numpy, values, block, counters, last_size if is_last else _BLOCK, flags)
    return numpy.stack(values)


def _compress(numpy: Any, values: List[Any], block: List[Any], counters: Any, size: int, flags: int) -> List[Any]:
    """The compression function, for many nodes at a time: every word is an array."""

    def word(value: int) -> Any:
        return numpy.full(len(counters), value, numpy.uint32)

    state = [*values, *map(word, _IV[:4]), counters.astype(numpy.uint32)]
    state += [(counters >> numpy.uint64(32)).astype(numpy.uint32), word(size), word(flags)]

    def rotated(value: Any, by: int) -> Any:
        return (value >> numpy.uint32(by)) | (value << numpy.uint32(32 - by))

    for _ in range(7):
        for nth, (a, b, c, d) in enumerate(_QUARTERS):
            for half, (first, second) in enumerate(((16, 12), (8, 7))):
                state[a] = state[a] + state[b] + block[2 * nth + half]
                state[d] = rotated(state[d] ^ state[a], first)
                state[c] = state[c] + state[d]
                state[b] = rotated(state[b] ^ state[c], second)
        block = [block[at] for at in _ORDER]
    return [state[at] ^ state[at + 8] for at in range(8)]
