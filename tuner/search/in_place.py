"""Other paths to an engine that runs: which are worth a measurement before it is torn down, and in which order.

A layout costs a launch; what Ray Serve changes while the engine runs on, only the load steps. So a layout that missed
the SLO by a latency, or is the best so far and could be better, is measured behind others that the space names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from tuner.ask.layout import FRONT_AXES, ParallelLayout
from tuner.ask.request import Metric, Objective, SloTarget, TuneRequest
from tuner.ask.slo import over, ratio
from tuner.ask.space import Space
from tuner.decide.comparison import meets_and_order
from tuner.search.proposal import Proposal
from tuner.trial.results import StepResult, TrialResult, TrialState

MOST = 3  # other paths measured to one engine
FARTHEST = 5.0  # times the target: a path near its limits made the tail of TTFT so much longer than the engine's own
Liking = Callable[[TuneRequest, ParallelLayout, StepResult, ParallelLayout], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class InPlace:
    """``axes`` are those that the launcher changes in place, ``legal`` says whether a layout could be launched as well;
    ``liking`` orders the others: of a layout, a step that was measured of it, and another; the smallest comes first.
    """

    request: TuneRequest
    space: Space
    axes: frozenset[str]
    legal: Callable[[ParallelLayout], bool]
    liking: Liking

    def after(self, trial: TrialResult, finished: Sequence[TrialResult]) -> list[Proposal]:
        """What to measure next on the engine of a trial that has just been measured, the most liked first; empty where
        nothing of it can matter. ``finished``: the other trials of the study."""
        known = [trial, *finished]
        same = self._same_engine(trial.layout, known)
        others = [one for one in same if one.engine_of is not None]
        if not trial.steps or trial.state is TrialState.FAILED or any(one.state is TrialState.FAILED for one in others):
            return []
        if len({one.layout for one in same}) > MOST or any(self._done(one) for one in same):
            return []
        if not (any(self._near(one) for one in same) or (self._is_best(trial, known) and self._movable(trial))):
            return []
        return [self._proposal(layout, trial) for layout in self._others(trial, {one.layout for one in known})]

    def left_over(self, finished: Sequence[TrialResult], running: Iterable[ParallelLayout]) -> Proposal | None:
        """What was to be measured on an engine that is gone, since the study was stopped there: it is launched."""
        busy = {self._engine(layout) for layout in running}
        for trial in finished:
            last = self._same_engine(trial.layout, finished)[-1]
            if trial is not last or self._engine(trial.layout) in busy or not self._near(trial):
                continue
            rest = [one for one in finished if one is not trial]
            if found := self.after(trial, rest):
                why = f"was to be measured on the engine of trial {trial.number + 1}, which is gone"
                return Proposal(found[0].layout, why)
        return None

    def _proposal(self, layout: ParallelLayout, trial: TrialResult) -> Proposal:
        engine = trial.number if trial.engine_of is None else trial.engine_of
        why = f"on the engine of trial {engine + 1}, with {_differs(layout, trial.layout)}"
        return Proposal(layout, why, engine_of=engine)

    def _engine(self, layout: ParallelLayout) -> ParallelLayout:
        return layout.without(self.axes)

    def _same_engine(self, layout: ParallelLayout, trials: Iterable[TrialResult]) -> list[TrialResult]:
        engine = self._engine(layout)
        same = [one for one in trials if isinstance(one.deployment, ParallelLayout)]
        return sorted((one for one in same if self._engine(one.layout) == engine), key=lambda one: one.number)

    def _others(self, trial: TrialResult, known: set[ParallelLayout]) -> list[ParallelLayout]:
        axes = sorted(self.axes)
        values = [dict(zip(axes, chosen, strict=True)) for chosen in product(*(self.space.values(a) for a in axes))]
        layouts = dict.fromkeys(ParallelLayout(**trial.layout.as_dict() | one).canonical for one in values)
        left = [layout for layout in layouts if layout not in known and self.legal(layout)]
        step = _first_missed(self.request, trial) or trial.steps[-1]
        return sorted(left, key=lambda layout: self.liking(self.request, trial.layout, step, layout))

    def _done(self, trial: TrialResult) -> bool:
        """Nothing behind another path could be better by the objectives."""
        if Objective.MIN_LATENCY in self.request.objectives:
            return False
        if Objective.MAX_GOODPUT in self.request.objectives and any(s.misses(self.request) for s in trial.steps):
            return False
        return meets_and_order(self.request, trial)[0]

    def _near(self, trial: TrialResult) -> bool:
        """It missed the SLO by latencies alone, and not by more than a path may take."""
        missed = self._missed(trial)
        return (
            bool(missed) and self._movable(trial) and all(ratio(target, value) <= FARTHEST for target, value in missed)
        )

    def _movable(self, trial: TrialResult) -> bool:
        """It missed nothing, or more than TPOT, which is the engine's own."""
        missed = self._missed(trial)
        return not missed or any(target.metric is not Metric.TPOT for target, _ in missed)

    def _missed(self, trial: TrialResult) -> list[tuple[SloTarget, float]]:
        """The targets that were missed at the first rate that missed any, and their values in ms."""
        step = _first_missed(self.request, trial)
        return over(self.request.slo, step.slo_values_ms) if step and not step.failed else []

    def _is_best(self, trial: TrialResult, known: Sequence[TrialResult]) -> bool:
        meets, order = meets_and_order(self.request, trial)
        held = trial.best_step(self.request) is not None
        others = (one for one in known if one is not trial and one.steps and one.state is not TrialState.FAILED)
        keys = [meets_and_order(self.request, one) for one in others]
        return held and all((not meets, order) <= (not other, value) for other, value in keys)


def fewest_messages(
    request: TuneRequest, _before: ParallelLayout, step: StepResult, layout: ParallelLayout
) -> tuple[float, ...]:
    """Longer intervals first, since each message costs the path as much as the next; but behind them those that the
    targets leave no time for: a first token waits for up to an interval, and the gap between two is one."""
    interval_ms = layout.stream_interval_ms
    late = 0.0
    for target in request.slo:
        value_ms = step.slo_values_ms.get(target.key)
        if target.metric is Metric.ITL:
            late = max(late, float(interval_ms > target.ms))
        if target.metric is Metric.TTFT and value_ms is not None:
            late = max(late, float(interval_ms > max(target.ms / 2, value_ms - target.ms)))
    return (late, interval_ms if late else -interval_ms, layout.ingress_replicas)


def _first_missed(request: TuneRequest, trial: TrialResult) -> StepResult | None:
    return next((step for step in trial.steps if step.misses(request)), None)


def _differs(layout: ParallelLayout, other: ParallelLayout) -> str:
    changed = [name for name in FRONT_AXES if getattr(layout, name) != getattr(other, name)]
    return ", ".join(f"{name}={getattr(layout, name)}" for name in changed)
