"""What a training says while it runs: metrics.jsonl, TensorBoard where it is installed, and the time left on stderr."""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from . import files

METRICS = "metrics.jsonl"


def say(line: str, quiet: bool = False) -> None:
    if not quiet:
        print(line, file=sys.stderr, flush=True)


class Report:
    """Continues after `step`: lines of later steps, which an interrupted training wrote, are removed."""

    def __init__(self, out: Path, step: int, steps: int, quiet: bool = False) -> None:
        self.out, self.first, self.steps, self.quiet = out, step, steps, quiet
        path = out / METRICS
        old = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in old if line.endswith("}") and json.loads(line)["step"] <= step]
        files.write(path, "".join(line + "\n" for line in kept).encode())
        self._lines = open(path, "a", encoding="utf-8")  # noqa: SIM115 closed by `close`
        self._board = self._tensorboard()
        self._began = self._said = time.monotonic()

    def _tensorboard(self):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.say("tensorboard is not installed: losses go to metrics.jsonl only")
            return None
        return SummaryWriter(str(self.out / "tensorboard"), purge_step=self.first + 1)

    def say(self, line: str) -> None:
        say(line, self.quiet)

    def add(self, step: int, values: dict[str, float]) -> None:
        # In fp16 the gradient of a step that is skipped is not finite, which JSON cannot say.
        known = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **known}) + "\n")
        self._lines.flush()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        now = time.monotonic()
        if now - self._said >= 2 or step == self.steps:
            self._said = now
            left = (now - self._began) / max(1, step - self.first) * (self.steps - step)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
            self.say(f"step {step} of {self.steps}  {shown}  {duration(left)} left")

    def image(self, step: int, picture: Image.Image) -> None:
        path = self.out / "validation" / f"step-{step:08}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
        if self._board:
            self._board.add_image("validation", np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        self._lines.close()
        if self._board:
            self._board.close()


def duration(seconds: float) -> str:
    """`3 h 5 min`, `5 min` or `12 s`."""
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"
