"""Packs for scripts/toolkit_bench.py: made with random weights, and reduced to the graphs that a case needs."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

EXPORT = Path(__file__).resolve().parents[1] / "export"
DEFAULT_CLIP = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"


def make(kind: str, families: list[str], checkpoints: Path, packs: Path, clip: str) -> None:
    """Writes missing checkpoints with random weights, and missing packs of them in `packs`."""
    if kind == "demo":
        # In one step: the models are small, and starting the exporter takes longer than exporting.
        build("demo", families, [], checkpoints, packs, clip)
        return
    for family in families:
        # Separately, because the largest take minutes each, and existing ones are reused.
        build(family, [family], ["--published-sizes"], checkpoints, packs, clip)


def build(name: str, families: list[str], options: list[str], checkpoints: Path, packs: Path, clip: str) -> None:
    pack = packs / name
    if (pack / "pack.toml").is_file():
        return
    command = [sys.executable, "-m", "stellar_export", "build", "--random", "--no-goldens", "--only", ",".join(families)]
    command += ["--checkpoints", checkpoints, "--out", pack, "--clip", clip, *options]
    print(f"making the pack {name}", file=sys.stderr, flush=True)
    pack.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([str(word) for word in command], cwd=EXPORT, check=True, stdout=subprocess.DEVNULL)


def view(packs: Path, roles: list[str], target: Path) -> Path:
    """Makes a pack with the graphs of these role prefixes, from a pack or from the packs in a folder."""
    manifests = [packs / "pack.toml"] if (packs / "pack.toml").is_file() else sorted(packs.glob("*/pack.toml"))
    if not manifests:
        raise FileNotFoundError(f"{packs} is neither a pack nor a folder of packs; --make writes one")
    head, tables, seen, found = "", [], set(), set()
    for manifest in manifests:
        # The exporter writes one table after another, each after the name of its array.
        first, *parts = re.split(r"^(?=\[)", manifest.read_text(), flags=re.MULTILINE)
        head = head or first
        for part in parts:
            table = tomllib.loads(part)
            [(kind, value)] = table.items()
            [entry] = value if isinstance(value, list) else [value]
            name = entry.get("role") or entry.get("name")
            used = kind == "tokenizer" or (kind == "graph" and any(entry["role"].startswith(role) for role in roles))
            if not used or (kind, name) in seen:
                continue
            seen.add((kind, name))
            found |= {role for role in roles if kind == "graph" and name.startswith(role)}
            tables.append(part)
            files = [*entry.get("files", []), *([entry["labels"]] if "labels" in entry else [])]
            for path in [file["path"] for file in files] or [entry["file"]]:
                link(manifest.parent / path, target / path)
    if missing := [role for role in roles if role not in found]:
        raise FileNotFoundError(f"{packs} has no graphs of {', '.join(sorted(set(missing)))}; leave the metrics out, or build them")
    (target / "pack.toml").write_text(head + "".join(tables))
    return target


def link(source: Path, target: Path) -> None:
    """Makes a hard link, because ONNX Runtime resolves symbolic links before it looks for the weights."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
