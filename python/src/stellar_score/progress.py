"""A progress bar: tqdm where it is installed, otherwise one line on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any, Optional

__all__ = ["Bar"]


class Bar:
    """Counts up to a total. Shows nothing if ``shown`` is false, or if the standard error is no terminal."""

    def __init__(self, title: str, total: int, shown: bool = True) -> None:
        self._title = title
        self._total = total
        self._at = 0
        self._last = 0.0
        self._line = False
        self._tqdm: Optional[Any] = None
        if not shown:
            return
        try:
            from tqdm.auto import tqdm  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            self._line = sys.stderr.isatty()
        else:
            self._tqdm = tqdm(total=total, desc=title, unit="image")

    def update(self, at: int, total: Optional[int] = None) -> None:
        """Moves the bar to ``at``, and changes its total."""
        self._at = at
        self._total = self._total if total is None else total
        if self._tqdm is not None:
            self._tqdm.total = self._total
            self._tqdm.n = at
            self._tqdm.refresh()
        elif self._line and time.monotonic() - self._last > 0.2:
            self._last = time.monotonic()
            self._show("")

    def _show(self, end: str) -> None:
        print(f"\r{self._title}: {self._at}/{self._total}", end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._tqdm is not None:
            self._tqdm.close()
        elif self._line:
            self._show("\n")

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
