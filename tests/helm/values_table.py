"""Values of the chart as a table of the docs and descriptions of the schema, from the comments of ``values.yaml``.

``python -m tests.helm.values_table`` writes both anew, in docs/kubernetes.md and ``values.schema.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

VALUES = Path(__file__).parents[2] / "helm" / "parlay" / "values.yaml"
SCHEMA = VALUES.with_name("values.schema.json")
PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"
_BEGIN, _END = "<!-- values: written by tests/helm/values_table.py -->\n", "<!-- end of values -->\n"
_KEY = re.compile(r"( *)([A-Za-z]\w*):(?: (.*))?")


@dataclass(frozen=True)
class Value:
    """``default`` is None of a section, which has others in it."""

    path: str
    default: str | None
    meaning: str


def values(text: str) -> Iterator[Value]:
    """Every documented value, in the order of the file. Raises ValueError for one that says nothing of itself."""
    way: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        found = _KEY.fullmatch(line)
        if line.lstrip().startswith("#"):
            comment.append(line.strip().removeprefix("#").strip())
        elif found:
            depth = len(found[1]) // 2
            way = [*way[:depth], found[2]]
            if not comment:
                raise ValueError(f"{'.'.join(way)} says nothing of itself")
            default = None if found[3] is None else json.dumps(yaml.safe_load(found[3]))
            yield Value(".".join(way), default, " ".join(comment))
            comment = []
        elif not line.strip():
            comment = []  # the heading of the file


def table() -> str:
    """As Markdown: a section's line has no default."""
    lines = ["| value | default | what |", "|---|---|---|"]
    for value in values(VALUES.read_text(encoding="utf-8")):
        default = "" if value.default is None else f"`{value.default}`"
        lines.append(f"| `{value.path}` | {default} | {value.meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(_BEGIN)
    return before + _BEGIN + table() + _END + rest.partition(_END)[2]


def described(schema: str) -> str:
    """The text of the schema with what each value says of itself, which editors show."""
    document = json.loads(schema)
    for value in values(VALUES.read_text(encoding="utf-8")):
        node, *way = document, *value.path.split(".")
        for name in way:
            node = node.get("properties", {}).get(name) if node else None
        if node is not None:  # a key of a mapping that a site fills has none
            said = {"description": value.meaning} | {k: v for k, v in node.items() if k != "description"}
            node.clear()
            node.update(said)
    return _json(document) + "\n"


def _json(value: Any, depth: int = 0, before: int = 0) -> str:
    """On one line where 120 columns hold it, behind ``before`` letters; else an entry a line."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or 2 * depth + before + len(line) < 120:
        return line
    indent, inner = "  " * depth, "  " * (depth + 1)
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _json(one, depth + 1) for one in value) + f"\n{indent}]"
    keys = {key: f"{json.dumps(key)}: " for key in value}
    entries = (inner + keys[key] + _json(one, depth + 1, len(keys[key])) for key, one in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


if __name__ == "__main__":
    SCHEMA.write_text(described(SCHEMA.read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
