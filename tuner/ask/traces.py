"""Recorded loads: tables of when requests came and how long they were, ours and the public ones, CSV or JSON lines.

| format | columns | time |
|---|---|---|
| ours | timestamp, prompt_tokens, output_tokens; optional prefix_group, session | seconds |
| Azure LLM inference traces (2023, 2024) | TIMESTAMP, ContextTokens, GeneratedTokens | date and time |
| BurstGPT (1.1, 2.0) | Timestamp, Request tokens, Response tokens; optional Session ID | seconds |
| Mooncake (FAST'25) | timestamp, input_length, output_length; optional hash_ids | milliseconds |

Sources: github.com/Azure/AzurePublicDataset, github.com/HPMLL/BurstGPT, github.com/kvcache-ai/Mooncake. A date and time
is read in every format. The public traces also list requests that failed, with no tokens: these are left out, and
counted. In ours such a row is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.ask.trace_rows import Row, csv_rows, json_rows
from tuner.errors import BadInput

MAX_REQUESTS = 10_000_000
_MOST_TOKENS = 1e9  # of one request; more is no length
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests of a recorded load by rising time, the first at 0 s; lengths in tokens.

    Requests of one ``prefix_group`` open alike, those of one ``session`` are turns of one conversation; numbers from 0,
    None where the trace has no such column. ``line`` is where each stands in the file; ``without_tokens`` counts the
    rows that were left out as they have none.
    """

    at_s: NDArray[np.float64]
    prompt_tokens: Ints
    output_tokens: Ints
    prefix_group: Ints | None
    session: Ints | None
    line: Ints
    without_tokens: int = 0

    def __len__(self) -> int:
        return len(self.at_s)

    def taken(self, chosen: NDArray[np.bool_]) -> Trace:
        """The chosen requests, at the times that they had."""
        columns = {one.name: getattr(self, one.name) for one in fields(self)}
        left: dict[str, Any] = {name: c[chosen] for name, c in columns.items() if isinstance(c, np.ndarray)}
        return replace(self, **left)

    @property
    def span_s(self) -> float:
        """Seconds that the requests stand for: from the first to the last and a mean gap more, as if another were to
        come; 0 where all came at one moment."""
        between_s = float(self.at_s[-1] - self.at_s[0])
        return between_s * len(self) / (len(self) - 1) if between_s else 0.0

    @property
    def rate_req_per_s(self) -> float | None:
        """Its own mean rate; None where all came at one moment."""
        return len(self) / self.span_s if self.span_s else None


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


def _seconds(value: Any) -> float:
    """Seconds as a number, or as a date and time."""
    try:
        return float(value)
    except ValueError:
        return _iso_seconds(value)


def _milliseconds(value: Any) -> float:
    try:
        return float(value) / 1e3
    except ValueError:
        return _iso_seconds(value)


def _iso_seconds(text: Any) -> float:
    found = datetime.fromisoformat(str(text))  # a fraction finer than microseconds is cut
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


_FORMATS = (
    _Format("timestamp", "prompt_tokens", "output_tokens", _seconds, "prefix_group", "session", False),
    _Format("TIMESTAMP", "ContextTokens", "GeneratedTokens", _seconds),
    _Format("Timestamp", "Request tokens", "Response tokens", _seconds, session="Session ID"),
    _Format("timestamp", "input_length", "output_length", _milliseconds, prefix="hash_ids"),
)


def read_trace(path: Path) -> Trace:
    """Read a trace, its format recognised by its columns; rows may come in any order.

    Of Mooncake's block hashes the first is the prefix group: requests that share a longer prefix share this one, too.
    Raises BadInput for a file that is no such table, naming line and column.
    """
    rows = json_rows(path) if path.suffix in (".jsonl", ".json") else csv_rows(path)
    if not 1 <= len(rows) <= MAX_REQUESTS:
        raise BadInput(str(path), f"{len(rows)} requests", f"1 to {MAX_REQUESTS}")
    known = [one for one in _FORMATS if {one.time, one.prompt, one.output} <= rows[0][1].keys()]
    if not known:
        # What the columns are instead is not shown: the path may name any file.
        allowed = "; or ".join(", ".join((one.time, one.prompt, one.output)) for one in _FORMATS)
        raise BadInput(str(path), "other columns", f"a trace with the columns {allowed}")
    return _trace(path, rows, known[0])


def _trace(path: Path, rows: Sequence[Row], form: _Format) -> Trace:
    listed = len(rows)
    if form.failures_have_no_tokens:
        rows = [row for row in rows if not _no_tokens(row[1], form)]
        if not rows:
            raise BadInput(str(path), "requests without tokens", "at least one request with prompt and output tokens")
    times = np.array([_time(path, row, form) for row in rows])
    order = np.argsort(times, kind="stable")
    prompts, outputs = (
        np.array([_tokens(path, row, name) for row in rows], dtype=np.int64)[order]
        for name in (form.prompt, form.output)
    )
    return Trace(
        times[order] - times.min(),
        prompts,
        outputs,
        _numbered(rows, form.prefix, order),
        _numbered(rows, form.session, order),
        np.array([line for line, _ in rows], dtype=np.int64)[order],
        listed - len(rows),
    )


def _no_tokens(row: Mapping[str, Any], form: _Format) -> bool:
    return any(str(row.get(name)).strip() in ("0", "0.0") for name in (form.prompt, form.output))


def _time(path: Path, row: Row, form: _Format) -> float:
    value = _read(row, form.time, form.seconds)
    if not math.isfinite(value):
        raise _bad(path, row, form.time, "a time")
    return value


def _tokens(path: Path, row: Row, name: str) -> int:
    value = _read(row, name, float)
    if not (1 <= value <= _MOST_TOKENS and value.is_integer()):
        raise _bad(path, row, name, f"a whole number from 1 to {_MOST_TOKENS:.0g}")
    return int(value)


def _read(row: Row, name: str, read: Callable[[Any], float]) -> float:
    """A value of a row, NaN for what is none."""
    text = row[1].get(name)
    try:
        return read("" if text is None or isinstance(text, bool) else text)
    except (ValueError, TypeError, OverflowError):
        return math.nan


def _bad(path: Path, row: Row, name: str, allowed: str) -> BadInput:
    return BadInput(f"{path}: line {row[0]}, {name}", row[1].get(name), allowed)


def _numbered(rows: Sequence[Row], name: str | None, order: Ints) -> Ints | None:
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
