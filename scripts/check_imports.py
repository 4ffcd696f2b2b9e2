"""Finds import circles between files of one room (a directory or file of `src`, or a crate of `crates`), and between rooms.

    python3 scripts/check_imports.py

An import is a `use` or a path such as `super::name` or `crate::room::name` in code that is not a test. It counts for
the file that defines the item: re-exports are followed, and a parent that only declares or re-exports a child does
not depend on it. Method calls are not seen. Prints each circle and exits with 1 if there are any.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOISE = re.compile(
    r'//[^\n]*|/\*.*?\*/|r(#+)".*?"\1|r"[^"]*"|"(?:\\.|[^"\\])*"|' + r"'(?:\\.[^']*|[^'\\])'", re.DOTALL
)
DEFINITION = r"\b(?:fn|struct|enum|trait|type|const|static|union|macro_rules!)\s+{}\b"


def without_tests(text: str) -> str:
    """Removes comments, literals, and items under `#[cfg(test)]`."""
    text = NOISE.sub(" ", text)
    while match := re.search(r"#\[cfg\((?:all\()?test\b[^\]]*\]", text):
        at, depth = match.end(), 0
        while at < len(text):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
            if depth == 0 and text[at - 1] in ";}":
                break
        text = text[: match.start()] + text[at:]
    return text


def leaves(tree: str) -> list[tuple[list[str], str]]:
    """Splits the tree of a `use` into (path, name in the file)."""
    head, brace, rest = tree.partition("{")
    if not brace:
        path, _, alias = tree.partition(" as ")
        parts = [part.strip() for part in path.split("::") if part.strip()]
        if parts[-1:] == ["self"] and len(parts) > 1:
            parts.pop()
        return [(parts, alias.strip() or parts[-1])] if parts else []
    branches, depth, start = [], 0, 0
    inner = rest[: rest.rindex("}")] + ","
    for at, letter in enumerate(inner):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            branches.append(inner[start:at])
            start = at + 1
    return [leaf for branch in branches if branch.strip() for leaf in leaves(head + branch.strip())]


class Module:
    """A file and the modules that it declares."""

    def __init__(self, file: Path, parent: "Module | None" = None) -> None:
        self.file, self.parent, self.children = file, parent, {}
        text = without_tests(file.read_text())
        uses = [(bool(public), leaf) for public, tree in re.findall(r"\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", text)
                for leaf in leaves(" ".join(tree.split()))]
        self.exports = {name: path for public, (path, name) in uses if public and name != "*"}
        self.globs = [path[:-1] for public, (path, name) in uses if public and name == "*"]
        self.imports = [path for public, (path, _) in uses if not public]
        self.text = re.sub(r"\buse\s+[^;]+;|\bmod\s+\w+\s*;", " ", text)
        home = file.parent if file.stem in ("lib", "mod") else file.parent / file.stem
        for child in re.findall(r"\bmod\s+(\w+)\s*;", text):
            for path in (home / f"{child}.rs", home / child / "mod.rs"):
                if path.exists():
                    self.children[child] = Module(path, self)
        names = "|".join(["crate", "super", *self.children])
        paths = re.findall(rf"(?<![\w:])(?:{names})(?:::\w+)+", self.text)
        self.imports += [path.split("::") for path in paths]
        # A parent that also uses what it re-exports depends on it.
        self.imports += [path for name, path in self.exports.items() if re.search(rf"\b{name}\b", self.text)]

    def all(self) -> "list[Module]":
        return [self, *(found for child in self.children.values() for found in child.all())]

    def resolve(self, path: list[str], seen: frozenset = frozenset()) -> "Module | None":
        """Returns the module that defines what `path` names in this module; `None` outside the crate."""
        at, path = self, list(path)
        while path and path[0] in ("self", "super", "crate"):
            match path.pop(0):
                case "super":
                    at = at.parent or at
                case "crate":
                    while at.parent:
                        at = at.parent
        if at is self and path and path[0] not in self.children and path[0] not in self.exports:
            return None
        for place, part in enumerate(path):
            rest = path[place + 1 :]
            if part in at.children:
                at = at.children[part]
            elif part in at.exports and (at, part) not in seen:
                return at.resolve(at.exports[part] + rest, seen | {(at, part)})
            else:
                targets = [at.resolve(glob, seen) for glob in at.globs]
                return next((of for of in targets if of and re.search(DEFINITION.format(part), of.text)), at)
        return at

    def __str__(self) -> str:
        return str(self.file.relative_to(ROOT))

    def room(self) -> str:
        return Path(self.file.relative_to(ROOT).parts[1]).stem


def circles(edges: dict) -> list[list]:
    """Returns the strongly connected sets of two or more nodes (Tarjan's algorithm)."""
    index, low, stack, found = {}, {}, [], []

    def visit(of) -> None:
        index[of] = low[of] = len(index)
        stack.append(of)
        for to in sorted(edges[of], key=str):
            if to not in index:
                visit(to)
            if to in stack:
                low[of] = min(low[of], low[to])
        if low[of] == index[of]:
            at = stack.index(of)
            found.append(stack[at:])
            del stack[at:]

    for of in edges:
        if of not in index:
            visit(of)
    return [group for group in found if len(group) > 1]


def main() -> int:
    roots = [ROOT / "src/lib.rs", *sorted(ROOT.glob("crates/*/src/lib.rs"))]
    modules = [module for root in roots for module in Module(root).all()]
    imports = {of: {to for path in of.imports if (to := of.resolve(path)) and to is not of} for of in modules}
    files = {of: {to for to in imports[of] if to.room() == of.room()} for of in modules}
    rooms = {of.room(): set() for of in modules}
    for of in modules:
        # The root of a crate declares everything.
        rooms[of.room()] |= {to.room() for to in imports[of] if to.parent and of.parent} - {of.room()}
    found = circles(files) + circles(rooms)
    for group in found:
        print("circle:")
        for of in group:
            print(f"    {of} -> {', '.join(sorted(str(to) for to in (files | rooms)[of] & set(group)))}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
