"""How good a measured trial is: what search and decision both rank by."""

from __future__ import annotations

from tuner.request import Metric, Objective, TuneRequest
from tuner.trial import StepResult, TrialResult

_ASKED = 1 - 1e-9  # the asked rate, but for rounding


def slo_ratio(request: TuneRequest, step: StepResult) -> float | None:
    """The worst of measured value ÷ target over the SLO, or None where nothing was measured; above 1 it is missed."""
    if any(value is None for value in step.slo_values_ms):
        return None
    pairs = zip(step.slo_values_ms, request.slo, strict=True)
    return max((value or 0.0) / target.ms for value, target in pairs)


def merit(request: TuneRequest, result: TrialResult) -> tuple[bool, tuple[float, ...]]:
    """(meets the SLO at the asked rate, sort key with the best smallest) of a measured trial.

    Ties on the objective are broken by E2E latency, at the asked rate (for goodput: at the highest rate that met the
    SLO), then by the device count.
    Among those that miss it, the one that holds more of the asked rate comes first, then the one that misses by less.
    """
    best, asked_req_per_s = result.best_step(request), request.workload.arrival.requests_per_s
    held = best.step.rate_req_per_s / asked_req_per_s if best else 0.0
    devices = float(result.layout.devices)
    enough = 0.0 if request.objective is Objective.MAX_GOODPUT else _ASKED
    if best is None or held < enough:
        missed = next((s for s in result.steps if not s.meets(request)), None)
        ratio = slo_ratio(request, missed) if missed and not missed.failed else None
        return False, (-held, float("inf") if ratio is None else ratio, devices)
    if request.objective is Objective.MAX_GOODPUT:
        # Two layouts that held the same rate differ in goodput only by the draw of arrivals: rank by the rate.
        return True, (-best.step.rate_req_per_s, _e2e_ms(best), devices)
    asked = [s for s in result.steps if s.meets(request) and s.step.rate_req_per_s >= _ASKED * asked_req_per_s]
    e2e_ms = _e2e_ms(min(asked, key=lambda s: s.step.rate_req_per_s))
    if request.objective is Objective.MIN_LATENCY:
        return True, (e2e_ms, devices)
    return True, (devices, e2e_ms)


def _e2e_ms(step: StepResult) -> float:
    measured = step.latency.get(Metric.E2E)
    return measured.mean_ms if measured else float("inf")
