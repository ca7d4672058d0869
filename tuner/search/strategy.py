"""The seam of the search: what chooses the next launch, and says which trial and which candidate have lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from tuner.ask.deployment import Deployment
from tuner.decide.stopping import Stopped
from tuner.plan.prune import Candidate
from tuner.search.beliefs import Beliefs
from tuner.search.history import History
from tuner.search.proposal import Proposal
from tuner.trial.results import StepResult

Fits = Callable[[Deployment], bool]  # is there room for it beside what runs?


class Strategy(Protocol):
    """Asked anew with all that is known each time, and keeps nothing that it could not find again: a study that is
    resumed goes on as if it had never stopped."""

    def ask(self, history: History, running: Collection[Deployment], fits: Fits) -> Proposal | None:
        """The next layout beside the ``running`` ones, of those that ``fits`` has room for; None when no such layout
        could still win."""

    def next_rate(self, history: History, layout: Deployment, seen: Sequence[StepResult]) -> float | None:
        """The rate of the load step to measure after those ``seen`` of a trial; None where none is worth it."""

    def once_more(self, history: History, layout: Deployment) -> str | None:
        """Why a layout that was just measured is worth another window on its engine before that is torn down, or
        None."""

    def lost(self, history: History, layout: Deployment, steps: Sequence[StepResult]) -> str | None:
        """Why a layout that is measured for the first time need not go on after these load steps, or None."""

    def lost_causes(self, history: History) -> Sequence[tuple[Candidate, str]]:
        """Candidates that need no launch any more, each with the reason; beside those that no strategy would try."""

    def believed(self, history: History) -> Beliefs | None:
        """What it believes now, for people to see; None of a strategy that has no belief."""

    def stopped(self, history: History) -> Stopped | None:
        """What another launch would cost and could win, where nothing more is launched; None where it cannot tell."""
