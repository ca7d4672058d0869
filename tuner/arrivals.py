"""When requests arrive and how long they are: pure, seeded, with no clock inside.

The same seed gives the same load to every layout (common random numbers), and a Poisson schedule at twice the rate is
the same schedule run at twice the speed. Load generator and simulator both take their load from ``offered``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.errors import BadInput
from tuner.request import TokenLengths, Workload

MAX_REQUESTS = 10_000_000
_OFFSETS, _PROMPTS, _OUTPUTS = range(3)  # independent random streams of one seed


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """The requests of one window: three arrays of one length, ordered by time.

    ``offset_s`` holds the intended send times in seconds from the start of the window; the next two count tokens.
    ``priority`` (the smallest goes first) and ``prefix_group`` (requests of one group open alike) are None where all
    requests are equal.
    """

    offset_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    priority: NDArray[np.int64] | None = None
    prefix_group: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.offset_s)


@dataclass(frozen=True, slots=True)
class ClosedLoad:
    """``users`` who each send a request ``think_s`` seconds after their last one ended; lengths by order of sending."""

    users: int
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    think_s: float = 0.0
    priority: NDArray[np.int64] | None = None
    prefix_group: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.users < 1:
            raise BadInput("load.users", self.users, "at least 1")
        if not (math.isfinite(self.think_s) and self.think_s >= 0):
            raise BadInput("load.think_s", self.think_s, "a finite number of at least 0")

    def __len__(self) -> int:
        return len(self.prompt_tokens)


def closed_load(workload: Workload, users: int, requests: int, seed: int, think_s: float = 0.0) -> ClosedLoad:
    """A closed loop of ``users`` over ``requests`` in all, with the workload's lengths."""
    if not 1 <= requests <= MAX_REQUESTS:
        raise BadInput("load.requests", requests, f"1 to {MAX_REQUESTS}")
    prompts = _lengths(workload.prompt_tokens, requests, _random(seed, _PROMPTS))
    return ClosedLoad(users, prompts, _lengths(workload.output_tokens, requests, _random(seed, _OUTPUTS)), think_s)


