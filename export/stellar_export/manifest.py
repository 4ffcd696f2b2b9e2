"""`pack.toml`: everything the service has to know about a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SCHEMA = 1


@dataclass(frozen=True)
class IoSpec:
    """An input or output of a graph: its shape without the batch dimension, -1 where it is dynamic."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def toml(self) -> dict:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Source:
    """Where the weights of a graph come from. `revision` is a hub commit, or "local"."""

    checkpoint: str
    revision: str
    file: str
    sha256: str

    @staticmethod
    def of_both(a: Source, b: Source) -> Source:
        """The source of a graph that two checkpoints went into."""
        return Source(
            f"{a.checkpoint} + {b.checkpoint}",
            a.revision,
            f"{a.file} + {b.file}",
            sha256_of_text(f"{a.sha256}\n{b.sha256}\n"),
        )


@dataclass
class GraphEntry:
    """A `[[graph]]` table."""

    role: str
    kind: str
    precision: str
    max_batch: int
    files: list[dict]
    source: Source
    inputs: Sequence[IoSpec]
    outputs: Sequence[IoSpec]
    geometry: Mapping | None = None
    text: Mapping | None = None
    backend: str | None = None
    labels: Mapping | None = None
    flops: int | None = None
    """Of one item, see `flops.py`."""

    def toml(self) -> dict:
        table = {
            "role": self.role,
            "kind": self.kind,
            "precision": self.precision,
            "max_batch": self.max_batch,
            "files": self.files,
            "source": vars(self.source),
            "inputs": [i.toml() for i in self.inputs],
            "outputs": [o.toml() for o in self.outputs],
        }
        if self.geometry:
            table["geometry"] = dict(self.geometry)
        if self.text:
            table["text"] = dict(self.text)
        if self.labels:
            table |= {"backend": self.backend, "labels": dict(self.labels)}
        if self.flops is not None:
            table["flops"] = self.flops
        return table


@dataclass
class Manifest:
    """The whole of `pack.toml`."""

    name: str
    weights: str
    exporter: str
    tokenizers: list[dict] = field(default_factory=list)
    graphs: list[GraphEntry] = field(default_factory=list)
    goldens: dict | None = None
    generator: dict | None = None
    """What a pack that generates pictures says beyond its graphs."""

    def dumps(self) -> str:
        lines = [
            f"schema = {SCHEMA}",
            f"name = {_value(self.name)}",
            f"weights = {_value(self.weights)}",
            f"exporter = {_value(self.exporter)}",
        ]
        for header, tables in (("tokenizer", self.tokenizers), ("graph", [g.toml() for g in self.graphs])):
            for table in tables:
                lines += ["", f"[[{header}]]", *(f"{k} = {_value(v)}" for k, v in table.items())]
        for header, table in (("generator", self.generator), ("goldens", self.goldens)):
            if table:
                lines += ["", f"[{header}]", *(f"{k} = {_value(v)}" for k, v in table.items())]
        return "\n".join(lines) + "\n"


def _value(v: object) -> str:
    """A TOML value; lists of tables stay on one line each."""
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (int, float)):
        return repr(v)
    if isinstance(v, str):
        escaped = v.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
    if isinstance(v, Mapping):
        return "{ " + ", ".join(f"{k} = {_value(x)}" for k, x in v.items()) + " }"
    if isinstance(v, Sequence):
        return "[" + ", ".join(_value(x) for x in v) + "]"
    raise TypeError(f"no TOML for {type(v).__name__}")


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while piece := f.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def sha256_of_all(paths: Sequence[Path]) -> str:
    """The digest of one file; of several, that of their digests and names, one a line as `sha256sum` prints them."""
    if len(paths) == 1:
        return sha256_of(paths[0])
    return sha256_of_text("".join(f"{sha256_of(p)}  {p.name}\n" for p in paths))


def sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
