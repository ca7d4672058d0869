"""Which candidate is worth the next launch, and when none is, by the draws of a belief.

A draw is one way the world may be. A candidate wins in it when it beats the best measured layout by more than
``CLEARLY`` and no other candidate left is clearly better. The launch goes to the one that wins in most draws, of those
about as likely to one of the fewest devices: knowing where the optimum is saves all later launches. Nothing is launched
any more once a win is less likely than ``UNLIKELY``, nor where it is not worth its cost (``tuner.search.worth``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tuner.ask.deployment import Deployment
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, Objective, SloTarget, TuneRequest
from tuner.ask.slo import ratio
from tuner.cost.step_batch import Floats
from tuner.decide.comparison import asked_steps, held_req_per_s, objective_value
from tuner.plan.prune import Candidate
from tuner.search.belief import Belief, Forecast
from tuner.trial.results import TrialResult, TrialState

CLEARLY = 0.03  # share of the objective
UNLIKELY = 0.01  # probability
_AS_SURE = _AS_LIKELY = 0.05  # of a probability
# Standard deviation of the log of a percentile over repeated windows of some hundred requests, as on the simulated
# cluster: 2 to 10 % of TTFT and 2 to 7 % of TPOT, the more the nearer a layout is to saturation.
RUN_SD = {Metric.TTFT: 0.1, Metric.TPOT: 0.06, Metric.ITL: 0.1, Metric.E2E: 0.1}
_ATTAINED_SD = 0.01  # of a share of requests, where its window tells none
_TWO_SIDED = NormalDist().inv_cdf(0.975)  # standard deviations from the middle of a 95 % interval to its end
_ENOUGH = 1 - 1e-9  # of the asked rate, but for rounding


@dataclass(frozen=True, slots=True)
class Outlook:
    """By candidate, the probability of a win (``chance``) and of meeting the SLO (``meets``); ``anything`` is the
    probability that any candidate left wins. ``miss`` is the mean log(latency ÷ target) at the asked rate.

    ``better`` is the probability that a candidate clearly beats the best measured layout, whatever others do, and
    ``gain`` by which share of that one's value, a draw in which it does not counting 0.
    """

    chance: Floats
    meets: Floats
    miss: Floats
    anything: float
    better: Floats
    gain: Floats


def outlook(
    request: TuneRequest, belief: Belief, left: NDArray[np.bool_], best: Mapping[Objective, Sequence[TrialResult]]
) -> Outlook:
    """What may come of the candidates that are ``left``, given the trials of the best measured layout by objective.

    With two objectives a win is one on either of them: both ends of the Pareto front are looked for.
    """
    forecast = belief.forecast()
    wins = np.zeros(forecast.held.shape, dtype=bool)
    meets = np.zeros(forecast.held.shape, dtype=bool)
    gain = np.zeros(forecast.held.shape)
    for objective in request.objectives:
        bar = value_of(request, objective, best[objective]) if best.get(objective) else np.inf
        values = np.where(left, _beside(request, objective, belief, best.get(objective, ())), np.inf)
        leader = values.min(axis=1, keepdims=True, initial=np.inf)
        meets |= np.isfinite(values)
        better = np.isfinite(values) & (values < bar * (1 - CLEARLY))
        wins |= better & (values <= leader * (1 + CLEARLY))
        share = 1 - np.where(better, values, 0.0) / bar if np.isfinite(bar) else 1.0
        gain = np.maximum(gain, np.where(better, share, 0.0))
    miss = np.clip(forecast.miss, -5.0, 5.0).mean(axis=0)
    anything = float(wins.any(axis=1).mean())
    return Outlook(wins.mean(axis=0), meets.mean(axis=0), miss, anything, (gain > 0).mean(axis=0), gain.mean(axis=0))


def overtaking(
    request: TuneRequest, belief: Belief, layout: ParallelLayout, best: Mapping[Objective, Sequence[TrialResult]]
) -> float:
    """The probability that one candidate beats the best measured layout by more than ``CLEARLY``, on any objective."""
    forecast, at = belief.forecast(), [candidate.layout for candidate in belief.candidates].index(layout)
    wins = np.zeros(len(forecast.held), dtype=bool)
    for objective in request.objectives:
        values = _beside(request, objective, belief, best[objective])[:, at]
        wins |= values < value_of(request, objective, best[objective]) * (1 - CLEARLY)
    return float(wins.mean())


def _beside(request: TuneRequest, objective: Objective, belief: Belief, best: Sequence[TrialResult]) -> Floats:
    """As ``_values``, but latencies stand to the measured one of the ``best`` layout as they do in each draw: what the
    belief does not know of both is no reason to launch the other."""
    values = _values(request, objective, belief.candidates, belief.forecast())
    bar = value_of(request, objective, best) if best else np.inf
    known = [i for i, c in enumerate(belief.candidates) if best and c.layout == best[0].deployment]
    if objective is not Objective.MIN_LATENCY or not known or not np.isfinite(bar):
        return values
    return np.asarray(values * (bar / belief.forecast().e2e_ms[:, known[:1]]))


def choose(belief: Belief, left: NDArray[np.bool_], seen: Outlook) -> int | None:
    """Index of the candidate to launch, or None when none is left."""
    if not left.any():
        return None
    if (most := seen.chance[left].max()) > 0:
        likely = left & (seen.chance > 0) & (seen.chance >= most - _AS_LIKELY)
        fewest = likely & (belief.devices == belief.devices[likely].min())
        return int(np.argmax(np.where(fewest, seen.chance, -1.0)))
    return int(np.argmin(np.where(left, seen.miss, np.inf)))


def holding(request: TuneRequest, belief: Belief) -> Floats:
    """By candidate, the probability that it meets the SLO at the asked rate; for goodput, at the lowest load step."""
    goodput = request.objective is Objective.MAX_GOODPUT
    return np.asarray((belief.forecast().held >= (1 if goodput else _steps_asked(request))).mean(axis=0))


def held(request: TuneRequest, belief: Belief) -> NDArray[np.bool_]:
    """By draw and candidate, whether it meets the SLO at the asked rate, whatever the objective."""
    return np.asarray(belief.forecast().held >= _steps_asked(request))


def confirmation_chance(request: TuneRequest, trials: Sequence[TrialResult]) -> float:
    """The probability that a layout which met the SLO meets it again, by its distance from the targets; 1 where it was
    confirmed."""
    steps = asked_steps(request, trials)
    if len(steps) != 1:
        return float(bool(steps))
    over_sd = [_over_sd(target, steps[0].slo_values_ms.get(target.key)) for target in request.slo]
    if request.attainment is not None and steps[0].attainment is not None:
        low, high = steps[0].attainment_interval or (0.0, 0.0)
        sd = max((high - low) / (2 * _TWO_SIDED), _ATTAINED_SD)
        over_sd.append((request.attainment - steps[0].attainment) / sd)
    return NormalDist().cdf(-max(over_sd))


def _over_sd(target: SloTarget, value_ms: float | None) -> float:
    """By how many standard deviations a value is above its target, on a log scale; certain to miss without one."""
    if value_ms is None:
        return math.inf
    return math.log(max(ratio(target, value_ms), 1e-9)) / RUN_SD[target.metric]


def tied(request: TuneRequest, belief: Belief, best: Sequence[TrialResult]) -> NDArray[np.bool_]:
    """By candidate, whether it cannot be told apart from the best measured layout: in half of the draws or more, it is
    within ``CLEARLY`` of it."""
    objective = request.objective
    bar = value_of(request, objective, best)
    near = np.abs(_beside(request, objective, belief, best) / bar - 1) <= CLEARLY
    return np.asarray(near.mean(axis=0) >= 0.5)


def surest(belief: Belief, left: NDArray[np.bool_], holds: Floats) -> int:
    """Index of the candidate that is the likeliest to meet the SLO, of those about as likely the smallest."""
    sure = left & (holds >= holds[left].max() - _AS_SURE)
    return int(np.argmin(np.where(sure, belief.devices, np.inf)))


def value_of(request: TuneRequest, objective: Objective, trials: Sequence[TrialResult]) -> float:
    """An objective of a measured layout as a figure of which less is better; infinite where it misses the SLO."""
    held = held_req_per_s(request, trials) or 0.0
    enough = 0.0 if objective is Objective.MAX_GOODPUT else request.workload.arrival.requests_per_s * _ENOUGH
    if not held or held < enough:
        return float("inf")
    return 1 / held if objective is Objective.MAX_GOODPUT else objective_value(request, objective, trials)


def price_of(request: TuneRequest, objective: Objective, layout: Deployment) -> float:
    """What a layout costs by an objective that asks for no latency: devices, or US dollars per hour."""
    return objective_value(request, objective, [TrialResult(0, layout, TrialState.RUNNING)])


def _values(request: TuneRequest, objective: Objective, candidates: Sequence[Candidate], forecast: Forecast) -> Floats:
    """As ``value_of``, of shape (draws, candidates)."""
    rates = np.array(request.rates_req_per_s)
    if objective is Objective.MAX_GOODPUT:
        return np.append(np.inf, 1 / rates)[forecast.held]
    enough = _steps_asked(request)
    if objective is Objective.MIN_LATENCY:
        return np.where(forecast.held >= enough, forecast.e2e_ms, np.inf)
    same = {(c.layout.gpu, c.layout.devices): c.layout for c in candidates}
    known = {key: price_of(request, objective, layout) for key, layout in same.items()}
    prices = np.array([known[c.layout.gpu, c.layout.devices] for c in candidates])
    return np.where(forecast.held >= enough, prices, np.inf)


def _steps_asked(request: TuneRequest) -> int:
    """Load steps up to the one at the asked rate."""
    return int(np.searchsorted(request.rates_req_per_s, request.workload.arrival.requests_per_s * _ENOUGH)) + 1
