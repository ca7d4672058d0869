"""A trial while a driver runs it: where it stands, and what its end is told to be."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from tuner.errors import LaunchFailed
from tuner.search.proposal import Proposal
from tuner.study.records import OpenTrial
from tuner.trial.results import StepResult, TrialResult, TrialState
from tuner.trial.seams import RunningDeployment


class Phase(Enum):
    """Where a running trial stands."""

    STARTING = auto()
    READY = auto()  # waits until nothing starts on its nodes any more
    MEASURING = auto()


@dataclass(eq=False)
class Running:
    """A trial of this driver, from its claim to its end, which began at ``began_at`` by its clock.

    One on the engine of another has that one's ``deployment`` from the beginning, and ``is_up`` once it serves as its
    own layout.
    """

    trial: OpenTrial
    proposal: Proposal
    began_at: float
    phase: Phase = Phase.STARTING
    deployment: RunningDeployment | None = None
    steps: list[StepResult] = field(default_factory=list)
    thread: threading.Thread | None = None
    is_up: bool = False

    @property
    def goes_on(self) -> bool:
        """Is it another window of what its engine serves already?"""
        return self.proposal.engine_of is not None and self.trial.repeat > 0

    def teardown(self) -> None:
        """Free its devices; the business of the thread that runs it alone."""
        if self.deployment is not None:
            self.deployment.teardown()

    def finished(self, state: TrialState, failure: LaunchFailed | None = None, why: str | None = None) -> TrialResult:
        """How it ended, but for its times."""
        trial = self.trial
        result = TrialResult(trial.number, trial.deployment, state, tuple(self.steps), detail=why)
        launched = self.deployment.launched if self.deployment and self.is_up else None
        result = replace(result, purpose=trial.purpose, repeat=trial.repeat, launched=launched)
        result = replace(result, engine_of=self.proposal.engine_of)
        if failure is None:
            return result
        tail = failure.log_tail or (self.deployment.log_tail() if self.deployment else ())
        return replace(result, failure=failure.reason, detail=failure.detail, log_tail=tail)
