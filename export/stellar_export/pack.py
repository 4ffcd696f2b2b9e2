"""Builds a pack folder: graphs, tokenizers, goldens, manifest."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from torch import nn

from . import EXPORTER, vocabulary
from .checkpoints import Checkpoints
from .errors import ExportError, MissingCheckpoint
from .families import FAMILIES
from .flops import count
from .jobs import GraphJob, Request
from .manifest import GraphEntry, Manifest, sha256_of
from .nn import ATTENTION_OPSET, FP16, GELU_OPSET, AttentionForm, Precision, attentive, split_products
from .onnx_graph import (
    EXTERNAL_ABOVE,
    OPSET,
    TOLERANCE,
    anonymise,
    check,
    compact,
    release,
    run_torch,
    save,
    to_onnx,
    widen_softmax,
)
from .quantise import quantise

MANIFEST = "pack.toml"


class Builder:
    """Collects graphs and tokenizers in a folder and then describes them."""

    def __init__(
        self,
        folder: Path,
        precision: Precision,
        external_above: int,
        say: Callable[[str], None],
        gpu: bool = False,
        flops: bool = False,
        checked: bool = True,
    ):
        self.folder, self.precision, self.external_above, self.say = folder, precision, external_above, say
        self.gpu, self.flops, self.checked = gpu, flops, checked
        self.graphs: list[GraphEntry] = []
        self.tokenizers: dict[str, list[str]] = {}
        self.demo_reasons: list[str] = []

    def needs_tokenizer(self, name: str, lines: list[str]) -> None:
        if self.tokenizers.setdefault(name, lines) != lines:
            raise ExportError(f"two checkpoints come with different {name} vocabularies")

    def add(self, job: GraphJob) -> None:
        """Exports, checks and lists one graph; takes the module out of the job, to free it before the check."""
        started, role = time.monotonic(), job.roles[-1]
        module, job.module = job.module, None
        precision = job.precision or self.precision
        operations = count(module, job) if self.flops else None
        opset = self._prepare(module, job, precision)
        expected = [run_torch(module, p) for p in job.probes] if self.checked else []
        model = to_onnx(module, job.inputs, job.outputs, job.example, job.shortest, job.longest, job.free, opset)
        del module
        if precision.quantised and not quantise(model):
            raise ExportError(f"{role}: there is no product to be done in eight bits")
        if job.attention and opset == ATTENTION_OPSET and precision == FP16:
            widen_softmax(model)
        if job.compact:
            compact(model)
        files = save(model, self.folder / "graphs" / f"{role}.onnx", self.external_above)
        release(model)
        tolerance = job.looseness * TOLERANCE[precision.name]
        held = "not held to PyTorch"
        if self.checked:
            worst = check(files[0], job.outputs, job.probes, expected, tolerance, job.settled)
            held = f"ONNX Runtime = PyTorch within {worst:.1e}"
        self._enter(job, files, precision, operations, held, started)

    def _prepare(self, module: nn.Module, job: GraphJob, precision: Precision) -> int:
        """Gives the module's attentions the form that suits the device; returns the opset of its graph."""
        parts = attentive(module)
        if self.gpu:
            for part in parts:
                part.form = AttentionForm.NODE
            return ATTENTION_OPSET if parts or job.attention else OPSET
        # In eight bits one product is faster than three, each of which would quantise the tokens anew.
        if not precision.quantised:
            split_products(module)
        return GELU_OPSET if parts else OPSET

    def add_model(self, job: GraphJob, model: onnx.ModelProto, expected: Sequence[Sequence[np.ndarray]]) -> None:
        """Checks and lists a graph that is not made of a PyTorch module; `expected` are its outputs for the probes."""
        started, role = time.monotonic(), job.roles[-1]
        made = ir.from_proto(model)
        anonymise(made)
        files = save(made, self.folder / "graphs" / f"{role}.onnx", self.external_above)
        worst = check(files[0], job.outputs, job.probes, expected, job.looseness * TOLERANCE[job.precision.name])
        self._enter(job, files, job.precision, None, f"as published within {worst:.1e}", started)

    def _enter(
        self, job: GraphJob, files: list[Path], precision: Precision, operations: int | None, held: str, started: float
    ) -> None:
        role = job.roles[-1]
        if not job.official:
            self.demo_reasons.append(role)
        size = sum(f.stat().st_size for f in files)
        self.say(
            f"  {' and '.join(job.roles):24} {_bytes(size):>9}  {time.monotonic() - started:6.1f} s  {held}"
        )
        listed = [self.listed(f) for f in files]
        labels = self._write_labels(role, job.labels) if job.labels else None
        for name in job.roles:
            self.graphs.append(
                GraphEntry(
                    role=name,
                    kind=job.kind,
                    precision=precision.name,
                    max_batch=job.max_batch,
                    files=listed,
                    source=job.source,
                    inputs=job.inputs,
                    outputs=job.outputs,
                    geometry=job.geometry,
                    text=job.text,
                    backend=job.backend,
                    labels=labels,
                    flops=operations,
                )
            )

    def listed(self, file: Path) -> dict:
        """A file of the pack as the manifest names it."""
        return dict(path=file.relative_to(self.folder).as_posix(), sha256=sha256_of(file))

    def _write_labels(self, role: str, labels: dict) -> dict:
        """Writes the names behind a scene graph's numbers."""
        return self.write_json(labels, "labels", f"{role}.json")

    def write_json(self, content: object, *parts: str) -> dict:
        """Writes a file of the pack; returns how the manifest names it."""
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        return self.listed(path)

    def manifest(self, name: str, demo: bool) -> Manifest:
        """Writes the tokenizers; returns the manifest of what was added, an official pack if all of it is."""
        if self.demo_reasons and not demo:
            self.say(f"not of a published size, so this is a demo pack: {', '.join(self.demo_reasons)}")
        return Manifest(
            name=name,
            weights="demo" if demo or self.demo_reasons else "official",
            exporter=EXPORTER,
            tokenizers=self.write_tokenizers(),
            graphs=self.graphs,
        )

    def write_tokenizers(self) -> list[dict]:
        """Writes the vocabularies that the graphs asked for; returns their manifest tables."""
        tables = []
        kinds = {"clip": ("clip_bpe", "clip-merges.txt"), "bert": ("wordpiece", "bert-vocab.txt")}
        for name in sorted(self.tokenizers):
            kind, file = kinds[name]
            path = self.folder / "tokenizers" / file
            vocabulary.write_lines(self.tokenizers[name], path)
            tables.append(dict(name=name, kind=kind, file=f"tokenizers/{file}", sha256=sha256_of(path)))
        return tables


