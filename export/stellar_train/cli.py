"""The command line."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stellar_export.errors import ExportError

from .configuration import METHODS, Configuration, defaults_text
from .errors import TrainError

_ABOUT = {
    "stellarnet": "trains a StellarNet-like mapper and LoRA on photos of people",
    "elite": "trains ELITE's global mapping on photos of people",
    "images": "generates the images of a dataset with an ELITE checkpoint",
    "dreambooth": "trains a LoRA for each photo of a dataset, and generates with it",
    "textual-inversion": "trains word vectors for each photo of a dataset, and generates with them",
    "preference": "trains the LoRA of a StellarNet-like checkpoint further, on the rewards of its pictures",
    "base": "trains a tiny base model whole, on pictures with captions",
}

# What --checkpoint takes.
_CHECKPOINTS = {
    "images": ("PATH", "a folder of `elite`, or a global_mapper.pt"),
    "preference": ("DIR", "trained model"),
}

# Where packages are from that not every part of training needs.
_PACKAGES = {
    "diffusers": "pip install --no-deps -r requirements-reference.txt",
    "stellar_score": "install the Python client of this repository, python/",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="stellar_train", description="Trains generators of images of people.")
    commands = top.add_subparsers(dest="command", required=True)
    for method in METHODS:
        command = commands.add_parser(method, help=_ABOUT[method], description=_ABOUT[method])
        command.add_argument("--config", type=Path, metavar="FILE", help="TOML file; keys that it lacks have defaults")
        command.add_argument("--print-config", action="store_true", help="print the file with all defaults, and exit")
        command.add_argument("--base", metavar="DIR", help="base model (base.folder)")
        key = "dataset" if method in ("images", "dreambooth", "textual-inversion") else "folder"
        command.add_argument("--data", metavar="DIR", help=f"data (data.{key})")
        if method in _CHECKPOINTS:
            metavar, what = _CHECKPOINTS[method]
            command.add_argument("--checkpoint", metavar=metavar, help=f"{what} (model.checkpoint)")
        command.add_argument("--out", type=Path, metavar="DIR", help="folder of the result; continues what is there")
        command.add_argument(
            "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a key of the configuration"
        )
        command.add_argument("--quiet", action="store_true", help="no progress on stderr")
        command.set_defaults(data_key=key, checkpoint=None)
    acceptance = commands.add_parser("acceptance", help="train on made-up identities and check that they are learned")
    acceptance.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder for data and models")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        if arguments.command == "acceptance":
            from .acceptance import accept

            return accept(arguments.work)
        return _train(arguments)
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _train(arguments: argparse.Namespace) -> int:
    method = arguments.command
    if arguments.print_config:
        print(defaults_text(method), end="")
        return 0
    if arguments.out is None:
        raise TrainError("--out is missing: give the folder of the result")
    settings = list(arguments.set)
    configuration = Configuration(method, arguments.config, settings)
    if arguments.base:
        configuration.values["base"]["folder"] = arguments.base
    if arguments.data:
        configuration.values["data"][arguments.data_key] = arguments.data
    if arguments.checkpoint:
        configuration.values["model"]["checkpoint"] = arguments.checkpoint
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        if method in ("stellarnet", "elite"):
            from .runs import from_photos as train
        elif method == "images":
            from .images import generate as train
        elif method == "preference":
            from .preference import train
        elif method == "base":
            from .whole import train
        else:
            from .subjects import train
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        raise TrainError(f"{error.name} is not installed: {_PACKAGES[error.name]}") from error
    train(configuration, arguments.out, arguments.quiet)
    return 0
