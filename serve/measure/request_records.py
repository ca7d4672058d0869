"""One record per request, as JSON lines or Parquet, for whoever wants to look at more than percentiles.

Times are seconds from the start of the request's window; latencies are in ms. What was not seen is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from serve.load.request_sample import Sample
from serve.measure.window import Window
from tuner.errors import BadInput

SUFFIXES = (".jsonl", ".parquet")


def check_records(path: Path) -> None:
    """Raise BadInput, before anything is measured, where the records could not be written to ``path``."""
    if path.suffix not in SUFFIXES:
        raise BadInput("--requests-out", str(path), "a name that ends in " + " or ".join(SUFFIXES))
    if not path.absolute().parent.is_dir():
        raise BadInput("--requests-out", str(path), "a file in a directory that exists")
    if path.suffix == ".parquet":
        _pyarrow(path)


def write_records(path: Path, windows: Iterable[Window]) -> int:
    """Write the requests of all windows; how many they are."""
    rows = list(records(windows))
    if path.suffix == ".parquet":
        arrow, parquet = _pyarrow(path)
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return len(rows)


def records(windows: Iterable[Window]) -> Iterator[dict[str, Any]]:
    """The record of every request, window by window in order of sending."""
    for number, window in enumerate(windows):
        head = {"window": number, "load": window.order.name, "valid": window.invalid is None}
        head["sent_fields"] = list(window.fields.names)
        for sample in window.samples:
            yield head | {"counted": sample.intended_s >= window.order.lead_s} | record(sample)


def record(sample: Sample) -> dict[str, Any]:
    """One request."""
    return {
        "index": sample.index,
        "outcome": sample.outcome.value,
        "status": sample.status,
        "detail": sample.detail,
        "intended_s": sample.intended_s,
        "sent_s": sample.sent_s,
        "first_byte_s": sample.headers_s,
        "first_token_s": sample.chunk_s[0] if sample.chunk_s else None,
        "end_s": sample.end_s,
        "chunk_s": list(sample.chunk_s),
        "prompt_tokens": sample.prompt_tokens,
        "counted_prompt_tokens": sample.counted_prompt_tokens,
        "asked_output_tokens": sample.asked_output_tokens,
        "output_tokens": sample.output_tokens,
        "counted_by_events": sample.counted_by_events,
        "ignored_events": sample.ignored_events,
        "schedule_lag_ms": sample.lag_s * 1e3,
        "ttft_ms": _ms(sample.ttft_s),
        "ttft_from_intended_ms": _ms(sample.ttft_from_intended_s),
        "tpot_ms": _ms(sample.tpot_s),
        "e2e_ms": _ms(sample.e2e_s),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise BadInput("--requests-out", str(path), "FILE.jsonl; Parquet needs pyarrow (pip install pyarrow)") from None
    return pyarrow, parquet
