"""HTML tables and the way figures are written: what does not exist is a dash, never a zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head; neighbours of one ``group`` stand under a common head, and numbers are set to the right."""

    name: str
    number: bool = False
    group: str | None = None

    @property
    def kind(self) -> str:
        """The class attribute of the column's cells."""
        return ' class="number"' if self.number else ""


def table(anchor: str, caption: str, columns: Sequence[Column], rows: Iterable[list[str]]) -> str:
    """A table that scrolls sideways where it must. Cells are HTML already; the first of each row is its head."""
    lines = []
    for row in rows:
        first, *others = (f"{column.kind}>{cell}" for cell, column in zip(row, columns, strict=True))
        lines.append(f'<tr><th scope="row"{first}</th>{"".join(f"<td{cell}</td>" for cell in others)}</tr>')
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table id="{anchor}">'
        f"<caption>{escape(caption)}</caption><thead>{_head(columns)}</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _head(columns: Sequence[Column]) -> str:
    names = "".join(f'<th scope="col"{column.kind}>{escape(column.name)}</th>' for column in columns)
    if all(column.group is None for column in columns):
        return f"<tr>{names}</tr>"
    groups = ""
    for group, members in groupby(columns, key=lambda column: column.group):
        span = len(list(members))
        groups += (
            f'<th scope="colgroup" colspan="{span}">{escape(group)}</th>' if group else f'<td colspan="{span}"></td>'
        )
    return f'<tr class="groups">{groups}</tr><tr>{names}</tr>'


def figure(value: float | None, unit: str = "") -> str:
    """Three significant digits, or all whole digits of a larger number, and the unit."""
    if value is None:
        return NOTHING
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{shown} {unit}".rstrip()


def count(value: int | None) -> str:
    """A whole number, in groups of three digits."""
    return NOTHING if value is None else f"{value:,}"


def share(value: float | None) -> str:
    """A share from 0 to 1 as a percentage."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def yes_no(value: bool | None) -> str:
    """Yes or no, with a sign that does not rest on colour."""
    if value is None:
        return NOTHING
    return "✓ yes" if value else "✗ no"


def code(text: str) -> str:
    """A name in a fixed-width face that may be broken after its commas."""
    return f"<code>{escape(text).replace(',', ',<wbr>')}</code>"
