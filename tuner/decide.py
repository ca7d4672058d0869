"""The decision: the winner among the measured trials, what came second and why; or how far the best is from the SLO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.merit import merit, slo_ratio
from tuner.prune import Candidate, DroppedGroup, Prediction
from tuner.request import Objective, TuneRequest
from tuner.trial import StepResult, TrialResult, TrialState


@dataclass(frozen=True, slots=True)
class Decision:
    """What a study concluded. ``winner`` is None when no layout met the SLO; ``why`` then says by how much the best one
    misses and ``remedy`` what would have to change. ``pareto`` are the trials that no other beats on both devices and
    goodput."""

    study: str
    winner: TrialResult | None
    runner_up: TrialResult | None
    pareto: tuple[TrialResult, ...]
    trials: tuple[TrialResult, ...]
    predictions: dict[str, Prediction]
    dropped: tuple[DroppedGroup, ...]
    why: str
    remedy: str | None

    def predicted_ms(self, request: TuneRequest, trial: TrialResult) -> tuple[float | None, ...]:
        """What the model said of a trial's shown step: ``request.shown_metrics`` in ms, None where it said nothing."""
        step, predicted = trial.shown_step(request), self.predictions.get(str(trial.layout))
        if step is None or predicted is None:
            return (None,) * len(request.shown_metrics)
        return predicted.steps[step.step.index]


def decide(
    study: str,
    request: TuneRequest,
    trials: Sequence[TrialResult],
    ranked: Sequence[Candidate],
    dropped: Sequence[DroppedGroup],
) -> Decision:
    """Choose among the finished trials; pure, so an interrupted study that is resumed decides alike."""
    measured = [t for t in trials if t.state is not TrialState.FAILED and t.steps]
    order = sorted(measured, key=lambda t: (not (m := merit(request, t))[0], m[1], t.number))
    feasible = [t for t in order if merit(request, t)[0]]
    winner = feasible[0] if feasible else None
    runner_up = feasible[1] if len(feasible) > 1 else None
    why, remedy = (_why(request, winner, runner_up), None) if winner else _shortfall(request, order, trials)
    return Decision(
        study=study,
        winner=winner,
        runner_up=runner_up,
        pareto=pareto_front(request, feasible),
        trials=tuple(trials),
        predictions={str(c.layout): c.prediction for c in ranked},
        dropped=tuple(dropped),
        why=why,
        remedy=remedy,
    )


def pareto_front(request: TuneRequest, feasible: Sequence[TrialResult]) -> tuple[TrialResult, ...]:
    """Trials that meet the SLO and that no other beats on both device count and goodput."""

    def goodput(trial: TrialResult) -> float:
        best = trial.best_step(request)
        return (best.goodput_req_per_s if best else None) or 0.0

    ordered = sorted(feasible, key=lambda t: (t.layout.devices, -goodput(t)))
    front: list[TrialResult] = []
    for trial in ordered:
        if not front or goodput(trial) > goodput(front[-1]):
            front.append(trial)
    return tuple(front)


def _why(request: TuneRequest, winner: TrialResult, runner_up: TrialResult | None) -> str:
    best = winner.best_step(request)
    assert best is not None  # a winner met the SLO at some step
    text = (
        f"{winner.layout} meets {_slo(request)} at {best.step.rate_req_per_s:g} requests/s ({_measured(request, best)})"
    )
    text += f" on {_devices(winner)}"
    if runner_up is None:
        return f"{text}; no other measured layout does."
    return f"{text}. Second: {runner_up.layout}, {_gap(request, winner, runner_up)}."


def _gap(request: TuneRequest, winner: TrialResult, second: TrialResult) -> str:
    one, two = winner.best_step(request), second.best_step(request)
    assert one is not None
    assert two is not None
    if request.objective in (Objective.MIN_GPUS, Objective.MIN_COST) and winner.layout.devices < second.layout.devices:
        return f"which needs {_devices(second)}"
    if request.objective is Objective.MAX_GOODPUT and one.step.rate_req_per_s > two.step.rate_req_per_s:
        return f"which meets it only up to {two.step.rate_req_per_s:g} requests/s"
    shown = f"{_measured(request, two)} at {two.step.rate_req_per_s:g} requests/s"
    return f"which meets it on {_devices(second)} with no lower latency ({shown})"


def _shortfall(
    request: TuneRequest, order: Sequence[TrialResult], trials: Sequence[TrialResult]
) -> tuple[str, str | None]:
    """In words: how near the best measured layout came, and what would make it enough."""
    if not order:
        reasons = {t.failure.value for t in trials if t.failure}
        return "no layout could be measured" + (f" ({', '.join(sorted(reasons))})" if reasons else ""), None
    best = order[0]
    held = best.best_step(request)
    asked = request.workload.arrival.requests_per_s
    missing = next((s for s in best.steps if not s.meets(request)), best.steps[-1])
    ratio = slo_ratio(request, missing)
    text = f"no measured layout meets {_slo(request)} at {asked:g} requests/s; the nearest is {best.layout}"
    if missing.failed:
        text += (
            f", where {missing.failed} of {missing.sent} requests failed at {missing.step.rate_req_per_s:g} requests/s"
        )
    elif ratio is not None:
        text += (
            f", {ratio:.2f} × the target at {missing.step.rate_req_per_s:g} requests/s ({_measured(request, missing)})"
        )
    remedy = []
    if held is not None:
        remedy.append(f"a rate of at most {held.step.rate_req_per_s:g} requests/s on {_devices(best)}")
    if ratio is not None and ratio > 1:
        pairs = zip(request.slo, missing.slo_values_ms, strict=True)
        wider = [
            f"{t.metric.value} p{t.percentile:g} of {value:.0f} ms" for t, value in pairs if value and value > t.ms
        ]
        remedy.append("targets of at least " + " and ".join(wider) + f" for {missing.step.rate_req_per_s:g} requests/s")
    remedy.append(f"more devices than the {best.layout.devices} of {best.layout}")
    return text, "it would take " + ", or ".join(remedy)


def _slo(request: TuneRequest) -> str:
    return " and ".join(str(target) for target in request.slo)


def _measured(request: TuneRequest, step: StepResult) -> str:
    pairs = zip(request.slo, step.slo_values_ms, strict=True)
    shown = (
        f"{t.metric.value} p{t.percentile:g} {'–' if value is None else format(value, '.0f')} ms" for t, value in pairs
    )
    return ", ".join(shown)


def _devices(trial: TrialResult) -> str:
    count = trial.layout.devices
    return f"{count} device" + ("s" if count > 1 else "")
