#!/usr/bin/env python3
"""Writes src/stellar_score/models.py from openapi/openapi.json.

python/tools/models.py            writes the file
python/tools/models.py --check    exits with status 1 if it is not what would be written
"""

import argparse
import json
import keyword
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent.parent / "openapi/openapi.json"
TARGET = HERE.parent / "src/stellar_score/models.py"
WIDTH = 120

HEAD = '''"""The bodies of requests and responses, as in openapi/openapi.json. Written by tools/models.py: do not edit.

Responses are plain dictionaries; these types are for editors and type checkers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Literal, Optional, TypedDict, Union

if TYPE_CHECKING:
    from typing_extensions import NotRequired

'''

PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def name_of(schema):
    return schema["$ref"].rsplit("/", 1)[1]


def type_of(schema):
    """The Python type of a schema, as text."""
    if "$ref" in schema:
        return name_of(schema)
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return union([type_of(each) for each in schema[key]])
    if "enum" in schema:
        return "Literal[" + ", ".join(json.dumps(value) for value in schema["enum"]) + "]"
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return union([type_of({**schema, "type": kind}) for kind in kinds])
    if kinds == "array":
        return f"List[{type_of(schema.get('items', {}))}]"
    if kinds == "object":
        # An object within another schema has no class of its own.
        more = schema.get("additionalProperties")
        return f"Dict[str, {type_of(more) if isinstance(more, dict) else 'Any'}]"
    if schema.get("format") == "binary":
        return "bytes"
    if kinds in PLAIN:
        return PLAIN[kinds]
    if kinds is None and not set(schema) - {"description", "example", "default"}:
        return "Any"
    raise SystemExit(f"models.py: no Python type for {json.dumps(schema)[:300]}")


def union(types):
    types = list(dict.fromkeys(types))
    if "Any" in types:
        return "Any"
    optional = "None" in types
    rest = [each for each in types if each != "None"]
    text = rest[0] if len(rest) == 1 else f"Union[{', '.join(rest)}]"
    return f"Optional[{text}]" if optional else text


def sentence(text):
    return " ".join((text or "").split())


def docstring(text, indent):
    text = sentence(text).replace("\\", "\\\\")
    if not text:
        return []
    pad = " " * indent
    if len(pad) + len(text) + 6 <= WIDTH:
        return [f'{pad}"""{text}"""']
    lines = textwrap.wrap(text, WIDTH - indent - 3, break_long_words=False, break_on_hyphens=False)
    return [f'{pad}"""{lines[0]}', *(pad + line for line in lines[1:]), f'{pad}"""']


def fields(schema):
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise SystemExit(f"models.py: {name} cannot be a field")
        kind = type_of(field)
        yield f"    {name}: {kind if name in required else f'NotRequired[{kind}]'}"
        yield from docstring(field.get("description"), 4)


def classes(name, schema):
    """The lines of a class or alias, with the names that must come before it."""
    bases, properties = [], schema
    if "allOf" in schema:
        bases = [name_of(part) for part in schema["allOf"] if "$ref" in part]
        own = [part for part in schema["allOf"] if "$ref" not in part]
        properties = {"properties": {}, "required": []}
        for part in own:
            properties["properties"].update(part.get("properties", {}))
            properties["required"] += part.get("required", [])
    if not bases and not properties.get("properties"):
        return [f"{name} = {alias(schema, len(name) + 3)}", *docstring(schema.get("description"), 0)], mentioned(schema)
    body = [*docstring(schema.get("description"), 4), *fields(properties)]
    if len(body) > 1 and not body[0].lstrip().startswith('"""'):
        body.insert(0, "")
    lines = [f"class {name}({', '.join(bases) or 'TypedDict'}):", *body]
    return lines, bases


def alias(schema, indent):
    text = type_of(schema)
    if indent + len(text) <= WIDTH or not text.startswith("Literal["):
        return text
    return "Literal[\n" + "".join(f"    {json.dumps(value)},\n" for value in schema["enum"]) + "]"


def mentioned(schema):
    if isinstance(schema, dict):
        return [name_of(schema)] if "$ref" in schema else [name for each in schema.values() for name in mentioned(each)]
    return [name for each in schema for name in mentioned(each)] if isinstance(schema, list) else []


def render(document):
    schemas = document["components"]["schemas"]
    written, parts = set(), []

    def write(name):
        if name in written:
            return
        written.add(name)
        lines, before = classes(name, schemas[name])
        for other in before:
            write(other)
        parts.append("\n".join(lines))

    for name in sorted(schemas):
        write(name)
    names = "\n".join(f'    "{name}",' for name in sorted(schemas))
    text = HEAD + f"__all__ = [\n{names}\n]\n\n\n" + "\n\n\n".join(parts) + "\n"
    # An import that nothing needs would be a lint.
    imported = "Any, Dict, List, Literal, Optional, TypedDict, Union"
    used = [word for word in imported.split(", ") if text.count(word) > 1]
    return text.replace(imported, ", ".join(used))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the file differs")
    check = arguments.parse_args().check
    text = render(json.loads(DOCUMENT.read_text(encoding="utf-8")))
    if not check:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print("models.py is not that of openapi/openapi.json: run python/tools/models.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
