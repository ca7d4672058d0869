"""The steps of load that trials of a request are measured under."""

from __future__ import annotations

from tuner.ask.arrivals import CHANGING_PROCESSES
from tuner.ask.request import LONGEST_WARM_UP, TuneRequest
from tuner.trial.results import LoadStep

BASE_SEED = 20260101  # arrivals of step i are drawn from BASE_SEED + i, the same for every layout
SEEDS_PER_REPEAT = 1000


def warm_up(request: TuneRequest, repeat: int = 0) -> list[LoadStep]:
    """The step before those that count, where there is one: at the lowest rate, with index -1. Where the load changes
    by design it is as long as usual: a fall of latencies would say nothing of the engine."""
    load = request.load
    if load.warmup_seconds <= 0:
        return []
    seed = BASE_SEED + SEEDS_PER_REPEAT * repeat - 1
    detected = load.warmup == "detected" and request.workload.arrival.process not in CHANGING_PROCESSES
    longest_s = LONGEST_WARM_UP * load.warmup_seconds if detected else None
    return [LoadStep(-1, request.rates_req_per_s[0], load.warmup_seconds, seed, warmup=True, longest_s=longest_s)]


def step_at(request: TuneRequest, rate_req_per_s: float, repeat: int = 0) -> LoadStep:
    """The step of one of the request's rates. Every layout gets the same arrivals, and others when it is measured
    again (``repeat``)."""
    index = request.rates_req_per_s.index(rate_req_per_s)
    return LoadStep(index, rate_req_per_s, request.load.seconds, BASE_SEED + SEEDS_PER_REPEAT * repeat + index)
