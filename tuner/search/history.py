"""What the trials of a study showed so far, as a search looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tuner.ask.deployment import Deployment
from tuner.ask.request import Objective, TuneRequest
from tuner.decide.comparison import meets_and_order
from tuner.search.choice import price_of, value_of
from tuner.trial.results import StepResult, TrialResult, TrialState


def launches(trials: Iterable[TrialResult]) -> int:
    """How many launches trials took: one that was measured on the engine of another took none."""
    return sum(trial.engine_of is None for trial in trials)


class History:
    """Finished trials by layout, and the load steps of those that run. Not for several threads at once."""

    def __init__(self, request: TuneRequest) -> None:
        self.request = request
        self._done: dict[Deployment, tuple[TrialResult, ...]] = {}
        self._partial: dict[Deployment, list[StepResult]] = {}

    def __contains__(self, layout: Deployment) -> bool:
        """True where the layout has a finished trial."""
        return layout in self._done

    def of(self, layout: Deployment) -> tuple[TrialResult, ...]:
        """The finished trials of a layout."""
        return self._done.get(layout, ())

    def groups(self) -> list[tuple[TrialResult, ...]]:
        """The finished trials, those of one layout together."""
        return list(self._done.values())

    def trials(self) -> list[TrialResult]:
        """All finished trials."""
        return [result for results in self._done.values() for result in results]

    def steps(self) -> dict[Deployment, list[StepResult]]:
        """The load steps of all finished trials, by layout."""
        return {layout: [s for r in results for s in r.steps] for layout, results in self._done.items()}

    def recall(self, finished: Sequence[TrialResult]) -> None:
        """These trials are finished, and no others."""
        self._done = {}
        for result in finished:
            self.add(result)

    def add(self, result: TrialResult) -> None:
        """One more finished trial; it takes the place of one of the same layout and repeat."""
        self._partial.pop(result.deployment, None)
        earlier = [r for r in self.of(result.deployment) if r.repeat != result.repeat]
        self._done[result.deployment] = (*earlier, result)

    def add_step(self, layout: Deployment, step: StepResult) -> list[StepResult]:
        """One more load step of a trial that runs; the answer is all of its."""
        steps = self._partial.setdefault(layout, [])
        steps.append(step)
        return steps

    def best(self, objective: Objective | None = None) -> tuple[TrialResult, ...]:
        """The trials of the best measured layout so far, by the request's order or by one objective; layouts that meet
        the SLO come first. None at first."""
        measured = [rs for rs in self.groups() if any(r.steps and r.state is not TrialState.FAILED for r in rs)]

        def key(results: tuple[TrialResult, ...]) -> tuple[Any, ...]:
            meets, order = meets_and_order(self.request, *results)
            first = () if objective is None else (value_of(self.request, objective, results),)
            return (*first, not meets, order)

        return min(measured, key=key, default=())

    def met(self) -> bool:
        """True once a layout meets the SLO."""
        leader = self.best()
        return bool(leader) and meets_and_order(self.request, *leader)[0]

    def bar(self) -> Callable[[Deployment], str | None]:
        """A rule that says why a layout cannot beat the best measured one, whatever it could show, or None: by what it
        costs, which is the same for layouts of as many devices of one kind."""
        leader, objective = self.best(), self.request.objective
        prices = objective in (Objective.MIN_GPUS, Objective.MIN_COST) and self.request.second_objective is None
        if not prices or not leader or not meets_and_order(self.request, *leader)[0]:
            return lambda layout: None
        best, known = leader[0].deployment, dict[tuple[str | None, int], float]()
        limit = price_of(self.request, objective, best)

        def rule(layout: Deployment) -> str | None:
            key = (layout.gpu, layout.devices)
            if key not in known:
                known[key] = price_of(self.request, objective, layout)
            if known[key] <= limit:
                return None
            unit = "US dollars per hour" if known[key] != layout.devices else "devices"
            return f"needs {known[key]:g} {unit}; {best} meets the SLO with {limit:g}"

        return rule
