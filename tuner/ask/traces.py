"""Recorded loads: tables of when requests came and how long they were, ours and the public ones, CSV or JSON lines.

| format | columns | time |
|---|---|---|
| ours | timestamp, prompt_tokens, output_tokens; optional prefix_group, session | seconds |
| Azure LLM inference traces (2023, 2024) | TIMESTAMP, ContextTokens, GeneratedTokens | date and time |
| BurstGPT (1.1, 2.0) | Timestamp, Request tokens, Response tokens; optional Session ID | seconds |
| Mooncake (FAST'25) | timestamp, input_length, output_length; optional hash_ids | milliseconds |

Sources: github.com/Azure/AzurePublicDataset, github.com/HPMLL/BurstGPT, github.com/kvcache-ai/Mooncake. The public
traces also list requests that failed, with no tokens: these are left out. In ours such a row is an error.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import BadInput

MAX_REQUESTS = 10_000_000
Ints = NDArray[np.int64]
_Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests of a recorded load by rising time, the first at 0 s; lengths in tokens.

    Requests of one ``prefix_group`` open alike, those of one ``session`` are turns of one conversation; numbers from 0,
    None where the trace has no such column.
    """

    at_s: NDArray[np.float64]
    prompt_tokens: Ints
    output_tokens: Ints
    prefix_group: Ints | None
    session: Ints | None


@dataclass(frozen=True, slots=True)
class _Format:
    """Names of the columns, how a time is read in seconds, and whether rows without tokens are left out."""

    time: str
    prompt: str
    output: str
    seconds: Callable[[Any], float]
    prefix: str | None = None
    session: str | None = None
    failures_have_no_tokens: bool = True


def _iso_seconds(text: Any) -> float:
    found = datetime.fromisoformat(str(text))  # a fraction finer than microseconds is cut
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


_FORMATS = (
    _Format("timestamp", "prompt_tokens", "output_tokens", float, "prefix_group", "session", False),
    _Format("TIMESTAMP", "ContextTokens", "GeneratedTokens", _iso_seconds),
    _Format("Timestamp", "Request tokens", "Response tokens", float, session="Session ID"),
    _Format("timestamp", "input_length", "output_length", lambda value: float(value) / 1e3, prefix="hash_ids"),
)


def read_trace(path: Path) -> Trace:
    """Read a trace, its format recognised by its columns; rows may come in any order.

    Of Mooncake's block hashes the first is the prefix group: requests that share a longer prefix share this one, too.
    Raises BadInput for a file that is no such table, naming line and column.
    """
    rows = _json_lines(path) if path.suffix in (".jsonl", ".json") else _csv(path)
    if not 1 <= len(rows) <= MAX_REQUESTS:
        raise BadInput(str(path), f"{len(rows)} requests", f"1 to {MAX_REQUESTS}")
    known = [one for one in _FORMATS if {one.time, one.prompt, one.output} <= rows[0][1].keys()]
    if not known:
        # What the columns are instead is not shown: the path may name any file.
        allowed = "; or ".join(", ".join((one.time, one.prompt, one.output)) for one in _FORMATS)
        raise BadInput(str(path), "other columns", f"a trace with the columns {allowed}")
    return _trace(path, rows, known[0])


def _trace(path: Path, rows: Sequence[tuple[int, _Row]], form: _Format) -> Trace:
    if form.failures_have_no_tokens:
        rows = [row for row in rows if not _no_tokens(row[1], form)]
        if not rows:
            raise BadInput(str(path), "requests without tokens", "at least one request with prompt and output tokens")
    times = np.array([_value(path, row, form.time, form.seconds, -math.inf) for row in rows])
    order = np.argsort(times, kind="stable")
    prompts, outputs = (
        np.array([_value(path, row, name, float, 1) for row in rows])[order].astype(np.int64)
        for name in (form.prompt, form.output)
    )
    groups = _numbered(rows, form.prefix, order)
    return Trace(times[order] - times.min(), prompts, outputs, groups, _numbered(rows, form.session, order))


def _no_tokens(row: _Row, form: _Format) -> bool:
    return any(str(row.get(name)).strip() in ("0", "0.0") for name in (form.prompt, form.output))


def _value(path: Path, row: tuple[int, _Row], name: str, read: Callable[[Any], float], least: float) -> float:
    line, values = row
    text = values.get(name)
    try:
        value = read("" if text is None or isinstance(text, bool) else text)
    except (ValueError, TypeError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and value >= least):
        kind = "a time" if math.isinf(least) else f"a number of at least {least:g}"
        raise BadInput(f"{path}: line {line}, {name}", text, kind)
    return value


def _numbered(rows: Sequence[tuple[int, _Row]], name: str | None, order: Ints) -> Ints | None:
    """Equal values get one number, in the order of their first request; an empty one stands for itself."""
    if name is None or name not in rows[0][1]:
        return None
    seen: dict[str, int] = {}
    found = np.empty(len(rows), dtype=np.int64)
    for place, index in enumerate(order.tolist()):
        value = rows[index][1].get(name)
        first = value[0] if isinstance(value, list) and value else value
        alone = first is None or first == "" or first == []
        found[place] = seen.setdefault(f"alone {place}" if alone else f"is {first}", len(seen))
    return found


def _csv(path: Path) -> list[tuple[int, _Row]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(enumerate(csv.DictReader(file), 2))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput("trace", str(path), f"a readable CSV or JSON-lines file ({type(error).__name__})") from None


def _json_lines(path: Path) -> list[tuple[int, _Row]]:
    rows: list[tuple[int, _Row]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for line, text in enumerate(file, 1):
                if text.strip():
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise BadInput(f"{path}: line {line}", type(row).__name__, "a JSON object")
                    rows.append((line, row))
    except ValueError:
        raise BadInput(
            f"{path}: line {len(rows) + 1}", "text that is not JSON", "a JSON object on every line"
        ) from None
    except OSError as error:
        raise BadInput("trace", str(path), f"a readable CSV or JSON-lines file ({type(error).__name__})") from None
    return rows
