"""The decision: which measured layout wins, what came second and why; or how far the best one is from the SLO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tuner.ask.engine_cautions import cautions
from tuner.ask.request import Objective, TuneRequest
from tuner.ask.slo import over, ratio
from tuner.decide.comparison import slo_ratio
from tuner.decide.layout_summary import LayoutSummary, Spread, front, layout_summaries
from tuner.decide.stopping import Stopped
from tuner.plan.infeasible import Infeasible
from tuner.plan.prune import Candidate, DroppedGroup, Prediction
from tuner.trial.ledger import Spent
from tuner.trial.results import StepResult, TrialResult


@dataclass(frozen=True, slots=True)
class Decision:
    """What a study concluded. ``winner`` is None when no layout met the SLO; ``why`` then says by how much the best one
    misses and ``remedy`` what would have to change.

    ``standings`` are the measured layouts with all their trials, best first; ``winner`` and ``runner_up`` are the
    trials that stand for the first two that meet the SLO, ``pareto`` those of the front (its axes: ``front_axes``).
    ``infeasible`` says why no layout meets the SLO, where the study ended without a winner; ``stopped`` why no more was
    launched, None of a study that goes on; ``files`` has the paths of what was written, by kind.
    """

    study: str
    winner: TrialResult | None
    runner_up: TrialResult | None
    pareto: tuple[TrialResult, ...]
    trials: tuple[TrialResult, ...]
    standings: tuple[LayoutSummary, ...]
    predictions: dict[str, Prediction]
    dropped: tuple[DroppedGroup, ...]
    spent: Spent
    why: str
    remedy: str | None
    infeasible: Infeasible | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    stopped: Stopped | None = None

    @property
    def stopped_in_words(self) -> str | None:
        """Why no more was launched, in a sentence; None where that is not known."""
        return None if self.stopped is None else self.stopped.sentence

    def predicted_ms(self, request: TuneRequest, trial: TrialResult) -> tuple[float | None, ...]:
        """What the model said of a trial's shown step: ``request.shown_metrics`` in ms, None where it said nothing."""
        step, predicted = trial.shown_step(request), self.predictions.get(str(trial.deployment))
        if step is None or predicted is None:
            return (None,) * len(request.shown_metrics)
        return predicted.steps[step.step.index]


def decide(
    study: str,
    request: TuneRequest,
    trials: Sequence[TrialResult],
    ranked: Sequence[Candidate],
    dropped: Sequence[DroppedGroup],
    spent: Spent,
) -> Decision:
    """Choose among the finished trials; pure, so an interrupted study that is resumed decides alike.

    ``spent`` is the study's account at its end, of the trials that came to nothing too.
    """
    order = layout_summaries(request, trials)
    feasible = [summary for summary in order if summary.meets]
    why, remedy = (_why(request, feasible, len(order)), None) if feasible else _shortfall(request, order, trials)
    return Decision(
        study=study,
        winner=feasible[0].trial if feasible else None,
        runner_up=feasible[1].trial if len(feasible) > 1 else None,
        pareto=tuple(summary.trial for summary in front(request, feasible)),
        trials=tuple(trials),
        standings=order,
        predictions={str(c.deployment): c.prediction for c in ranked},
        dropped=tuple(dropped),
        spent=spent,
        why=why,
        remedy=remedy,
    )


def winner(request: TuneRequest, trials: Sequence[TrialResult]) -> TrialResult | None:
    """The trial that stands for the layout that would win with these, or None where none meets the SLO."""
    return next((summary.trial for summary in layout_summaries(request, trials) if summary.meets), None)


def _why(request: TuneRequest, feasible: Sequence[LayoutSummary], measured: int) -> str:
    winner = feasible[0]
    held = f"at {winner.held_req_per_s:g} requests/s ({_targets(request, winner)})"
    text = f"{winner.deployment} meets {_slo(request)} {held} on {_devices(winner)}"
    if len(feasible) == 1:
        text += "; no other measured layout does." if measured > 1 else "; no other layout was measured."
    else:
        text += f". Second: {feasible[1].deployment}, {_gap(request, winner, feasible[1])}."
    return " ".join([text, _margin(request, winner), *_evidence(winner), *cautions(request.engine)])


