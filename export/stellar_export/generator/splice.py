"""Token ids of a prompt in which the words of a photo stand for `{}`.

This is the rule that the service follows; the tests hold it to diffusers' expansion of a placeholder with several
vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ExportError

PLACEHOLDER = "{}"
CONTEXT = 77


@dataclass(frozen=True)
class Spliced:
    """What a text graph is given for a prompt."""

    ids: list[int]
    """Of the whole context; 0 at the positions of the words."""
    at: int
    """Position of the first word, -1 if there is none. The begin token has position 0."""
    eos: int
    """Position of the end token."""
    truncated: bool
    """Whether tokens were left out so that the end token fits."""


def splice(tokenizer, prompt: str, words: int, pad: int) -> Spliced:
    """Tokenizes both sides of the placeholder and puts `words` positions between them.

    `tokenizer` is a CLIP tokenizer of transformers. If the prompt is too long, its right side is cut first, then the
    left; the words stay. Raises `ExportError` for more than one placeholder.
    """
    left, *rest = prompt.split(PLACEHOLDER)
    if len(rest) > 1:
        raise ExportError(f"the prompt has {len(rest)} placeholders {PLACEHOLDER}; leave one")
    before, after = (_ids(tokenizer, text) for text in (left, rest[0] if rest else ""))
    count = words if rest else 0
    room = CONTEXT - 2 - count
    kept_before = before[:room]
    kept_after = after[: room - len(kept_before)]
    inner = [*kept_before, *[0] * count, *kept_after]
    ids = [tokenizer.bos_token_id, *inner, tokenizer.eos_token_id]
    return Spliced(
        ids=ids + [pad] * (CONTEXT - len(ids)),
        at=len(kept_before) + 1 if rest else -1,
        eos=len(ids) - 1,
        truncated=len(before) + len(after) > room,
    )


def _ids(tokenizer, text: str) -> list[int]:
    # Without a limit: a warning about long texts would be wrong here.
    return tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
