"""The path from client to engine, after the engines were simulated: what clients see of the same requests.

Engines hand on a token of every running sequence at the end of a step; on the way out each hop is event loops that work
in rounds, those of the engine first. Requests on their way in are work of the same loops. A request and its first token
are handed on between the threads of a process, and take ``passes`` rounds of each loop (``FrontFit``). An answer begins
as late as its request comes; engines are taken to work as they did for requests that are on time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tuner.ask.arrivals import ClosedLoad
from tuner.cost.front_path import Path
from tuner.simulate.front_gaps import of_messages, shaken
from tuner.simulate.front_shared import passed
from tuner.simulate.result import SimulationResult

_SETTLING, _SETTLED = 8, 0.01  # tries of a closed loop, and how far off its delay may be, as a share of E2E


def through(path: Path, result: SimulationResult, stages: int = 1) -> SimulationResult:
    """The result behind a path; engines of several ``stages`` end a step for each of them."""
    of = passed(path, result, stages)
    inbound_ms = path.fit.idle_ms + of.inbound_ms
    first_s = (of.early_ms + inbound_ms + of.first_ms) / 1e3
    end_s = (np.maximum(1e3 * result.end_s, of.early_ms) + inbound_ms + of.late_ms[of.last]) / 1e3
    seen = replace(result, first_token_s=first_s, end_s=np.maximum(first_s, end_s), first_tokens=of.opening)
    if of.request is None:
        return shaken(seen, of.late_ms, of.messages)
    return of_messages(seen, of.at_ms + of.late_ms, of.request, of.last)


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
