"""`python -m stellar_export.drawn_world train|evaluate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import ExportError
from .evaluate import evaluate
from .train import TRAINERS, train
from .weights import FOLDER


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    top = argparse.ArgumentParser(prog="stellar_export.drawn_world", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    command = commands.add_parser("train", help="train the demo pack's models on drawings")
    command.add_argument("--drawings", type=Path, required=True, help="the folder that the example `drawings` wrote")
    command.add_argument("--out", type=Path, default=FOLDER, help="folder of the weights")
    command.add_argument("--only", default="", metavar="NAMES", help=f"comma-separated, of: {', '.join(TRAINERS)}")
    test = commands.add_parser("evaluate", help="print how well each metric tells right from wrong")
    test.add_argument("--drawings", type=Path, required=True)
    test.add_argument("--only", default="", metavar="NAMES", help=f"comma-separated, of: {', '.join(TRAINERS)}")
    test.add_argument("--count", type=int, default=200, help="how many drawings are asked about")
    test.add_argument("--random", action="store_true", help="of random weights, to compare with")
    arguments = top.parse_args()
    try:
        if arguments.command == "evaluate":
            models = [m for m in arguments.only.split(",") if m] or list(TRAINERS)
            evaluate(arguments.drawings, models, arguments.count, say, trained=not arguments.random)
            return 0
        models = [m for m in arguments.only.split(",") if m] or list(TRAINERS)
        train(arguments.drawings, arguments.out, models, say)
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
