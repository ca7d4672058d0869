"""How good a measured layout is: what search and decision both rank by.

A layout may have several trials; they are taken together. It holds a rate that some trial met and none contradicts: a
trial contradicts a rate where it missed the SLO at that rate or below, above all that it met itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from tuner.ask.cluster import usd_per_hour
from tuner.ask.deployment import Deployment
from tuner.ask.request import Metric, Objective, TuneRequest
from tuner.ask.slo import ratios
from tuner.trial.results import StepResult, TrialResult, TrialState

_ASKED = 1 - 1e-9  # the asked rate, but for rounding
TIE_SHARE = 0.01  # latencies nearer than this are a tie, which stability decides


def slo_ratio(request: TuneRequest, step: StepResult) -> float | None:
    """The worst of measured value ÷ target over the SLO, or None where a target has no value; above 1 it is missed."""
    found = ratios(request.slo, step.slo_values_ms)
    return max(found) if len(found) == len(request.slo) else None


def by_layout(trials: Iterable[TrialResult]) -> dict[Deployment, tuple[TrialResult, ...]]:
    """Finished trials by layout, in their order."""
    found: dict[Deployment, tuple[TrialResult, ...]] = {}
    for trial in trials:
        if trial.state is not TrialState.RUNNING:
            found[trial.deployment] = (*found.get(trial.deployment, ()), trial)
    return found


def held_req_per_s(request: TuneRequest, trials: Sequence[TrialResult]) -> float | None:
    """The highest rate that some trial of the layout met and none contradicts; None where there is none."""
    limit, met = math.inf, list[float]()
    for trial in trials:
        best = trial.best_step(request)
        own = best.step.rate_req_per_s if best else 0.0
        missed = [s.step.rate_req_per_s for s in trial.steps if s.misses(request)]
        limit = min([limit, *(rate for rate in missed if rate > own)])
        met += [s.step.rate_req_per_s for s in trial.steps if s.meets(request)]
    return max((rate for rate in met if rate < limit), default=None)


def asked_steps(request: TuneRequest, trials: Sequence[TrialResult]) -> list[StepResult]:
    """The step of each trial at which layouts are compared, of the trials that have one: at the asked rate, where the
    layout holds it; at the highest rate that it holds, where goodput is the objective or it does not."""
    held = held_req_per_s(request, trials)
    asked = request.workload.arrival.requests_per_s * _ASKED
    if held is None:
        return []
    compared = held if request.objective is Objective.MAX_GOODPUT or held < asked else None
    found = []
    for trial in trials:
        steps = [s for s in trial.steps if s.meets(request) and s.step.rate_req_per_s <= held]
        if compared is None:
            steps = sorted((s for s in steps if s.step.rate_req_per_s >= asked), key=lambda s: s.step.rate_req_per_s)
        else:
            steps = [s for s in steps if s.step.rate_req_per_s == compared]
        found += steps[:1]
    return found


def nearest_missed(request: TuneRequest, trials: Sequence[TrialResult]) -> list[StepResult]:
    """The steps at the lowest rate that some trial of the layout missed."""
    missed = [s for trial in trials for s in trial.steps if s.misses(request)]
    lowest = min((s.step.rate_req_per_s for s in missed), default=0.0)
    return [s for s in missed if s.step.rate_req_per_s == lowest]


def objective_value(request: TuneRequest, objective: Objective, trials: Sequence[TrialResult]) -> float:
    """One objective of a layout, smallest best: devices, US dollars per hour (devices where no price is known), minus
    the held rate in requests/s, or the mean E2E latency in ms over its trials; infinite where it was not measured."""
    layout = trials[0].deployment
    if objective is Objective.MIN_GPUS:
        return float(layout.devices)
    if objective is Objective.MIN_COST:
        price = usd_per_hour(request, layout)
        return float(layout.devices) if price is None else price
    if objective is Objective.MAX_GOODPUT:
        # Two layouts that held the same rate differ in goodput only by the draw of arrivals: compare the rate.
        return -(held_req_per_s(request, trials) or 0.0)
    return fmean([_e2e_ms(step) for step in asked_steps(request, trials)] or [math.inf])


def meets_and_order(request: TuneRequest, *trials: TrialResult) -> tuple[bool, tuple[float, ...]]:
    """(meets the SLO at the asked rate, sort key with the best smallest) of the trials of one layout, taken together.

    Ties on the objectives are broken by stability: fewer failed trials, then the lower E2E latency in its worst run (at
    the asked rate; for goodput at the held rate), then the device count. Latencies within ``TIE_SHARE`` are a tie.
    Among those that miss it, the one that holds more of the asked rate comes first, then the one that misses by less.
    """
    held = held_req_per_s(request, trials) or 0.0
    devices = float(trials[0].deployment.devices)
    share = held / request.workload.arrival.requests_per_s
    enough = 0.0 if request.objective is Objective.MAX_GOODPUT else _ASKED
    if not held or share < enough:
        return False, (-share, _missed_by(request, trials), devices)
    values = [
        _tied(value) if objective is Objective.MIN_LATENCY else value
        for objective in request.objectives
        for value in (objective_value(request, objective, trials),)
    ]
    failures = float(sum(trial.state is TrialState.FAILED for trial in trials))
    worst_ms = max((_e2e_ms(step) for step in asked_steps(request, trials)), default=math.inf)
    return True, (*values, failures, worst_ms, devices)


def _missed_by(request: TuneRequest, trials: Sequence[TrialResult]) -> float:
    """The SLO ratio of the lowest rate that a trial missed, the worst of several; infinite where requests failed."""
    missed = nearest_missed(request, trials)
    return max(
        (math.inf if s.failed or (ratio := slo_ratio(request, s)) is None else ratio for s in missed), default=math.inf
    )


def _tied(value: float) -> float:
    return math.floor(math.log(value) / TIE_SHARE) if 0 < value < math.inf else value


def _e2e_ms(step: StepResult) -> float:
    measured = step.latency.get(Metric.E2E)
    return measured.mean_ms if measured else math.inf
