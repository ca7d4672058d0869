"""The strategy of a study: launches go where ``choice`` sees the likeliest winner for its cost by the belief of
``belief``, until a better one is unlikely or not worth its launch (``worth``); the winner is measured again before it
is announced, where that is worth its launch too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.ask.cluster import Cluster, Fleet
from tuner.ask.deployment import Deployment, TwoPools, one_group
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.decide.comparison import asked_steps, held_req_per_s, meets_and_order
from tuner.decide.stopping import Stopped
from tuner.plan.prune import Candidate
from tuner.search.belief import Belief
from tuner.search.beliefs import Beliefs, beliefs
from tuner.search.choice import (
    CLEARLY,
    UNLIKELY,
    Outlook,
    choose,
    confirmation_chance,
    holding,
    outlook,
    overtaking,
    surest,
)
from tuner.search.history import History, launches
from tuner.search.lessons import doomed
from tuner.search.proposal import Proposal
from tuner.search.rates import next_rate
from tuner.search.strategy import Fits
from tuner.search.term_prices import engine_of
from tuner.search.worth import Trade
from tuner.trial.results import Purpose, StepResult, TrialResult, TrialState

_AGAIN = "measured again before it is announced"
_LIKELY_BEATEN = 0.5  # of the best layout: beyond it, a second run would likely be for nothing
_NEAREST = "misses the SLO by least"
_LAST = 2  # launches: one that meets the SLO and its confirmation
_SURER = 0.15  # by this probability a layout must be likelier to meet the SLO than the best that was measured
_SURE = 0.95  # of the confirmation of a layout that ends the trials of others
_CONVINCED = 3  # measured trials without one that meets the SLO before the belief may say that none will

Mask = NDArray[np.bool_]


class BeliefStrategy:
    """A ``Strategy`` that follows a belief."""

    def __init__(self, request: TuneRequest, belief: Belief) -> None:
        self._request, self._belief = request, belief
        self._at: dict[Deployment, int] = {candidate.layout: i for i, candidate in enumerate(belief.candidates)}
        alike = dict[tuple[str | None, int], list[int]]()
        for i, candidate in enumerate(belief.candidates):
            alike.setdefault((candidate.layout.gpu, candidate.layout.devices), []).append(i)
        self._priced_alike = [np.array(one) for one in alike.values()]

    @classmethod
    def of(
        cls,
        request: TuneRequest,
        candidates: Sequence[Candidate],
        model: ModelShape,
        cluster: Cluster | Fleet,
        carried: Mapping[str, tuple[float, float]] | None = None,
    ) -> BeliefStrategy:
        """The strategy that begins with what is believed before any trial, as ``Belief.of``."""
        return cls(request, Belief.of(request, candidates, model, cluster, carried))

    def ask(self, history: History, running: Collection[Deployment], fits: Fits) -> Proposal | None:
        """Explore while a win is worth its launch and one is left beside the confirmation; then confirm."""
        launches_left = self._request.budget.launches - launches(history.trials()) - len(running)
        if launches_left <= _LAST and (safe := self._secured(history, running, fits)) is not None:
            return safe
        again = self._unconfirmed(history)
        if again is None or launches_left > 1:
            left, seen = self._outlook(history, running)
            lost = again is None and not history.met() and not self._hopeless(history, seen)
            left &= self._worthwhile(history, seen)
            if not history.trials() or seen.chance[left].max(initial=0.0) >= UNLIKELY or lost:
                chosen = choose(self._belief, left & self._roomy(fits), seen)
                if chosen is not None:
                    chance = float(seen.chance[chosen])
                    why = f"the likeliest to be best, with a probability of {chance:.0%}" if chance else _NEAREST
                    return Proposal(self._belief.candidates[chosen].layout, why)
                if left.any():
                    return None  # what could win has no room yet
        if again is None or again in running or not fits(again):
            return None
        rate_req_per_s = self._rate_of(history)
        return Proposal(again, _AGAIN, Purpose.CONFIRM, len(history.of(again)), rate_req_per_s=rate_req_per_s)

    def next_rate(self, history: History, layout: Deployment, seen: Sequence[StepResult]) -> float | None:
        """The one at which it is the least certain whether the layout is better than the best that was measured."""
        self._belief.observe(history.steps())
        at = self._at.get(layout)
        held = None if at is None else self._belief.forecast().held[:, at]
        best = history.best() if history.met() else ()
        return next_rate(self._request, seen, (best and held_req_per_s(self._request, best)) or 0.0, held)

    def once_more(self, history: History, layout: Deployment) -> str | None:
        """It is the best, is as likely as not to stay it, and its second run is worth a window."""
        best = history.best()
        if layout != (best[0].deployment if best else None) or self._unconfirmed(history, on_its_engine=True) is None:
            return None
        left, seen = self._outlook(history, ())
        left &= self._worthwhile(history, seen)
        return None if left.any() and seen.anything > _LIKELY_BEATEN else _AGAIN

    def lost(self, history: History, layout: Deployment, steps: Sequence[StepResult]) -> str | None:
        """Once a layout is confirmed, or sure to be, and almost certainly better whatever else the other shows."""
        leader = history.best()
        if layout not in self._at or not history.met() or confirmation_chance(self._request, leader) < _SURE:
            return None
        self._belief.observe(history.steps() | {layout: list(steps)})
        best = {objective: history.best(objective) for objective in self._request.objectives}
        chance = overtaking(self._request, self._belief, one_group(layout), best)
        return _beaten_by(leader[0].layout, chance) if chance < UNLIKELY else None

    def lost_causes(self, history: History) -> Sequence[tuple[Candidate, str]]:
        """Those that beat the best measured layout in next to no draw."""
        best = history.best()
        if not best:
            return []
        _, seen = self._outlook(history, ())
        chances = zip(self._belief.candidates, seen.chance, strict=True)
        return [(c, _beaten_by(best[0].layout, chance)) for c, chance in chances if chance < UNLIKELY]

    def believed(self, history: History) -> Beliefs:
        """As it stands after all finished trials."""
        left, seen = self._outlook(history, ())
        return beliefs(self._request, self._belief, left, seen, history.best())

    def stopped(self, history: History) -> Stopped:
        """What another launch would cost, and could win."""
        left, seen = self._outlook(history, ())
        untried = np.array([c.layout not in history for c in self._belief.candidates], dtype=bool)
        return self._trade(history).stopped(self._belief, left, seen, untried)

    def _secured(self, history: History, running: Collection[Deployment], fits: Fits) -> Proposal | None:
        """With the last launches, where nothing that was measured is likely to be confirmed: the surest layout."""
        left, _ = self._outlook(history, running, whatever_it_costs=True)
        if not history.trials() or running:
            return None
        holds = holding(self._request, self._belief)
        met = [trials for trials in history.groups() if meets_and_order(self._request, *trials)[0]]
        own = max((confirmation_chance(self._request, trials) for trials in met), default=0.0)
        left &= self._roomy(fits)
        if not left.any() or holds[left].max() < own + _SURER:
            return None
        chosen = surest(self._belief, left, holds)
        why = f"meets the SLO with a probability of {holds[chosen]:.0%}; of what was measured none is as sure"
        return Proposal(self._belief.candidates[chosen].layout, why)

    def _outlook(
        self, history: History, running: Collection[Deployment], whatever_it_costs: bool = False
    ) -> tuple[Mask, Outlook]:
        """Which candidates may be launched, and what may come of them. One whose twin was measured, or that runs
        already, but for the executor and the number of sequences, would teach the same."""
        self._belief.observe(history.steps())
        trials, beaten = history.trials(), history.bar()
        left = ~self._like_measured(trials)
        left[[self._at[trial.deployment] for trial in trials if trial.deployment in self._at]] = False
        for alike in () if whatever_it_costs else self._priced_alike:
            if beaten(self._belief.candidates[alike[0]].layout) is not None:
                left[alike] = False
        busy = {engine_of(layout) for layout in running if isinstance(layout, ParallelLayout)}
        failed = any(trial.state is TrialState.FAILED for trial in trials)
        for i in np.flatnonzero(left) if busy or failed else ():
            layout = one_group(self._belief.candidates[i].layout)
            left[i] = not (busy and engine_of(layout) in busy) and doomed(layout, trials) is None
        best = {objective: history.best(objective) for objective in self._request.objectives}
        return left, outlook(self._request, self._belief, left, best)

    def _like_measured(self, trials: Sequence[TrialResult]) -> Mask:
        """Candidates that are served as a measured layout is, or whose twin is."""
        measured = [r.layout.served for r in trials if r.steps and not isinstance(r.deployment, TwoPools)]
        served = self._belief.served_as(measured)
        return served | np.isin(self._belief.twins, self._belief.twins[served])

    def _roomy(self, fits: Fits) -> Mask:
        return np.array([fits(c.layout) for c in self._belief.candidates], dtype=bool)

    def _hopeless(self, history: History, seen: Outlook) -> bool:
        """After some launches that all missed the SLO, no draw of the belief has a layout that meets it."""
        measured = [result for result in history.trials() if result.state is not TrialState.FAILED]
        return len(measured) >= _CONVINCED and seen.anything == 0.0

    def _unconfirmed(self, history: History, on_its_engine: bool = False) -> ParallelLayout | None:
        """The best layout, if it meets the SLO, was measured once and is worth a second run."""
        leader = history.best()
        if len(leader) != 1 or not history.met() or self._request.budget.launches <= _CONVINCED:
            return None
        return leader[0].layout if self._confirming(history, on_its_engine) else None

    def _worthwhile(self, history: History, seen: Outlook) -> Mask:
        """Which candidates may win more than their launch costs."""
        return self._trade(history).worthwhile(self._belief, seen)

    def _confirming(self, history: History, on_its_engine: bool) -> bool:
        """Whether the best layout is worth a second run."""
        return self._trade(history).confirming(on_its_engine)

    def _rate_of(self, history: History) -> float | None:
        """The rate at which the best layout is compared with others, of which alone a second run is in doubt."""
        shown = asked_steps(self._request, history.best())
        return shown[0].step.rate_req_per_s if shown else None

    def _trade(self, history: History) -> Trade:
        return Trade(self._request, history.best(), history.trials())


def _beaten_by(best: Deployment, chance: float) -> str:
    return f"beats {best} by over {CLEARLY:.0%} with a probability of {chance:.1%}"