def _margin(request: TuneRequest, winner: LayoutSummary) -> str:
    """How far its worst run stays below each target."""
    left = [
        f"{1 - ratio(target, spread.high):.0%} of the {target.metric.value} target"
        for target in request.slo
        if (spread := winner.slo_ms.get(target.key)) is not None
    ]
    run = "Its worst run leaves" if winner.runs > 1 else "That leaves"
    return f"{run} {' and '.join(left)} to spare."


def _evidence(winner: LayoutSummary) -> list[str]:
    """What it does to answers, how sure it is, and what it costs."""
    lines = [f"It {caution}." for caution in winner.deployment.cautions]
    if winner.confirmed:
        lines.append("A second run under other arrivals held it too.")
    elif winner.confirmed is None:
        lines.append("It was measured once and not confirmed." if winner.runs == 1 else "Every run of it agrees.")
    if winner.attainment is not None and winner.attainment_interval is not None:
        low, _ = winner.attainment_interval
        lines.append(
            f"{winner.attainment:.1%} of its requests met every target (at least {low:.1%} with 95 % confidence)."
        )
    if winner.failures:
        lines.append(f"{winner.failures} of its {len(winner.trials)} trials failed.")
    if winner.usd_per_hour is not None:
        text = f"It costs {winner.usd_per_hour:.2f} US dollars per hour"
        if winner.usd_per_million_tokens is not None:
            text += f", {winner.usd_per_million_tokens:.2f} per million output tokens at this load"
        lines.append(f"{text}.")
    return lines


def _gap(request: TuneRequest, winner: LayoutSummary, second: LayoutSummary) -> str:
    """What the second has against it, by the first objective in which the two differ."""
    for objective in request.objectives:
        if objective is Objective.MIN_GPUS and winner.deployment.devices < second.deployment.devices:
            return f"which needs {_devices(second)}"
        if objective is Objective.MIN_COST and _usd(winner) < _usd(second):
            if winner.usd_per_hour is None or second.usd_per_hour is None:
                return f"which needs {_devices(second)}"
            share = second.usd_per_hour / winner.usd_per_hour - 1
            return f"which costs {second.usd_per_hour:.2f} US dollars per hour, {share:.0%} more"
        if objective is Objective.MAX_GOODPUT and (winner.held_req_per_s or 0) > (second.held_req_per_s or 0):
            return f"which meets it only up to {second.held_req_per_s:g} requests/s"
    shown = f"{_targets(request, second)} at {second.held_req_per_s:g} requests/s"
    if second.failures > winner.failures:
        return f"{second.failures} of whose {len(second.trials)} trials failed ({shown})"
    return f"which meets it on {_devices(second)} with {_latency_gap(winner, second)} ({shown})"


def _latency_gap(winner: LayoutSummary, second: LayoutSummary) -> str:
    one, two = winner.e2e_ms, second.e2e_ms
    if one is None or two is None or not one.mean:
        return "no lower latency"
    if two.mean <= one.mean:
        return "no lower latency in its worst run"
    share, noise = two.mean / one.mean - 1, max(one.share or 0.0, two.share or 0.0)
    text = f"an E2E latency of {two.mean:.0f} ms against {one.mean:.0f} ms, {share:.1%} more"
    if noise:
        text += f", where repeated runs differ by up to {noise:.1%}"
    return text


def _usd(summary: LayoutSummary) -> float:
    return float(summary.deployment.devices) if summary.usd_per_hour is None else summary.usd_per_hour


