"""Packs for scripts/toolkit_bench.py: made with random weights, and cut to the graphs that a case needs."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

EXPORT = Path(__file__).resolve().parents[1] / "export"
DEFAULT_CLIP = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"


def sizes(width, layers, heads, text_width=0, text_layers=0, text_heads=0, projection=0) -> dict[str, int]:
    given = dict(vision_width=width, vision_layers=layers, vision_heads=heads, text_width=text_width)
    given |= dict(text_layers=text_layers, text_heads=text_heads, projection=projection)
    return {name: n for name, n in given.items() if n}


L14 = sizes(1024, 24, 16, 768, 12, 12, 768)
H14 = sizes(1280, 32, 16, 1024, 24, 16, 1024)
BIG_G14 = sizes(1664, 48, 16, 1280, 32, 20, 1280)
# The sizes that the models were published with, as the exporter's options have them.
PUBLISHED = {
    "dino": sizes(384, 12, 6),
    "faces": dict(face_divisor=1),
    "dreamsim": sizes(768, 12, 12, projection=512),
    "aesthetic": L14,
    "hpsv1": L14,
    "image_reward": L14,
    "owlvit": L14,
    "pick_score": H14,
    "hpsv2": H14,
}
CLIPS = {"bigG": BIG_G14, "ViT-H": H14, "ViT-L": L14, "vit-large": L14}


def make(kind: str, families: list[str], checkpoints: Path, packs: Path, clip: str) -> None:
    """Writes what is missing: checkpoints with random weights, and packs of them in `packs`."""
    if kind == "demo":
        # At once: the models are small, and starting the exporter takes longer.
        build("demo", families, {}, checkpoints, packs, clip)
        return
    for family in families:
        given = PUBLISHED.get(family) or next((CLIPS[name] for name in CLIPS if name in clip), None)
        if given is None:
            sys.exit(f"--clip: the published sizes of {clip} are not known; of {', '.join(CLIPS)} they are")
        build(family, [family], given, checkpoints, packs, clip)


def build(name: str, families: list[str], given: dict[str, int], checkpoints: Path, packs: Path, clip: str) -> None:
    pack = packs / name
    if (pack / "pack.toml").is_file():
        return
    command = [sys.executable, "-m", "stellar_export", "build", "--random", "--no-goldens", "--only", ",".join(families)]
    command += ["--checkpoints", checkpoints, "--out", pack, "--clip", clip]
    for option, n in given.items():
        command += [f"--{option.replace('_', '-')}", n]
    print(f"making the pack {name}", file=sys.stderr, flush=True)
    pack.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([str(word) for word in command], cwd=EXPORT, check=True, stdout=subprocess.DEVNULL)


def view(packs: Path, roles: list[str], target: Path) -> Path:
    """A pack with the graphs whose roles begin so, out of a pack or of the packs in a folder."""
    manifests = [packs / "pack.toml"] if (packs / "pack.toml").is_file() else sorted(packs.glob("*/pack.toml"))
    if not manifests:
        raise FileNotFoundError(f"{packs} is neither a pack nor a folder of packs; --make writes one")
    head, tables, seen, found = "", [], set(), set()
    for manifest in manifests:
        # The exporter writes one table after the other, each with its array's name in front.
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
    """A hard link, because ONNX Runtime looks for a graph's weights beside the file that a symbolic one points to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
