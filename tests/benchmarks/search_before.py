"""The stop rule that the search had before it weighed what a launch is worth: a peer of ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.ask.deployment import Deployment
from tuner.decide.stopping import Stopped
from tuner.plan.prune import Candidate
from tuner.search import choice
from tuner.search.belief import Belief
from tuner.search.belief_strategy import BeliefStrategy
from tuner.search.choice import CLEARLY, Outlook, value_of
from tuner.search.history import History
from tuner.search.lessons import doomed
from tuner.search.rates import rising
from tuner.trial.results import StepResult

Mask = NDArray[np.bool_]


class StopByChance(BeliefStrategy):
    """Goes on until a clear win of anything left is less likely than 1 %, whatever it would bring, and always measures
    the winner again. What it believes of layouts that run the same kernels, or serve alike, has nothing in common."""

    @classmethod
    def of(cls, request: Any, candidates: Sequence[Candidate], model: Any, cluster: Any, _: Any = None) -> StopByChance:
        """As ``BeliefStrategy.of``."""
        return cls(request, Belief.of(request, candidates, model, cluster, kin=lambda engine: engine))

    def next_rate(self, history: History, layout: Deployment, seen: Sequence[StepResult]) -> float | None:
        """All of them, to the first that misses the SLO."""
        return rising(self._request, seen)

    def once_more(self, history: History, layout: Deployment) -> None:
        """It launches the winner again."""

    def stopped(self, history: History) -> Stopped:
        """It weighs nothing."""
        raise NotImplementedError

    def _worthwhile(self, history: History, seen: Outlook) -> Mask:
        return np.ones(len(self._belief.candidates), dtype=bool)

    def _confirming(self, history: History, on_its_engine: bool) -> bool:
        return True

    def _rate_of(self, history: History) -> None:
        """It measures all load steps again."""

    def _outlook(
        self, history: History, running: Collection[Deployment], whatever_it_costs: bool = False
    ) -> tuple[Mask, Outlook]:
        """Each candidate beside the measured figure of the best layout, not beside what is believed of that one."""
        self._belief.observe(history.steps())
        trials, beaten = history.trials(), history.bar()
        left = np.array(
            [
                c.layout not in history
                and (whatever_it_costs or beaten(c.layout) is None)
                and doomed(c.layout, trials) is None
                for c in self._belief.candidates
            ],
            dtype=bool,
        )
        best = {objective: history.best(objective) for objective in self._request.objectives}
        return left, self._seen(left, best)

    def _seen(self, left: Mask, best: Mapping[Any, Any]) -> Outlook:
        request, belief = self._request, self._belief
        forecast = belief.forecast()
        wins, meets = np.zeros(forecast.held.shape, dtype=bool), np.zeros(forecast.held.shape, dtype=bool)
        for objective in request.objectives:
            drawn = choice._values(request, objective, belief.candidates, forecast)
            values = np.where(left, drawn, np.inf)
            bar = value_of(request, objective, best[objective]) if best.get(objective) else np.inf
            leader = values.min(axis=1, keepdims=True, initial=np.inf)
            meets |= np.isfinite(values)
            wins |= np.isfinite(values) & (values <= leader * (1 + CLEARLY)) & (values < bar * (1 - CLEARLY))
        miss = np.clip(forecast.miss, -5.0, 5.0).mean(axis=0)
        nothing = np.zeros(left.size)
        return Outlook(wins.mean(axis=0), meets.mean(axis=0), miss, float(wins.any(axis=1).mean()), nothing, nothing)
