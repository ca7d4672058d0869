"""The steps of load that every trial of a request is measured under."""

from __future__ import annotations

from tuner.ask.request import TuneRequest
from tuner.trial.results import LoadStep

BASE_SEED = 20260101  # arrivals of step i are drawn from BASE_SEED + i, the same for every layout
SEEDS_PER_REPEAT = 1000


def windows_s(request: TuneRequest) -> float:
    """How long the windows of one trial take that measures all steps, s."""
    return sum(step.duration_s for step in load_steps(request))


def load_steps(request: TuneRequest, repeat: int = 0, only: float | None = None) -> list[LoadStep]:
    """Warm-up (index −1, at the lowest rate) and the rising rates.

    Every layout gets the same arrivals, and other ones when it is measured again. ``only``: without the steps of other
    rates.
    """
    rates, seed = request.rates_req_per_s, BASE_SEED + SEEDS_PER_REPEAT * repeat
    steps = [LoadStep(i, rate, request.load.seconds, seed + i) for i, rate in enumerate(rates) if only in (None, rate)]
    if request.load.warmup_seconds > 0:
        steps.insert(0, LoadStep(-1, rates[0], request.load.warmup_seconds, seed - 1, warmup=True))
    return steps
