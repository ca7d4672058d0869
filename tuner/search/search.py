"""Which candidate is launched next, which trial has lost, which candidate needs no launch: what was measured so far,
given to a strategy, and the rules that hold whatever the strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuner.ask.deployment import Deployment, TwoPools
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.ask.slo import Verdict
from tuner.decide.comparison import asked_steps, slo_ratio
from tuner.decide.stopping import Stopped
from tuner.plan.prune import Candidate
from tuner.search.beliefs import Beliefs
from tuner.search.history import History, launches
from tuner.search.in_place import InPlace
from tuner.search.lessons import doomed
from tuner.search.proposal import Proposal
from tuner.search.rates import rising
from tuner.search.strategy import Fits, Strategy
from tuner.trial.results import Purpose, StepResult, TrialResult


class Search:
    """Ask for the next layout, report its load steps, tell how it ended. Not for several threads at once.

    It keeps nothing durable: what other drivers and earlier runs found is given by ``recall``. Without a strategy there
    is nothing to choose from, and nothing is proposed.
    """

    def __init__(
        self,
        request: TuneRequest,
        ranked: Sequence[Candidate],
        strategy: Strategy | None,
        in_place: InPlace | None = None,
    ) -> None:
        """``in_place`` says what is measured on an engine that runs; None where a launcher can change nothing there."""
        self._request, self._ranked, self._strategy, self._in_place = request, list(ranked), strategy, in_place
        self._history = History(request)

    def recall(self, finished: Sequence[TrialResult]) -> None:
        """Take over the trials of earlier runs and of other drivers; ``finished``: all of the study."""
        self._history.recall(finished)

    def ask(self, running: Sequence[Deployment] = (), fits: Fits | None = None) -> Proposal | None:
        """The next layout beside the ``running`` ones, of those that ``fits`` has room for; None when no such layout
        could still win."""
        if self._strategy is None:
            return None
        fits = fits or (lambda layout: True)
        left = self._left_over(running)
        if left is not None and fits(left.deployment):
            return left
        return self._strategy.ask(self._history, frozenset(running), fits)

    def on_its_engine(self, result: TrialResult) -> list[Proposal]:
        """What to measure on the engine of a trial that has been measured, before that is torn down, the best first:
        other paths to it, else the same again where that is worth a window."""
        if isinstance(result.deployment, TwoPools) or self._history.bar()(result.deployment) is not None:
            return []
        others = [one for one in self._history.trials() if one.number != result.number]
        paths = self._in_place.after(result, others) if self._in_place is not None else []
        return paths or self._once_more(result, others)

    def _once_more(self, result: TrialResult, others: Sequence[TrialResult]) -> list[Proposal]:
        history = History(self._request)
        history.recall([*others, result])
        why = self._strategy.once_more(history, result.deployment) if self._strategy else None
        if why is None:
            return []
        shown = asked_steps(self._request, [result])
        rate = shown[0].step.rate_req_per_s if shown else None
        engine = result.number if result.engine_of is None else result.engine_of
        return [Proposal(result.deployment, why, Purpose.CONFIRM, len(history.of(result.deployment)), engine, rate)]

    def _left_over(self, running: Sequence[Deployment]) -> Proposal | None:
        """What an engine was stopped before; not with the last launch, by which the best may have to be confirmed."""
        trials = self._history.trials()
        if self._in_place is None or self._request.budget.launches - launches(trials) - len(running) <= 1:
            return None
        found = self._in_place.left_over(trials, [one for one in running if isinstance(one, ParallelLayout)])
        return None if found is None or self._history.bar()(found.deployment) is not None else found

    def next_rate(self, proposal: Proposal, seen: Sequence[StepResult]) -> float | None:
        """The rate of the load step to measure next, given those that were measured; None where none is worth it."""
        if proposal.rate_req_per_s is not None:
            return None if seen else proposal.rate_req_per_s
        if self._strategy is None:
            return rising(self._request, seen)
        return self._strategy.next_rate(self._history, proposal.deployment, seen)

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

    def stopped(self, budget: str | None) -> Stopped | None:
        """Why nothing more is launched: by the part of the ``budget`` that is spent, or since it is not worth its cost;
        None of a strategy that weighs no costs."""
        found = self._strategy.stopped(self._history) if self._strategy else None
        return None if found is None else replace(found, budget=budget)

    def unbeatable(self) -> list[tuple[Candidate, str]]:
        """Candidates that need no launch: a measured one beats whatever they could show, or they would fail."""
        beaten, trials = self._history.bar(), self._history.trials()
        untried = [c for c in self._ranked if c.deployment not in self._history]
        why = {c: beaten(c.deployment) or doomed(c.deployment, trials) for c in untried}
        for candidate, reason in self._strategy.lost_causes(self._history) if self._strategy else ():
            if why.get(candidate, "known") is None:
                why[candidate] = reason
        return [(candidate, reason) for candidate, reason in why.items() if reason is not None]