def build(
    checkpoints: Checkpoints,
    out: Path,
    *,
    precision: Precision,
    models: Sequence[str],
    named: bool,
    clip: str,
    name: str,
    hps: str = "v2.0",
    demo: bool = False,
    goldens: bool = False,
    notice: str | None = None,
    external_above: int = EXTERNAL_ABOVE,
    gpu: bool = False,
    flops: bool = False,
    checked: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Builds `out` from the checkpoints, or leaves what was there untouched.

    A model whose checkpoints are not to be had is an error if `named`, and left out with a word otherwise. `notice`
    says whose work is in a pack that is to be passed on. `gpu` gives the graphs the form that is fast there, `flops`
    writes down how much arithmetic they are, and not `checked` are graphs whose weights mean nothing.
    """
    with replaced(out) as part:
        builder = Builder(part, precision, external_above, say, gpu, flops, checked)
        request = Request(checkpoints, precision, clip, models, builder.needs_tokenizer, hps, gpu, say)
        built = []
        for model in models:
            say(f"{model}:")
            try:
                for job in FAMILIES[model](request):
                    builder.add(job)
                built.append(model)
            except MissingCheckpoint as missing:
                if named:
                    raise
                say(f"  left out: {missing}")
        if not built:
            raise ExportError("none of the models' checkpoints were found, so there is nothing to build")
        manifest = builder.manifest(name, demo or checkpoints.marked_demo)
        if goldens:
            from . import goldens as golden_module

            manifest.goldens = golden_module.write(part, checkpoints, built, clip, hps, precision.name, say)
        finish(part, manifest, notice)
    summarise(out, manifest, say)


@contextlib.contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A folder to build a pack in, which takes the place of `out` at the end; after an error `out` is as before."""
    refuse_to_overwrite(out)
    part = out.with_name(f"{out.name}.partial-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        _swap(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def finish(part: Path, manifest: Manifest, notice: str | None) -> None:
    """Writes the notice and, last, the manifest."""
    if notice:
        (part / "NOTICE").write_text(notice, encoding="utf-8", newline="\n")
    (part / MANIFEST).write_text(manifest.dumps(), encoding="utf-8", newline="\n")


def summarise(out: Path, manifest: Manifest, say: Callable[[str], None]) -> None:
    total = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    say(
        f"{out}: {manifest.weights} pack of {len(manifest.graphs)} graphs, {_bytes(total)}, "
        f"digest {sha256_of(out / MANIFEST)}"
    )


def refuse_to_overwrite(out: Path) -> None:
    """A pack may be replaced, an empty folder filled; anything else at `out` is left alone."""
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise ExportError(f"{out} exists and is not a pack (it has no {MANIFEST}); choose another --out")


def _swap(new: Path, out: Path) -> None:
    old = out.with_name(f"{out.name}.old-{os.getpid()}")
    if out.exists():
        out.rename(old)
    try:
        new.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.2f} GiB"
