"""Token tables of which only the rows of the drawn world's words are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

# Rows of other words that stand between the known ones while training, so that unknown words change little.
STRANGERS = 256


class Rows(nn.Module):
    """In place of a token table: the rows of known tokens, which are trained, and of some others, which are not.

    Ids stay in order, so that the largest one still ends a text of CLIP's.
    """

    def __init__(self, table: Tensor, known: Iterable[int], seed: int):
        super().__init__()
        self.known = torch.tensor(sorted(set(known)))
        rng = np.random.default_rng(seed)
        others = np.setdiff1d(np.arange(300, len(table) - 4), self.known.numpy())
        self.strangers = torch.from_numpy(np.sort(rng.choice(others, STRANGERS, replace=False)))
        self.trained = nn.Parameter(table[self.known].clone())
        self.register_buffer("fixed", table[self.strangers].clone())
        row = torch.full((len(table),), -1)
        row[self.strangers] = torch.arange(STRANGERS)
        row[self.known] = STRANGERS + torch.arange(len(self.known))
        self.row = row

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.row[ids]
        assert (rows >= 0).all(), "a token of neither kind"
        return nn.functional.embedding(rows, torch.cat([self.fixed, self.trained]))


def disturbed(ids: list[int], rows: Rows, rng: np.random.Generator) -> list[int]:
    """The tokens of a text with a stranger or two between them, now and then; the first and the last stay."""
    ids = list(ids)
    while rng.random() < 0.3:
        ids.insert(int(rng.integers(1, len(ids))), int(rng.choice(rows.strangers.numpy())))
    return ids


def padded(texts: Sequence[Sequence[int]], pad: int) -> Tensor:
    longest = max(map(len, texts))
    return torch.tensor([[*t, *[pad] * (longest - len(t))] for t in texts])


def known_tokens(encode: Callable[[str], list[int]], texts: Iterable[str]) -> set[int]:
    return {i for text in texts for form in (text, text.lower()) for i in encode(form)}
