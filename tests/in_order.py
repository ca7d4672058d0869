"""The strategy that a test can foretell: launches follow the ranking."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tuner.ask.axes import Role
from tuner.ask.layout import AXES, SPACE_AXES, ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.plan.prune import Candidate
from tuner.search.history import History
from tuner.search.proposal import Proposal
from tuner.search.rates import rising
from tuner.search.strategy import Fits
from tuner.trial.results import StepResult

VARIED = tuple(name for name in SPACE_AXES if AXES[name].role is not Role.STRUCTURE)


class InOrder:
    """The best candidate of each shape first, then the variants of the best measured one, then the rest as ranked."""

    def __init__(self, ranked: Sequence[Candidate]) -> None:
        self._ranked = ranked

    @classmethod
    def of(cls, request: TuneRequest, ranked: Sequence[Candidate], *_: Any) -> InOrder:
        """As ``BeliefStrategy.of``, without what it is believed from."""
        return cls(ranked)

    def ask(self, history: History, running: Collection[ParallelLayout], fits: Fits) -> Proposal | None:
        """The first of what is left."""
        beaten = history.bar()
        known = {*running, *(trial.layout for trial in history.trials())}
        left = [c.layout for c in self._ranked if c.layout not in known and beaten(c.layout) is None and fits(c.layout)]
        if not left:
            return None
        tried, best = {layout.shape for layout in known}, history.best()
        for layout in left:
            if layout.shape not in tried:
                return Proposal(layout, "best of its degrees of parallelism by the model")
        for axis in VARIED if best else ():
            for layout in left:
                if differ_in(layout, best[0].layout) == [axis]:
                    return Proposal(layout, f"the best so far with another {axis}")
        return Proposal(left[0], "the best ranked that is left")

    def next_rate(self, history: History, layout: ParallelLayout, seen: Sequence[StepResult]) -> float | None:
        """All of them, to the first that misses the SLO."""
        return rising(history.request, seen)

    def once_more(self, history: History, layout: ParallelLayout) -> None:
        """It confirms nothing."""

    def lost(self, history: History, layout: ParallelLayout, steps: Sequence[StepResult]) -> str | None:
        return None

    def believed(self, history: History) -> None:
        """It has no belief."""

    def stopped(self, history: History) -> None:
        """It weighs no costs."""

    def lost_causes(self, history: History) -> Sequence[tuple[Candidate, str]]:
        """None."""
        return []


def differ_in(one: ParallelLayout, other: ParallelLayout) -> list[str]:
    a, b = one.as_dict(), other.as_dict()
    return [axis for axis in a if a[axis] != b[axis]]