def replay(path: Path) -> OfferedLoad:
    """A recorded load: a CSV file with a header and the columns ``timestamp`` (seconds), ``prompt_tokens`` and
    ``output_tokens``, optionally ``prefix_group``, in any order of columns and rows; the first request is at 0.

    Raises BadInput for a file that is not such a table, naming line and column.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput("trace", str(path), f"a readable CSV file ({error})") from None
    if not 1 <= len(rows) <= MAX_REQUESTS:
        raise BadInput(str(path), f"{len(rows)} requests", f"1 to {MAX_REQUESTS}")
    times = _column(path, rows, "timestamp", least=-math.inf)
    order = np.argsort(times, kind="stable")
    groups = None
    if "prefix_group" in rows[0]:
        groups = _column(path, rows, "prefix_group", least=0)[order].astype(np.int64)
    prompts, outputs = (_column(path, rows, name, least=1)[order].astype(np.int64) for name in _TOKEN_COLUMNS)
    return OfferedLoad(times[order] - times.min(), prompts, outputs, prefix_group=groups)


_TOKEN_COLUMNS = ("prompt_tokens", "output_tokens")


def _column(path: Path, rows: Sequence[Mapping[str, str | None]], name: str, least: float) -> NDArray[np.float64]:
    found = np.empty(len(rows))
    for line, row in enumerate(rows, 2):
        text = row.get(name)
        try:
            found[line - 2] = value = float(text or "")
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            kind = "a number" if math.isinf(least) else f"a number of at least {least:g}"
            raise BadInput(f"{path}: line {line}, {name}", text, kind)
    return found


def offered(workload: Workload, rate_req_per_s: float, duration_s: float, seed: int) -> OfferedLoad:
    """The load of one window: arrivals, prompt lengths and output lengths from three independent random streams.

    A window so short that nothing would arrive gets one request, at its start: otherwise it would measure nothing.
    Raises BadInput as ``schedule`` does.
    """
    arrival = workload.arrival
    offset_s = schedule(arrival.process, rate_req_per_s, duration_s, seed, arrival.burstiness)
    if not offset_s.size:
        offset_s = np.zeros(1)
    return OfferedLoad(
        offset_s,
        _lengths(workload.prompt_tokens, len(offset_s), _random(seed, _PROMPTS)),
        _lengths(workload.output_tokens, len(offset_s), _random(seed, _OUTPUTS)),
    )


def schedule(
    process: str, rate_req_per_s: float, duration_s: float, seed: int, burstiness: float = 1.0
) -> NDArray[np.float64]:
    """Intended send times in seconds on [0, ``duration_s``), ascending; shape (requests,), which may be 0.

    ``constant``: one every 1/rate seconds, the first at 0. ``poisson``: independent exponential gaps of mean 1/rate
    (the definition of a homogeneous Poisson process), the first gap before the first request. ``gamma``: gaps of the
    same mean from a gamma distribution whose squared coefficient of variation is ``burstiness``: above 1 requests come
    in bursts, below 1 evenly, at 1 it is a Poisson process.
    Raises BadInput for an unknown process, a rate or duration that is not positive, or more than ``MAX_REQUESTS``.
    """
    if process not in _PROCESSES:
        raise BadInput("workload.arrival.process", process, ", ".join(_PROCESSES))
    limits = (("rate_req_per_s", rate_req_per_s), ("duration_s", duration_s), ("burstiness", burstiness))
    for where, value in limits:
        if not (math.isfinite(value) and value > 0):
            raise BadInput(f"load.{where}", value, "a finite number above 0")
    if rate_req_per_s * duration_s > MAX_REQUESTS:
        raise BadInput("load", rate_req_per_s * duration_s, f"at most {MAX_REQUESTS} requests in a window")
    return _PROCESSES[process](rate_req_per_s, duration_s, seed, burstiness)


def lengths(tokens: TokenLengths, count: int, seed: int) -> NDArray[np.int64]:
    """``count`` lengths in tokens, shape (count,): all ``mean``, or uniform on the closed range ``min`` to ``max``."""
    return _lengths(tokens, count, _random(seed, _PROMPTS))


def _constant(rate_req_per_s: float, duration_s: float, seed: int, burstiness: float) -> NDArray[np.float64]:
    del seed, burstiness  # nothing here is random
    offset_s = np.arange(math.ceil(rate_req_per_s * duration_s)) / rate_req_per_s
    return offset_s[offset_s < duration_s]


def _poisson(rate_req_per_s: float, duration_s: float, seed: int, burstiness: float) -> NDArray[np.float64]:
    del burstiness  # a Poisson process has no choice
    return _renewal(rate_req_per_s, duration_s, _random(seed, _OFFSETS).standard_exponential)


def _gamma(rate_req_per_s: float, duration_s: float, seed: int, burstiness: float) -> NDArray[np.float64]:
    random = _random(seed, _OFFSETS)
    return _renewal(rate_req_per_s, duration_s, lambda count: random.gamma(1 / burstiness, burstiness, count))


def _renewal(
    rate_req_per_s: float, duration_s: float, draw: Callable[[int], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Gaps of mean 1 divided by the rate, drawn in blocks of a fixed size so that windows share their beginning."""
    block = 1024
    expected = rate_req_per_s * duration_s
    gaps = draw(block)
    while (arrived := np.cumsum(gaps))[-1] < expected:
        blocks = max(1, math.ceil((expected - arrived[-1]) / block))
        gaps = np.concatenate([gaps, *(draw(block) for _ in range(blocks))])
    offset_s = arrived / rate_req_per_s
    return offset_s[offset_s < duration_s]


_PROCESSES: dict[str, Callable[[float, float, int, float], NDArray[np.float64]]] = {
    "constant": _constant,
    "poisson": _poisson,
    "gamma": _gamma,
}


def _lengths(tokens: TokenLengths, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    low, high = tokens.bounds
    return random.integers(low, high, size=count, dtype=np.int64, endpoint=True)


def _random(seed: int, stream: int) -> np.random.Generator:
    if seed < 0:
        raise BadInput("seed", seed, "a whole number of at least 0")
    return np.random.default_rng([seed, stream])
