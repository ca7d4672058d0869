"""Which candidate is worth the next launch, and when none is, by the draws of a belief.

A draw is one way the world may be. A candidate wins in it when it beats the best measured layout by more than
``CLEARLY`` and no other candidate left is clearly better. The launch goes to the one that wins in most draws for the
square root of what it costs: knowing where the optimum is pays for all later launches, so a dear one is put off, not
ruled out. Nothing is launched any more once a win is less likely than ``UNLIKELY``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.belief import Belief, Forecast
from tuner.cluster import usd_per_hour
from tuner.cost.steps import Floats
from tuner.layout import ParallelLayout
from tuner.merit import merit, objective_value
from tuner.prune import Candidate
from tuner.request import Objective, TuneRequest
from tuner.trial import TrialResult

CLEARLY = 0.02  # share of the objective
UNLIKELY = 0.02  # probability
_ENOUGH = 1 - 1e-9  # of the asked rate, but for rounding


@dataclass(frozen=True, slots=True)
class Outlook:
    """By candidate, the probability of a win (``chance``) and of meeting the SLO (``meets``); ``anything`` is the
    probability that any candidate left wins. ``miss`` is the mean log(latency ÷ target) at the asked rate."""

    chance: Floats
    meets: Floats
    miss: Floats
    anything: float


def outlook(request: TuneRequest, belief: Belief, left: NDArray[np.bool_], best: Sequence[TrialResult]) -> Outlook:
    """What may come of the candidates that are ``left``, given the trials of the best measured layout so far."""
    forecast = belief.forecast()
    values = np.where(left, _values(request, belief.candidates, forecast), np.inf)
    bar = value_of(request, *best) if best else np.inf
    leader = values.min(axis=1, keepdims=True, initial=np.inf)
    wins = np.isfinite(values) & (values <= leader * (1 + CLEARLY)) & (values < bar * (1 - CLEARLY))
    miss = np.clip(forecast.miss, -5.0, 5.0).mean(axis=0)
    return Outlook(wins.mean(axis=0), np.isfinite(values).mean(axis=0), miss, float(wins.any(axis=1).mean()))


def choose(belief: Belief, left: NDArray[np.bool_], seen: Outlook) -> int | None:
    """Index of the candidate to launch, or None when none is left."""
    if not left.any():
        return None
    devices = np.array([float(c.layout.devices) for c in belief.candidates])
    if seen.chance.max() > 0:
        return int(np.argmax(np.where(left, seen.chance / np.sqrt(devices), -1.0)))
    return int(np.argmin(np.where(left, seen.miss, np.inf)))


def value_of(request: TuneRequest, *trials: TrialResult) -> float:
    """The first objective of a measured layout, less is better; infinite where it misses the SLO."""
    if not merit(request, *trials)[0]:
        return float("inf")
    value = objective_value(request, request.objective, trials)
    return 1 / -value if request.objective is Objective.MAX_GOODPUT else value


def price_of(request: TuneRequest, layout: ParallelLayout) -> float:
    """What a layout costs before it is measured: devices, or US dollars per hour where that is the objective."""
    usd = usd_per_hour(request, layout) if request.objective is Objective.MIN_COST else None
    return float(layout.devices) if usd is None else usd


def _values(request: TuneRequest, candidates: tuple[Candidate, ...], forecast: Forecast) -> Floats:
    """As ``value_of``, of shape (draws, candidates)."""
    rates = np.array(request.rates_req_per_s)
    if request.objective is Objective.MAX_GOODPUT:
        return np.append(np.inf, 1 / rates)[forecast.held]
    enough = int(np.searchsorted(rates, request.workload.arrival.requests_per_s * _ENOUGH)) + 1
    if request.objective is Objective.MIN_LATENCY:
        return np.where(forecast.held >= enough, forecast.e2e_ms, np.inf)
    price = [usd_per_hour(request, c.layout) if request.objective is Objective.MIN_COST else None for c in candidates]
    value = np.array(
        [float(c.layout.devices) if usd is None else usd for c, usd in zip(candidates, price, strict=True)]
    )
    return np.where(forecast.held >= enough, value, np.inf)
