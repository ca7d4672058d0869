"""Tables of measured points: reading a CSV file, and telling by its columns what was measured.

Every field stays text until somebody asks for a column of numbers; then a field that is none is refused with its line
and its column.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.errors import BadInput

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Points:
    """The rows of a table, column by column; ``lines`` are their line numbers in the file, from 1."""

    path: str
    columns: Mapping[str, tuple[str, ...]]
    lines: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lines)

    def text(self, name: str) -> tuple[str, ...]:
        """A column as it stands in the file; BadInput when the table has none of that name."""
        if name not in self.columns:
            raise BadInput(self.path, sorted(self.columns), f"a table with a column {name}")
        return self.columns[name]

    def numbers(self, name: str, least: float | None = None, blank: float | None = None) -> Floats:
        """A column of numbers, none below ``least``; an empty field is ``blank``, or refused where that is None."""
        found = np.empty(len(self))
        for row, field in enumerate(self.text(name)):
            value = blank if field == "" else _number(field)
            if value is None or (least is not None and value < least):
                where = f"{self.path}: line {self.lines[row]}, column {name}"
                raise BadInput(where, field, "a number" + (f" of at least {least:g}" if least is not None else ""))
            found[row] = value
        return found


def read_points(path: str | Path) -> Points:
    """Read a CSV file with a header line; raises BadInput with the line for a file that is none."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            rows, lines = [], []
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
                    if len(row) != len(header):
                        where = f"{path}: line {reader.line_num}"
                        raise BadInput(where, f"{len(row)} fields", f"{len(header)} fields, as in the header")
    except OSError as error:
        raise BadInput("POINTS", str(path), f"a readable CSV file ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput("POINTS", str(path), f"a CSV file in UTF-8 ({error})") from None
    names = [name.strip() for name in header]
    if not rows:
        raise BadInput(str(path), f"{len(header)} columns, 0 rows", "a header line and at least one row")
    if len(set(names)) < len(names) or "" in names:
        raise BadInput(f"{path}: line 1", ",".join(names), "column names that are not empty and stand once each")
    columns = {name: tuple(row[i].strip() for row in rows) for i, name in enumerate(names)}
    return Points(str(path), columns, tuple(lines))


def write_points(path: str | Path, points: Points, added: Mapping[str, Sequence[object]]) -> None:
    """Write every column of the table and those added (floats with 6 digits, None as an empty field)."""
    columns = {**points.columns, **added}
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*([_field(v) for v in column] for column in columns.values()), strict=True))
    except OSError as error:
        raise BadInput("--out", str(path), f"a file that can be written ({error.strerror})") from None


def _field(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def _number(field: str) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
