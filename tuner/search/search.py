"""Which candidate is launched next, which trial has lost, which candidate needs no launch: what was measured so far,
given to a strategy, and the rules that hold whatever the strategy."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.ask.deployment import Deployment
from tuner.ask.request import TuneRequest
from tuner.ask.slo import Verdict
from tuner.decide.comparison import slo_ratio
from tuner.plan.prune import Candidate
from tuner.search.beliefs import Beliefs
from tuner.search.history import History
from tuner.search.lessons import doomed
from tuner.search.proposal import Proposal
from tuner.search.strategy import Fits, Strategy
from tuner.trial.results import StepResult, TrialResult


class Search:
    """Ask for the next layout, report its load steps, tell how it ended. Not for several threads at once.

    It keeps nothing durable: what other drivers and earlier runs found is given by ``recall``. Without a strategy there
    is nothing to choose from, and nothing is proposed.
    """

    def __init__(self, request: TuneRequest, ranked: Sequence[Candidate], strategy: Strategy | None) -> None:
        self._request, self._ranked, self._strategy = request, list(ranked), strategy
        self._history = History(request)

    def recall(self, finished: Sequence[TrialResult]) -> None:
        """Take over the trials of earlier runs and of other drivers; ``finished``: all of the study."""
        self._history.recall(finished)

    def ask(self, running: Sequence[Deployment] = (), fits: Fits | None = None) -> Proposal | None:
        """The next layout beside the ``running`` ones, of those that ``fits`` has room for; None when no such layout
        could still win."""
        if self._strategy is None:
            return None
        return self._strategy.ask(self._history, frozenset(running), fits or (lambda layout: True))

    def report(self, proposal: Proposal, step: StepResult) -> str | None:
        """Give a measured load step; the answer says why the trial has already lost, or is None to go on."""
        if step.verdict(self._request) is Verdict.UNKNOWN:
            return None  # it says nothing of the layout
        ratio, rate = slo_ratio(self._request, step), step.step.rate_req_per_s
        if step.failed:
            return f"requests failed at {rate:g} requests/s"
        if ratio is None:
            return f"the SLO is missed at {rate:g} requests/s"
        if ratio > 1.0:  # what is missed at one rate is missed at every higher one: no later step can make it good
            return f"the SLO is missed at {rate:g} requests/s ({ratio:.2f} × the target)"
        if self._strategy is None or proposal.repeat:
            return None
        return self._strategy.lost(
            self._history, proposal.deployment, self._history.add_step(proposal.deployment, step)
        )

    def tell(self, result: TrialResult) -> None:
        """Give a finished trial."""
        self._history.add(result)

    def best(self) -> tuple[TrialResult, ...]:
        """The trials of the best measured layout so far; layouts that meet the SLO come first. None at first."""
        return self._history.best()

    def believed(self) -> Beliefs | None:
        """What is believed of the candidates that are left; None where there is no belief."""
        return self._strategy.believed(self._history) if self._strategy else None

    def unbeatable(self) -> list[tuple[Candidate, str]]:
        """Candidates that need no launch: a measured one beats whatever they could show, or they would fail."""
        beaten, trials = self._history.bar(), self._history.trials()
        untried = [c for c in self._ranked if c.deployment not in self._history]
        why = {c: beaten(c.deployment) or doomed(c.deployment, trials) for c in untried}
        for candidate, reason in self._strategy.lost_causes(self._history) if self._strategy else ():
            if why.get(candidate, "known") is None:
                why[candidate] = reason
        return [(candidate, reason) for candidate, reason in why.items() if reason is not None]
