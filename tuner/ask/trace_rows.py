"""The rows of a recorded load, CSV or JSON lines, each with the line of the file where it ends."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.errors import BadInput

Row = tuple[int, Mapping[str, Any]]


def csv_rows(path: Path) -> list[Row]:
    """The rows of a CSV file by the names in its first line; blank lines are passed over."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            table.fieldnames = [name.strip() for name in table.fieldnames or ()]
            return [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from None


def json_rows(path: Path) -> list[Row]:
    """The objects of a file with one on every line; blank lines are passed over."""
    rows: list[Row] = []
    line = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, 1):
                if text.strip():
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise BadInput(f"{path}: line {line}", type(row).__name__, "a JSON object")
                    rows.append((line, row))
    except UnicodeDecodeError as error:
        raise _unreadable(path, error) from None
    except ValueError:
        allowed = "a JSON object on every line"
        raise BadInput(f"{path}: line {line}", "text that is not JSON", allowed) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return rows


def _unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput("trace", str(path), f"a readable CSV or JSON-lines file ({type(error).__name__})")
