"""Writes crates/stellar-text/src/tables/*.rs: the character properties of the reference Python environment that determine token ids.

Run it in an environment with transformers 4.33.3, tokenizers 0.13, ftfy 6.3 and regex installed:

    python scripts/text_tables.py

Python's `unicodedata`, the `regex` module and the Oniguruma inside `tokenizers` each carry their own Unicode version.
The tables pin all three, so that updates of Rust's Unicode tables do not change the ids.
"""

import html
import re
import unicodedata
from html.entities import html5
from pathlib import Path

import ftfy
import regex
import tokenizers
from ftfy import chardata
from ftfy.badness import MOJIBAKE_CATEGORIES

OUT = Path(__file__).resolve().parent.parent / "src" / "text" / "tables"
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def rust(text: str) -> str:
    """A Rust string literal in ASCII."""
    special = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(special.get(c) or (c if " " <= c <= "~" else f"\\u{{{ord(c):x}}}") for c in text) + '"'


def packed(items: list[str], width: int = 116) -> str:
    """Joins items with commas into lines of at most `width` columns."""
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > width:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([*lines, line])


def table(doc: str, name: str, kind: str, items: list[str]) -> str:
    return f"/// {doc}\n#[rustfmt::skip]\npub(in crate::text) static {name}: &[{kind}] = &[\n{packed(items)}\n];\n"


def header(what: str) -> str:
    versions = (
        f"Unicode {unicodedata.unidata_version}, regex {regex.__version__}, "
        f"tokenizers {tokenizers.__version__}, ftfy {ftfy.__version__}"
    )
    return f"//! {what}\n//!\n//! Written by `scripts/text_tables.py` ({versions}); change that, not this.\n\n"


def properties() -> str:
    """Runs of code points with the same properties."""
    category = unicodedata.category
    letter, number = regex.compile(r"[\p{L}]", regex.I), regex.compile(r"[\p{N}]", regex.I)
    other = regex.compile(r"[^\s\p{L}\p{N}]", regex.I)

    def onig(pattern: str):
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed", invert=True)
        return lambda char: bool(split.pre_tokenize_str(char))

    onig_letter, onig_number = onig(r"[\p{L}]"), onig(r"[\p{N}]")
    flags = {
        "LETTER_REGEX": lambda c: letter.match(c),
        "NUMBER_REGEX": lambda c: number.match(c),
        "LETTER_ONIG": onig_letter,
        "NUMBER_ONIG": onig_number,
        "WORD": lambda c: c.isalnum(),
        "DECIMAL": lambda c: category(c) == "Nd",
        "CONTROL": lambda c: category(c)[0] == "C",
        "PUNCTUATION": lambda c: category(c)[0] == "P",
        "NONSPACING_MARK": lambda c: category(c) == "Mn",
        "UNASSIGNED": lambda c: category(c) == "Cn",
    }
    docs = {
        "LETTER_REGEX": r"`\p{L}` of the `regex` module.",
        "NUMBER_REGEX": r"`\p{N}` of the `regex` module.",
        "LETTER_ONIG": r"`\p{L}` of Oniguruma, which splits words in the fast tokenizers.",
        "NUMBER_ONIG": r"`\p{N}` of Oniguruma.",
        "WORD": "`str.isalnum`.",
        "DECIMAL": "Category Nd.",
        "CONTROL": "Category C, unassigned code points among them.",
        "PUNCTUATION": "Category P.",
        "NONSPACING_MARK": "Category Mn.",
        "UNASSIGNED": "Category Cn: without any meaning in that version of Unicode.",
    }
    runs, previous = [], None
    dropped = []
    for code in SCALARS:
        char = chr(code)
        bits = sum(1 << i for i, test in enumerate(flags.values()) if test(char))
        if bits != previous:
            start = f"0x{code:x}" if code < 0x100000 else f"0x{code >> 16:x}_{code & 0xFFFF:04x}"
            runs.append(f"({start}, 0x{bits:x})")
            previous = bits
        if not char.isspace() and not (letter.match(char) or number.match(char) or other.match(char)):
            dropped.append(code)
    # U+0345 is not a letter but folds to one: with IGNORECASE, `regex` puts it into neither class.
    assert [c for c in dropped if not 0x1C <= c <= 0x1F] == [0x345], dropped
    for c in SCALARS:
        white = bool(regex.match(r"\s", chr(c)))
        assert white == bool(re.match(r"\s", chr(c))) or 0x1C <= c <= 0x1F, hex(c)
    text = header("Character properties by code point.")
    for i, name in enumerate(flags):
        text += f"/// {docs[name]}\npub(in crate::text) const {name}: u16 = 1 << {i};\n"
    text += "\n" + table(
        "First code point of each run and its properties, sorted; surrogates belong to the run before them.",
        "RUNS", "(u32, u16)", runs,
    )
    return text