def _shortfall(
    request: TuneRequest, order: Sequence[LayoutSummary], trials: Sequence[TrialResult]
) -> tuple[str, str | None]:
    """In words: how near the best measured layout came, and what would make it enough."""
    if not order:
        reasons = {t.failure.value for t in trials if t.failure}
        if not reasons:
            return "nothing has been measured", None
        return f"no layout could be measured ({', '.join(sorted(reasons))})", None
    best, asked = order[0], request.workload.arrival.requests_per_s
    missing = missing_step(request, best)
    text = f"no measured layout meets {_slo(request)} at {asked:g} requests/s; the nearest is {best.deployment}"
    if missing is None:
        why, remedy = _nothing_shown(best)
        return f"{text}, whose windows show nothing: {why}", remedy
    ratio = slo_ratio(request, missing)
    if missing.failed:
        text += (
            f", where {missing.failed} of {missing.sent} requests failed at {missing.step.rate_req_per_s:g} requests/s"
        )
    elif ratio is not None:
        text += (
            f", {ratio:.2f} × the target at {missing.step.rate_req_per_s:g} requests/s ({_measured(request, missing)})"
        )
    return text, "it would take " + ", or ".join(_remedies(request, best, missing, ratio))


def _nothing_shown(summary: LayoutSummary) -> tuple[str, str]:
    """Why no window of a layout says anything of the SLO, and what it would take."""
    steps = [step for trial in summary.trials for step in trial.steps]
    if any(step.client_bound for step in steps):
        return "the client was the bottleneck", "it would take a faster client"
    invalid = next((step.invalid for step in steps if step.invalid is not None), None)
    return invalid or "no answer has a value of every target", "it would take another measurement"


def missing_step(request: TuneRequest, summary: LayoutSummary) -> StepResult | None:
    """The lowest-rate step in which the layout missed the SLO; None where none shows that."""
    missed = [step for trial in summary.trials for step in trial.steps if step.misses(request)]
    return min(missed, key=lambda step: step.step.rate_req_per_s, default=None)


def _remedies(request: TuneRequest, best: LayoutSummary, missing: StepResult, ratio: float | None) -> list[str]:
    found = []
    if best.held_req_per_s is not None:
        found.append(f"a rate of at most {best.held_req_per_s:g} requests/s on {_devices(best)}")
    if ratio is not None and ratio > 1:
        missed = over(request.slo, missing.slo_values_ms)
        wider = [f"{t.metric.value} p{t.percentile:g} of {value:.0f} ms" for t, value in missed]
        found.append("targets of at least " + " and ".join(wider) + f" for {missing.step.rate_req_per_s:g} requests/s")
    found.append(f"more devices than the {best.deployment.devices} of {best.deployment}")
    return found


def _slo(request: TuneRequest) -> str:
    targets = [str(target) for target in request.slo]
    if request.attainment is not None:
        targets.append(f"all of them in {request.attainment:.6g} of the requests")
    return " and ".join(targets)


def _targets(request: TuneRequest, summary: LayoutSummary) -> str:
    shown = (f"{t.metric.value} p{t.percentile:g} {_in_ms(summary.slo_ms.get(t.key))}" for t in request.slo)
    return ", ".join(shown)


def _in_ms(spread: Spread | None) -> str:
    if spread is None:
        return "– ms"
    if spread.runs > 1:
        return f"{spread.mean:.0f} ms, {spread.low:.0f} to {spread.high:.0f} over {spread.runs} runs"
    if spread.interval is not None:
        return f"{spread.mean:.0f} ms, 95 % interval {spread.interval[0]:.0f} to {spread.interval[1]:.0f}"
    return f"{spread.mean:.0f} ms"


def _measured(request: TuneRequest, step: StepResult) -> str:
    pairs = ((target, step.slo_values_ms.get(target.key)) for target in request.slo)
    shown = (
        f"{t.metric.value} p{t.percentile:g} {'–' if value is None else format(value, '.0f')} ms" for t, value in pairs
    )
    return ", ".join(shown)


def _devices(summary: LayoutSummary) -> str:
    count, gpu = summary.deployment.devices, summary.deployment.gpu
    return f"{count} device" + ("s" if count > 1 else "") + (f" {gpu}" if gpu else "")
