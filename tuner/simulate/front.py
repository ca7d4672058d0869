"""The path from client to engine, after the engines were simulated: what clients see of the same requests.

Engines hand on a token of every running sequence at the end of a step; on the way out each hop is event loops that work
in rounds, those of the engine first. Requests on their way in are work of the same loops. A request and its first token
are handed on between the threads of a process, ``passes`` times as ``FrontFit`` says, and wait as long each time. What
a path delays does not come back to the engines: they see the same requests, somewhat later. Within a burst, the loops
of the ingress share the work evenly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuner.ask.arrivals import ClosedLoad
from tuner.cost.front_path import Path
from tuner.simulate.front_gaps import of_messages, shaken
from tuner.simulate.front_shared import shared
from tuner.simulate.result import SimulationResult

Floats = NDArray[np.float64]
_SETTLING, _SETTLED = 8, 0.01  # tries of a closed loop, and how far off its delay may be, as a share of E2E
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Traffic:
    """What leaves the engines, by time: when, how many messages and tokens, of which engine, and of which request (NONE
    of bursts). ``first`` and ``last`` are places in it, by request, ``opening`` the tokens of its first message."""

    at_ms: Floats
    messages: Floats
    tokens: Floats
    engine: Ints
    request: Ints | None
    first: Ints
    last: Ints
    opening: Ints


def through(path: Path, result: SimulationResult, stages: int = 1) -> SimulationResult:
    """The result behind a path; engines of several ``stages`` end a step for each of them."""
    traffic = _messages(path, result) if path.front.interval_ms else _bursts(result, stages)
    asked = np.argsort(result.arrival_s, kind="stable")
    cores = np.inf if path.cores is None else path.cores
    left_ms, late_ms = shared(path, cores, traffic.at_ms, traffic.messages, traffic.tokens, traffic.engine,
                              traffic.request, result.arrival_s[asked] * 1e3, result.replica[asked])  # fmt: skip
    delay_ms, inbound_ms = path.fit.passes * (left_ms - traffic.at_ms), np.empty_like(late_ms)
    inbound_ms[asked] = path.fit.idle_ms + path.fit.passes * late_ms
    first_s, end_s = result.first_token_s, result.end_s
    if traffic.request is not None:
        first_s, end_s = traffic.at_ms[traffic.first] / 1e3, np.maximum(end_s, traffic.at_ms[traffic.first] / 1e3)
    first_s = first_s + (inbound_ms + delay_ms[traffic.first]) / 1e3
    end_s = np.maximum(first_s, end_s + (inbound_ms + delay_ms[traffic.last]) / 1e3)
    seen = replace(result, first_token_s=first_s, end_s=end_s, first_tokens=traffic.opening)
    if traffic.request is None:
        return shaken(seen, delay_ms, traffic.messages)
    return of_messages(seen, traffic.at_ms + delay_ms, traffic.request, traffic.last)


def behind(
    path: Path, load: ClosedLoad, engines: Callable[[ClosedLoad], SimulationResult], stages: int = 1
) -> SimulationResult:
    """Users in a closed loop behind a path: what it delays has them send later, so that it settles at a delay at which
    it has just that."""

    def slowed(delay_s: float) -> tuple[SimulationResult, float]:
        own = engines(replace(load, think_s=load.think_s + delay_s))
        seen = through(path, own, stages)
        return seen, float(np.mean(seen.end_s - own.end_s))

    low, (seen, high) = 0.0, slowed(0.0)
    for _ in range(_SETTLING):
        seen, found = slowed((low + high) / 2)
        if abs(found - (low + high) / 2) <= _SETTLED * float(np.mean(seen.e2e_ms)) / 1e3:
            break
        low, high = ((low + high) / 2, high) if found > (low + high) / 2 else (low, (low + high) / 2)
    return seen


def _bursts(result: SimulationResult, stages: int) -> _Traffic:
    from tuner.simulate.front_loops import bursts

    first_ms, end_ms = result.first_token_s * 1e3, result.end_s * 1e3
    first, last = np.zeros(len(first_ms), dtype=np.int64), np.zeros(len(first_ms), dtype=np.int64)
    parts: list[tuple[Floats, Floats, Ints]] = []
    for engine in np.unique(result.replica):
        own = np.flatnonzero(result.replica == engine)
        own = own[np.argsort(first_ms[own], kind="stable")]
        gaps = float((result.output_tokens[own] - 1).sum())
        step_ms = max(float((end_ms[own] - first_ms[own]).sum()) / gaps if gaps else 1.0, 1e-3) / stages
        room = int(((end_ms[own] - first_ms[own]) / step_ms).sum()) + 3 * len(own)
        at_ms, count = np.empty(room), np.empty(room)
        used = bursts(own, first_ms, end_ms, result.output_tokens, step_ms, at_ms, count, first, last)
        before = sum(len(part[0]) for part in parts)
        first[own] += before
        last[own] += before
        parts.append((at_ms[:used], count[:used], np.full(used, engine, dtype=np.int64)))
    at_ms, count, engines = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(parts) > 1:
        order = np.argsort(at_ms, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        at_ms, count, engines, first, last = at_ms[order], count[order], engines[order], place[first], place[last]
    return _Traffic(at_ms, count, count, engines, None, first, last, np.ones(len(first), dtype=np.int64))


def _messages(path: Path, result: SimulationResult) -> _Traffic:
    from tuner.simulate.front_loops import messages

    interval_ms, count = float(path.front.interval_ms), len(result.arrival_s)
    first_ms, end_ms = result.first_token_s * 1e3, result.end_s * 1e3
    most = np.minimum(result.output_tokens, 3 + ((end_ms - first_ms) / interval_ms).astype(np.int64))
    room = int(most.sum())
    at_ms, carried, request = np.empty(room), np.empty(room), np.empty(room, dtype=np.int64)
    first, last = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    used = messages(
        result.arrival_s * 1e3,
        first_ms,
        end_ms,
        result.output_tokens,
        interval_ms,
        at_ms,
        carried,
        request,
        first,
        last,
    )
    opening = carried[first].astype(np.int64)
    order = np.argsort(at_ms[:used])
    place = np.empty_like(order)
    place[order] = np.arange(used)
    request = request[order]
    return _Traffic(at_ms[order], np.ones(used), carried[order], result.replica[request], request, place[first],
                    place[last], opening)  # fmt: skip