def mojibake() -> str:
    """The characters that occur in mojibake, by category, and the single-byte encodings that cause it."""
    classes = {name.upper(): chars for name, chars in MOJIBAKE_CATEGORIES.items()}
    classes |= {name.upper(): chars for name, chars in chardata.UTF8_CLUES.items()}
    tests = [re.compile(f"[{chars}]") for chars in classes.values()]
    items = []
    for code in SCALARS:
        bits = sum(1 << i for i, test in enumerate(tests) if test.match(chr(code)))
        if bits:
            items.append(f"(0x{code:x}, 0x{bits:x})")
            assert code < 0x10000
    text = header("What mojibake is made of: ftfy's categories of characters, and single-byte encodings.")
    for i, name in enumerate(classes):
        text += f"/// ftfy's category `{name.lower()}`.\npub(in crate::text) const {name}: u32 = 1 << {i};\n"
    text += "\n" + table("Characters with a category, sorted, and the set of their categories.", "CATEGORIES", "(u16, u32)", items)
    for encoding in chardata.CHARMAP_ENCODINGS:
        if encoding == "latin-1":
            continue
        high = bytes(range(0x80, 0x100)).decode(encoding)
        assert len(set(high)) == 128 and max(high) < "\U00010000"
        low = bytes(range(0x80)).decode(encoding)
        expected = "".join(map(chr, range(0x80)))
        if encoding.startswith("sloppy"):
            expected = expected.replace("\x1a", "\ufffd")
        assert low == expected
        assert all(bytes([0x80 + i]) == c.encode(encoding) for i, c in enumerate(high))
        name = encoding.removeprefix("sloppy-").replace("-", "_").upper()
        text += "\n" + table(f"Bytes 0x80 to 0xFF of {encoding}.", name, "u16", [f"0x{ord(c):x}" for c in high])
    return text


def entities() -> str:
    text = header("HTML 5 named character references, with and without their semicolon.")
    items = [f"({rust(name)}, {rust(value)})" for name, value in sorted(html5.items())]
    text += table("Name without the ampersand, and what it stands for; sorted by name.", "HTML5", "(&str, &str)", items)
    upper = {
        name.upper(): value.upper()
        for name, value in html5.items()
        if name.endswith(";") and name == name.lower() and html.unescape("&" + name.upper()) == "&" + name.upper()
    }
    ours = {"&" + n: v for n, v in html5.items() if n.endswith(";")} | {"&" + n: v for n, v in upper.items()}
    assert ours == chardata.HTML_ENTITIES
    items = [f"({rust(name)}, {rust(value)})" for name, value in sorted(upper.items())]
    text += "\n" + table("Upper-cased names that ftfy reads too, and the upper-cased characters.", "UPPER", "(&str, &str)", items)
    return text


if __name__ == "__main__":
    for file, content in {"properties": properties(), "mojibake": mojibake(), "entities": entities()}.items():
        (OUT / f"{file}.rs").write_text(content, encoding="utf-8")
