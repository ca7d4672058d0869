"""Values of the chart as a table of the docs, from the comments of its ``values.yaml``.

``python -m tests.helm.values_table`` writes the table of docs/kubernetes.md anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

VALUES = Path(__file__).parents[2] / "helm" / "parlay" / "values.yaml"
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


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
