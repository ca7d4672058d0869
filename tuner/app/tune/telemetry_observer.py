"""A study's events, as they become metrics."""

from __future__ import annotations

from tuner.app.tune.telemetry import Telemetry
from tuner.ask.deployment import Deployment
from tuner.ask.request import TuneRequest
from tuner.plan.prune import Plan
from tuner.search.proposal import Proposal
from tuner.study.observer import Observer
from tuner.trial.ledger import Spent
from tuner.trial.results import LoadStep, StepResult, TrialResult
from tuner.trial.seams import Samples


class TelemetryObserver(Observer):
    """Hands a study's events to Prometheus."""

    def __init__(self, study: str, request: TuneRequest, telemetry: Telemetry) -> None:
        self._study, self._request, self._telemetry = study, request, telemetry
        self._layouts: dict[int, Deployment] = {}
        self._predicted: dict[Deployment, tuple[tuple[float | None, ...], ...]] = {}
        self._samples: dict[int, Samples] = {}  # of the load step that each trial has just ended
        telemetry.study_started(study, request)

    def planned(self, plan: Plan) -> None:
        dropped: dict[str, int] = {}
        for group in plan.dropped:
            dropped[group.reason.value] = dropped.get(group.reason.value, 0) + group.count
        self._telemetry.candidates(self._study, dropped, len(plan.ranked))
        self._predicted = {c.deployment: c.prediction.steps for c in plan.ranked}

    def trial_started(self, number: int, launches: int, proposal: Proposal) -> None:
        self._layouts[number] = proposal.deployment
        self._telemetry.trial_started(self._study, proposal.deployment, number)

    def step_started(self, number: int, step: LoadStep, steps: int) -> None:
        self._telemetry.step_started(self._study, self._layouts[number], step)

    def sampled(self, number: int, step: LoadStep, samples_s: Samples) -> None:
        self._samples[number] = samples_s

    def step_measured(self, number: int, result: StepResult) -> None:
        layout = self._layouts[number]
        self._telemetry.step_measured(self._study, layout, result, self._samples.pop(number, {}))
        if result.step.warmup or layout not in self._predicted:
            return
        pairs = zip(self._predicted[layout][result.step.index], result.shown_ms(self._request), strict=True)
        for (metric, _), (predicted, measured) in zip(self._request.shown_metrics, pairs, strict=True):
            if predicted is not None and measured is not None:
                self._telemetry.ratio(self._study, layout, metric, predicted, measured)

    def trial_finished(self, result: TrialResult) -> None:
        self._telemetry.trial_finished(self._study, result)

    def best_so_far(self, best: TrialResult | None, spent: Spent) -> None:
        self._telemetry.spent(self._study, spent)
