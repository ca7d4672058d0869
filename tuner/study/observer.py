"""What a study tells while it runs, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuner.plan.prune import Plan
from tuner.search.beliefs import Beliefs
from tuner.search.proposal import Proposal
from tuner.study.device_leases import Blocked
from tuner.trial.ledger import Spent
from tuner.trial.results import LoadStep, StepResult, TrialResult
from tuner.trial.seams import RunningDeployment, Samples


class Observer:
    """Told from several threads, but by one at a time, except ``measuring``; a trial is known by its number alone.

    Every method does nothing here, so that a listener overrides what it shows.
    """

    def planned(self, plan: Plan) -> None:
        """The space was priced."""

    def remembered(self, studies: Sequence[str]) -> None:
        """The study begins with what these earlier ones taught; only told where there are any."""

    def trial_started(self, number: int, launches: int, proposal: Proposal) -> None:
        """Trial ``number`` of at most ``launches`` begins."""

    def waiting(self, proposal: Proposal, blocked: Blocked) -> None:
        """The next trial waits for devices that other studies hold; told again where that changes."""

    def launching(self, number: int, text: str) -> None:
        """What the launcher waits for."""

    def ready(self, number: int, deployment: RunningDeployment) -> None:
        """The deployment answers."""

    def step_started(self, number: int, step: LoadStep, steps: int) -> None:
        """Load step begins; ``steps`` in all."""

    def measuring(self, number: int, text: str) -> None:
        """What the meter sees, about twice a second, from any thread and beside all other events; must be quick."""

    def sampled(self, number: int, step: LoadStep, samples_s: Samples) -> None:
        """What was seen in a load step, just before its figures are told; not every meter knows it."""

    def step_measured(self, number: int, result: StepResult) -> None:
        """Load step over (warm-up steps too)."""

    def trial_finished(self, result: TrialResult) -> None:
        """Trial over, whatever its outcome."""

    def best_so_far(self, best: TrialResult | None, spent: Spent) -> None:
        """After each trial: the one that would win if the study ended now, if any, and what it took."""

    def believed(self, found: Beliefs) -> None:
        """What the search believes before the first trial, and after each."""

    def resumed(self, finished: Sequence[TrialResult], orphans: Sequence[str]) -> None:
        """An earlier run was taken up, or another driver's: its finished trials, and the deployments torn down."""

    def ended(self, why: str) -> None:
        """Nothing more will be launched."""


class Fanout(Observer):
    """Tells several observers, in their order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def _tell(self, call: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            call(observer)

    def planned(self, plan: Plan) -> None:
        self._tell(lambda o: o.planned(plan))

    def remembered(self, studies: Sequence[str]) -> None:
        self._tell(lambda o: o.remembered(studies))

    def trial_started(self, number: int, launches: int, proposal: Proposal) -> None:
        self._tell(lambda o: o.trial_started(number, launches, proposal))

    def waiting(self, proposal: Proposal, blocked: Blocked) -> None:
        self._tell(lambda o: o.waiting(proposal, blocked))

    def launching(self, number: int, text: str) -> None:
        self._tell(lambda o: o.launching(number, text))

    def ready(self, number: int, deployment: RunningDeployment) -> None:
        self._tell(lambda o: o.ready(number, deployment))

    def step_started(self, number: int, step: LoadStep, steps: int) -> None:
        self._tell(lambda o: o.step_started(number, step, steps))

    def measuring(self, number: int, text: str) -> None:
        self._tell(lambda o: o.measuring(number, text))

    def sampled(self, number: int, step: LoadStep, samples_s: Samples) -> None:
        self._tell(lambda o: o.sampled(number, step, samples_s))

    def step_measured(self, number: int, result: StepResult) -> None:
        self._tell(lambda o: o.step_measured(number, result))

    def trial_finished(self, result: TrialResult) -> None:
        self._tell(lambda o: o.trial_finished(result))

    def best_so_far(self, best: TrialResult | None, spent: Spent) -> None:
        self._tell(lambda o: o.best_so_far(best, spent))

    def believed(self, found: Beliefs) -> None:
        self._tell(lambda o: o.believed(found))

    def resumed(self, finished: Sequence[TrialResult], orphans: Sequence[str]) -> None:
        self._tell(lambda o: o.resumed(finished, orphans))

    def ended(self, why: str) -> None:
        self._tell(lambda o: o.ended(why))
