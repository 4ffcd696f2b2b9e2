"""The command line: `python -m stellar_export build …`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from . import EXPORTER
from .errors import ExportError

TINY = {"tiny-sdxl": "SDXL", "tiny-sd": "Stable Diffusion 1.x"}
ENCODERS = {"tiny-sdxl": "two image encoders", "tiny-sd": "one image encoder"}


def parser() -> argparse.ArgumentParser:
    from .families import DEFAULT_CLIP, FAMILIES
    from .hps import HPSV2_FILES
    from .random_checkpoints import Sizes

    top = argparse.ArgumentParser(
        prog="stellar_export", description="Turns checkpoints into stellar-score model packs."
    )
    top.add_argument("--version", action="version", version=EXPORTER)
    commands = top.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build",
        help="build a pack",
        description="Builds a pack from official checkpoints: those under --checkpoints, the rest from the hub by id.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    build.add_argument("--out", type=Path, required=True, help="pack folder to write; an existing pack is replaced")
    build.add_argument("--checkpoints", type=Path, help="folder with hub/<id>/… and files/… (see README.md)")
    build.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="of weights and arithmetic")
    build.add_argument(
        "--for",
        choices=("cpu", "gpu"),
        default="cpu",
        dest="device",
        help="where the pack is to be served: attention as one node is fast on GPUs and slow on processors",
    )
    build.add_argument("--only", default="", metavar="NAMES", help=f"comma-separated, of: {', '.join(FAMILIES)}")
    build.add_argument("--clip", default=DEFAULT_CLIP, metavar="HUB_ID", help="the CLIP of clip_t, clip_i and clip_n")
    build.add_argument("--hps", choices=tuple(HPSV2_FILES), default="v2.0", help="version of the HPSv2 checkpoint")
    build.add_argument("--name", help="the pack's name; default: the folder's")
    build.add_argument("--demo", action="store_true", help="mark the pack as demo, whatever its sizes")
    build.add_argument(
        "--no-goldens",
        action="store_true",
        help="leave out the reference scores (they cost a forward pass of the original code)",
    )
    build.add_argument(
        "--external-above", type=int, default=256, metavar="MIB", help="larger weights go to a file beside the graph"
    )
    build.add_argument(
        "--flops", action="store_true", help="write how much arithmetic each graph is, for `stellar-score bench graphs`"
    )
    rand = build.add_argument_group(
        "random weights", "checkpoints in the official layouts are made first; the pack is a demo pack"
    )
    rand.add_argument("--random", action="store_true", help="make random checkpoints (under --checkpoints, if given)")
    rand.add_argument("--seed", type=int, default=0)
    rand.add_argument(
        "--published-sizes",
        action="store_true",
        help="the sizes of the published models, each its own, instead of those below",
    )
    rand.add_argument(
        "--constant-weights",
        action="store_true",
        help="all weights are one number: graphs of any size in a minute, for skeletons of benchmarks; they are not held "
        "to PyTorch, and their scores mean nothing",
    )
    for field in fields(Sizes):
        rand.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    demo = commands.add_parser("demo", help="build the demo pack that is committed with the service")
    demo.add_argument("--out", type=Path, required=True)
    for name, model in TINY.items():
        tiny = commands.add_parser(name, help=f"make a tiny random {model} with {ENCODERS[name]}")
        tiny.add_argument("--out", type=Path, required=True, help="folder to write, absent or empty")
        tiny.add_argument("--seed", type=int, default=0)
    _generator_options(commands)
    return top


def _generator_options(commands: argparse._SubParsersAction) -> None:
    generator = commands.add_parser(
        "generator",
        help="build a generator pack",
        description="Builds a pack that generates pictures from an SDXL base model and a trained StellarNet checkpoint.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    generator.add_argument("--out", type=Path, required=True, help="pack folder to write; an existing pack is replaced")
    generator.add_argument("--base", type=Path, required=True, help="folder of an SDXL as diffusers saves it")
    generator.add_argument("--stellarnet", type=Path, help="trained checkpoint; without it photos have no words")
    generator.add_argument("--image-encoder", type=Path, help="CLIP-L; default: image_encoder/ of --base")
    generator.add_argument("--image-encoder-2", type=Path, help="CLIP bigG; default: image_encoder_2/ of --base")
    generator.add_argument(
        "--mask-model",
        type=Path,
        help="u2net_human_seg.onnx of rembg, which finds the person of a photo; its u2net.onnx, u2netp.onnx and "
        "silueta.onnx find whatever stands out",
    )
    generator.add_argument(
        "--precision", choices=("fp32", "fp16"), default="fp32", help="decoder and masks are always fp32"
    )
    generator.add_argument("--for", choices=("cpu", "gpu"), default="cpu", dest="device", help="where it is to be served")
    generator.add_argument("--name", help="the pack's name; default: the folder's")
    generator.add_argument("--no-goldens", action="store_true", help="leave out the pictures by diffusers")
    generator.add_argument(
        "--external-above", type=int, default=256, metavar="MIB", help="larger weights go to a file beside the graph"
    )
    generator.add_argument("--flops", action="store_true", help="write how much arithmetic each graph is")
    demo = commands.add_parser("demo-generator", help="build the demo generator pack that is committed with the service")
    demo.add_argument("--out", type=Path, required=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    arguments = parser().parse_args(argv)
    commands = {"build": _build, "demo": _demo, "generator": _generator, "demo-generator": _demo_generator}
    commands |= dict.fromkeys(TINY, _tiny)
    try:
        commands[arguments.command](arguments)
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _build(a: argparse.Namespace) -> None:
    from . import pack, random_checkpoints
    from .checkpoints import Checkpoints
    from .families import FAMILIES
    from .nn import PRECISIONS
    from .published_sizes import published

    named = [n.strip() for n in a.only.split(",") if n.strip()]
    if unknown := [n for n in named if n not in FAMILIES]:
        raise ExportError(f"--only: unknown {', '.join(unknown)}; known are {', '.join(FAMILIES)}")
    models = [m for m in FAMILIES if m in named] if named else list(FAMILIES)
    if a.checkpoints and not a.random and not a.checkpoints.is_dir():
        raise ExportError(f"--checkpoints: {a.checkpoints} is not a folder")
    pack.refuse_to_overwrite(a.out)
    if a.precision == "int8" and a.device == "gpu":
        raise ExportError("--precision int8 is for processors: for GPUs build with fp16")
    if not a.random and (a.published_sizes or a.constant_weights):
        raise ExportError("--published-sizes and --constant-weights are about random weights: give --random as well")
    if a.constant_weights and not a.no_goldens:
        raise ExportError("--constant-weights: no score of such weights means anything: give --no-goldens as well")

    def build_from(root: Path | None) -> None:
        pack.build(
            Checkpoints(root, say=_say),
            a.out,
            precision=PRECISIONS[a.precision],
            models=models,
            named=bool(named) or a.random,
            clip=a.clip,
            hps=a.hps,
            name=a.name or a.out.resolve().name,
            demo=a.demo or a.random,
            goldens=not a.no_goldens,
            external_above=a.external_above * 2**20,
            gpu=a.device == "gpu",
            flops=a.flops,
            checked=not a.constant_weights,
            say=_say,
        )

    if not a.random:
        return build_from(a.checkpoints)
    sizes = random_checkpoints.Sizes(**{f.name: getattr(a, f.name) for f in fields(random_checkpoints.Sizes)})
    if a.published_sizes:
        if sizes != random_checkpoints.Sizes():
            raise ExportError("--published-sizes: leave out the options that set single sizes")
        sizes = published(models, a.clip)
    with tempfile.TemporaryDirectory(prefix="stellar-export-") as scratch:
        root = a.checkpoints or Path(scratch)
        _say(f"{'constant' if a.constant_weights else 'random'} checkpoints, seed {a.seed}, in {root}")
        random_checkpoints.make(root, a.seed, sizes, models, a.clip, a.hps, a.constant_weights)
        build_from(root)


def _demo(a: argparse.Namespace) -> None:
    from . import demo, pack
    from .checkpoints import Checkpoints
    from .nn import FP32

    pack.refuse_to_overwrite(a.out)
    with tempfile.TemporaryDirectory(prefix="stellar-export-") as scratch:
        root = Path(scratch)
        demo.make_checkpoints(root)
        pack.build(
            Checkpoints(root, say=_say),
            a.out,
            precision=FP32,
            models=demo.MODELS,
            named=True,
            clip=demo.CLIP,
            name="demo",
            demo=True,
            goldens=True,
            notice=demo.NOTICE,
            say=_say,
        )


def _tiny(a: argparse.Namespace) -> None:
    from .generator import tiny_sd, tiny_sdxl

    made = {"tiny-sdxl": tiny_sdxl, "tiny-sd": tiny_sd}[a.command]
    made.make(a.out, a.seed)
    _say(f"{a.out}: a random {TINY[a.command]} of seed {a.seed}")


def _generator(a: argparse.Namespace) -> None:
    from .generator.export import Options, build
    from .nn import PRECISIONS

    options = Options(
        a.base,
        a.stellarnet,
        (a.image_encoder, a.image_encoder_2),
        PRECISIONS[a.precision],
        a.device == "gpu",
        a.external_above * 2**20,
        a.flops,
        not a.no_goldens,
        a.mask_model,
    )
    build(options, a.out, a.name or a.out.resolve().name, _say)


def _demo_generator(a: argparse.Namespace) -> None:
    from .generator import demo

    demo.build(a.out, _say)


def _say(line: str) -> None:
    print(line, flush=True)
