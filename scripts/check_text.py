#!/usr/bin/env python3
"""Checks the width of lines, the length of files, the links between pages and the names of schemas. Prints what is wrong, and
nothing if all is well.

    scripts/check_text.py

Rust: no comment over 100 columns. `cargo fmt` breaks code at 100; where it cannot, in macros, no line over 120 but strings.
No file has over 500 lines, except tables of constants.
Markdown: no line over 120 columns, except tables, code, and lines that are one sentence. Relative links must lead to a file,
and their anchors to a heading.
Types of the API document have different names: of two that share one, the document has only the last.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUST, RUST_IN_MACROS, MARKDOWN = 100, 120, 120
LINES = 500
# Tables of constants: one row a metric, one line a word.
LONG = ("src/metrics/registry.rs",)
# Generated tables.
LEFT_OUT = ("crates/stellar-text/src/tables/",)


def files(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.splitlines() if not name.startswith(LEFT_OUT) and (ROOT / name).exists()]


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", lambda match: match[1] or "", heading.strip()).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def prose(path: Path):
    """The lines of a page outside code blocks, with their numbers."""
    code = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code:
            yield number, line


def anchors(path: Path) -> set[str]:
    return {anchor(line.lstrip("#")) for _, line in prose(path) if line.startswith("#")}


def links(path: Path) -> list[str]:
    problems = []
    for number, line in prose(path):
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, part = target.partition("#")
            page = (path.parent / name).resolve() if name else path
            where = f"{path.relative_to(ROOT)}:{number}"
            if not page.exists():
                problems.append(f"{where}: {target}: there is no such file")
            elif part and page.suffix == ".md" and part not in anchors(page):
                problems.append(f"{where}: {target}: the page has no such heading")
    return problems


def is_sentence(line: str) -> bool:
    return not re.search(r"[.!?:] +[A-Z`*\[]", line.strip(" -*"))


def wide_markdown(path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {len(line)} columns: break the line, or put each sentence on its own"
        for number, line in prose(path)
        if len(line) > MARKDOWN and not line.lstrip().startswith("|") and not is_sentence(line)
    ]


def wide_rust(path: Path) -> list[str]:
    problems = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        comment = line.lstrip().startswith("//")
        most = RUST if comment else RUST_IN_MACROS
        if len(line) > most and "://" not in line and (comment or '"' not in line):
            problems.append(f"{path.relative_to(ROOT)}:{number}: {len(line)} columns")
    return problems


def long_rust(path: Path) -> list[str]:
    name, count = str(path.relative_to(ROOT)), len(path.read_text().splitlines())
    return [f"{name}: {count} lines: move one idea into a file of its own"] if count > LINES and name not in LONG else []


def equal_schemas() -> list[str]:
    attribute = r"\s*#\[(?:[^\[\]]|\[[^\]]*\])*\]|\s*//[^\n]*"
    derived = re.compile(rf"#\[derive\(([^)]*)\)\]((?:{attribute})*)\s*(?:pub(?:\([^)]*\))? )?(?:struct|enum) (\w+)")
    found: dict[str, list[str]] = {}
    for path in files("src/**/*.rs", "crates/**/*.rs"):
        for derives, attributes, name in derived.findall(path.read_text()):
            if "ToSchema" in derives:
                renamed = re.search(r"schema\([^\]]*\bas = (\w+)", attributes)
                found.setdefault(renamed[1] if renamed else name, []).append(str(path.relative_to(ROOT)))
    return [f"{name}: several types of the API document have this name: {', '.join(of)}" for name, of in found.items() if len(of) > 1]


def main() -> int:
    problems = equal_schemas()
    for page in files("*.md"):
        problems += links(page) + wide_markdown(page)
    for source in files("*.rs"):
        problems += wide_rust(source) + long_rust(source)
    print("\n".join(problems), end="\n" if problems else "")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
