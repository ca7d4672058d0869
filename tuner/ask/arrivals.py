"""When requests arrive and how long they are: pure, seeded, with no clock inside.

The same seed gives the same load to every layout (common random numbers), and a Poisson schedule at twice the rate is
the same schedule run at twice the speed. Load generator and simulator both take their load from ``offered``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.ask.recorded import fitted, read_once, replayed_trace
from tuner.ask.traces import MAX_REQUESTS, Trace
from tuner.ask.workload import TokenLengths, TooLong, Workload
from tuner.errors import BadInput

CHANGING_PROCESSES = ("ramp", "step", "trace")  # whose rate changes by design
_OFFSETS, _PROMPTS, _OUTPUTS = range(3)  # independent random streams of one seed


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """The requests of one window: three arrays of one length, ordered by time.

    ``offset_s`` holds the intended send times in seconds from the start of the window; the next two count tokens.
    ``priority`` (the smallest goes first) and ``prefix_group`` (requests of one group open alike) are None where all
    requests are equal; ``session`` (turns of one conversation have one number) where each stands alone.
    ``duration_s`` are the seconds of the window that they fill, None where that is not known: requests need come
    neither at its start nor to its end. ``too_long`` requests of a trace were skipped or truncated.
    """

    offset_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    priority: NDArray[np.int64] | None = None
    prefix_group: NDArray[np.int64] | None = None
    session: NDArray[np.int64] | None = None
    duration_s: float | None = None
    too_long: int = 0

    def __len__(self) -> int:
        return len(self.offset_s)

    @property
    def rate_req_per_s(self) -> float | None:
        """Requests ÷ the seconds of their window, never ÷ the time between the first and the last; None where that is
        not known."""
        return len(self) / self.duration_s if self.duration_s else None

    def share(self, worker: int, workers: int) -> OfferedLoad:
        """What one of several workers sends: every ``workers``-th request, so that all shares together are the load."""
        if not 0 <= worker < workers:
            raise BadInput("worker", worker, f"0 to {workers - 1}")
        return self.taken(np.arange(worker, len(self), workers))

    def taken(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> OfferedLoad:
        """The chosen requests: a mask, or indices by rising time."""
        columns = {one.name: getattr(self, one.name) for one in fields(self)}
        left: dict[str, Any] = {name: c[chosen] for name, c in columns.items() if isinstance(c, np.ndarray)}
        return replace(self, **left)


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
    """A closed loop of ``users`` over ``requests`` in all, with the workload's lengths, a trace's in its order."""
    if not 1 <= requests <= MAX_REQUESTS:
        raise BadInput("load.requests", requests, f"1 to {MAX_REQUESTS}")
    if workload.arrival.trace is not None:
        trace = replayed_trace(workload.arrival)
        prompt_tokens, output_tokens = (np.resize(one, requests) for one in (trace.prompt_tokens, trace.output_tokens))
        return ClosedLoad(users, prompt_tokens, output_tokens, think_s)
    prompts = _lengths(workload.prompt_tokens, requests, _random(seed, _PROMPTS))
    return ClosedLoad(users, prompts, _lengths(workload.output_tokens, requests, _random(seed, _OUTPUTS)), think_s)


def replay(
    path: Path,
    speed: float = 1.0,
    window_s: tuple[float, float] | None = None,
    limit_tokens: int | None = None,
    too_long: TooLong = TooLong.REFUSE,
) -> OfferedLoad:
    """A recorded load (see ``tuner.ask.traces``), ``speed`` times as fast as it was.

    ``window_s`` cuts out the seconds from one moment to another of the recording; the load then starts at the first.
    Raises BadInput for a file that is no trace, a speed that is not positive, a window without requests, and requests
    longer than ``limit_tokens`` where ``too_long`` refuses them.
    """
    if not (math.isfinite(speed) and speed > 0):
        raise BadInput("trace.speed", speed, "a finite number above 0")
    trace, _ = read_once(path)
    start_s, duration_s = 0.0, trace.span_s
    if window_s is not None:
        start_s, duration_s = window_s[0], window_s[1] - window_s[0]
        inside = (trace.at_s >= window_s[0]) & (trace.at_s < window_s[1])
        if not inside.any():
            allowed = f"a part of the trace in which requests arrive; it has {trace.at_s[-1]:g} seconds"
            raise BadInput("trace.window_s", window_s, allowed)
        trace = trace.taken(inside)
    remedy = "a server that takes {longest} tokens (max_model_len), or --too-long skip or truncate"
    fit = fitted(trace, limit_tokens, too_long, f"trace {path}", remedy)
    load = _as_offered(fit.trace)
    offset_s = (load.offset_s - start_s) / speed
    return replace(load, offset_s=offset_s, duration_s=duration_s / speed or None, too_long=fit.too_long)


def _as_offered(trace: Trace) -> OfferedLoad:
    return OfferedLoad(
        trace.at_s, trace.prompt_tokens, trace.output_tokens, prefix_group=trace.prefix_group, session=trace.session
    )


def offered(workload: Workload, rate_req_per_s: float, duration_s: float, seed: int) -> OfferedLoad:
    """The load of one window: arrivals, prompt lengths and output lengths from three independent random streams.

    A trace brings its own lengths, and is replayed at the speed that makes its mean rate the asked one; a window longer
    than the trace begins it anew. A window so short that nothing would arrive gets one request, at its start: otherwise
    it would measure nothing. Raises BadInput as ``schedule`` does, and for a closed loop, which offers no rate.
    """
    arrival = workload.arrival
    if arrival.process == "closed_loop":
        allowed = "a process that offers a rate; a closed loop is for parlay simulate and parlay measure"
        raise BadInput("workload.arrival.process", arrival.process, allowed)
    if arrival.trace is not None:
        return _replayed(workload, rate_req_per_s, duration_s)
    offset_s = schedule(arrival.process, rate_req_per_s, duration_s, seed, arrival.burstiness, arrival.start_share)
    if not offset_s.size:
        offset_s = np.zeros(1)
    return OfferedLoad(
        offset_s,
        _lengths(workload.prompt_tokens, len(offset_s), _random(seed, _PROMPTS)),
        _lengths(workload.output_tokens, len(offset_s), _random(seed, _OUTPUTS)),
        duration_s=duration_s,
    )


def _replayed(workload: Workload, rate_req_per_s: float, duration_s: float) -> OfferedLoad:
    """Rounds of the trace: each lasts as long as so many requests do at that rate, or starts at once with all of them
    where they came at one moment."""
    _check_window(rate_req_per_s, duration_s)
    load = _as_offered(replayed_trace(workload.arrival))
    for name, found in (("prompt_tokens", load.prompt_tokens), ("output_tokens", load.output_tokens)):
        longest = getattr(workload, name).bounds[1]
        if found.max() > longest:
            raise BadInput(
                f"workload.{name}", f"at most {longest}", f"a max of at least {found.max()}, as the trace has"
            )
    count = len(load)
    round_s = count / rate_req_per_s
    since_s = load.offset_s - load.offset_s[0]
    scaled_s = since_s * ((count - 1) / rate_req_per_s / since_s[-1]) if since_s[-1] else since_s
    rounds = math.ceil(duration_s / round_s)
    offset_s = (np.arange(rounds)[:, None] * round_s + scaled_s).ravel()
    inside = offset_s < duration_s * (1 - 1e-12)  # what is due at the end is not due before it by rounding
    load = load.taken(np.tile(np.arange(count), rounds)[inside])
    return replace(load, offset_s=offset_s[inside], duration_s=duration_s)


def schedule(
    process: str,
    rate_req_per_s: float,
    duration_s: float,
    seed: int,
    burstiness: float = 1.0,
    start_share: float = 0.5,
) -> NDArray[np.float64]:
    """Intended send times in seconds on [0, ``duration_s``), ascending; shape (requests,), which may be 0.

    ``constant``: one every 1/rate seconds, the first at 0. ``poisson``: independent exponential gaps of mean 1/rate
    (the definition of a homogeneous Poisson process), the first gap before the first request. ``gamma``: gaps of the
    same mean from a gamma distribution whose squared coefficient of variation is ``burstiness``: above 1 requests come
    in bursts, below 1 evenly, at 1 it is a Poisson process. ``ramp`` and ``step`` are Poisson processes whose rate
    changes, from ``start_share`` times the mean to as far beyond it: evenly over the window, or at once at half of it.
    Raises BadInput for an unknown process, a rate or duration that is not positive, or more than ``MAX_REQUESTS``.
    """
    if process not in _PROCESSES:
        raise BadInput("workload.arrival.process", process, ", ".join(_PROCESSES))
    _check_window(rate_req_per_s, duration_s)
    if not (math.isfinite(burstiness) and burstiness > 0):
        raise BadInput("load.burstiness", burstiness, "a finite number above 0")
    if not 0 <= start_share <= 2:
        raise BadInput("load.start_share", start_share, "0 to 2")
    return _PROCESSES[process](rate_req_per_s, duration_s, seed, start_share if process in _CHANGING else burstiness)


def _check_window(rate_req_per_s: float, duration_s: float) -> None:
    for where, value in (("rate_req_per_s", rate_req_per_s), ("duration_s", duration_s)):
        if not (math.isfinite(value) and value > 0):
            raise BadInput(f"load.{where}", value, "a finite number above 0")
    if rate_req_per_s * duration_s > MAX_REQUESTS:
        raise BadInput("load", rate_req_per_s * duration_s, f"at most {MAX_REQUESTS} requests in a window")


def lengths(tokens: TokenLengths, count: int, seed: int) -> NDArray[np.int64]:
    """``count`` lengths in tokens, shape (count,), from the distribution that ``TokenLengths`` describes."""
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


def _ramp(rate_req_per_s: float, duration_s: float, seed: int, start_share: float) -> NDArray[np.float64]:
    """Time-rescaling (Çinlar 1975): an even Poisson process, sent through the inverse of the expected count.

    Of that, the share (s t + (1 - s) t²) has arrived by the share t of the window, s being ``start_share``.
    """
    arrived = _poisson(rate_req_per_s, duration_s, seed, 1.0) / duration_s
    bend = 1 - start_share
    if abs(bend) < 1e-9:
        return arrived * duration_s
    root = np.sqrt(np.maximum(start_share**2 + 4 * bend * arrived, 0.0))
    return np.asarray(duration_s * np.minimum((root - start_share) / (2 * bend), np.nextafter(1, 0)))


def _step(rate_req_per_s: float, duration_s: float, seed: int, start_share: float) -> NDArray[np.float64]:
    arrived = _poisson(rate_req_per_s, duration_s, seed, 1.0) / duration_s
    points = ([0.0, start_share / 2, 1.0], [0.0, 0.5, 1.0])
    if start_share in (0, 2):  # nothing arrives in one half
        points = ([0.0, 1.0], [0.5 - start_share / 4, 1 - start_share / 4])
    return np.asarray(duration_s * np.minimum(np.interp(arrived, *points), np.nextafter(1, 0)))


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
    "ramp": _ramp,
    "step": _step,
}
_CHANGING = ("ramp", "step")


def _lengths(tokens: TokenLengths, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    low, high = tokens.bounds
    if tokens.distribution == "trace":
        raise BadInput("workload.arrival.process", "lengths of a trace", "trace, whose requests bring them")
    if tokens.sd is None:
        return random.integers(low, high, size=count, dtype=np.int64, endpoint=True)
    if tokens.distribution == "lognormal":
        variance = math.log1p((tokens.sd / tokens.mean) ** 2)
        draw = partial(random.lognormal, math.log(tokens.mean) - variance / 2, math.sqrt(variance))
    else:
        draw = partial(random.normal, tokens.mean, tokens.sd)
    found: NDArray[np.float64] = np.rint(draw(count))
    while (outside := (found < low) | (found > high)).any():  # cut off by drawing anew, so that no length piles up
        found[outside] = np.rint(draw(int(outside.sum())))
    return found.astype(np.int64)


def _random(seed: int, stream: int) -> np.random.Generator:
    if seed < 0:
        raise BadInput("seed", seed, "a whole number of at least 0")
    return np.random.default_rng([seed, stream])
