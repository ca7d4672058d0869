"""What a launch is worth beside what it costs, both in GPU-hours, and in US dollars where every device has a price.

A better layout saves a share of what the best one costs to run: that share of its devices over the horizon that the
request states (``budget.horizon_hours``). Fewer devices or US dollars are that share itself; a higher rate serves the
same requests with so much less; of a lower latency, which nobody pays for where the SLO is met, three tenths of the
share are taken by convention. A launch is worth that, times the probability that the layout is clearly better. A
confirmation is worth the probability that the winner does not hold, times all that it costs to run over the horizon; on
the engine that was just measured it costs a window of load, and no launch. A launch costs its devices, for as long as
the launches of the study took; before the first, for a start and the windows of the load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from tuner.ask.cluster import usd_per_gpu_hour
from tuner.ask.deployment import Deployment
from tuner.ask.request import Objective, TuneRequest
from tuner.cost.step_batch import Floats
from tuner.decide.comparison import meets_and_order
from tuner.decide.stopping import NextLaunch, Stopped, Sum, Unconfirmed
from tuner.search.belief import Belief
from tuner.search.choice import CLEARLY, UNLIKELY, Outlook, confirmation_chance, tied, value_of
from tuner.search.rates import usual_load_s
from tuner.trial.results import TrialResult

LATENCY_COUNTS = 0.3  # of the share by which a latency is lower, as a share of what a layout costs to run
START_S = 120.0  # of an engine, as long as none of the study has been seen to start


def launch_s(request: TuneRequest, trials: Sequence[TrialResult]) -> float:
    """Seconds that a launch holds its devices: the mean of those that were measured, predicted before the first. What
    followed on an engine that ran is no part of it."""
    known = [trial.seconds for trial in trials if trial.seconds is not None and trial.steps and trial.engine_of is None]
    if known:
        return fmean(known)
    return START_S + usual_load_s(request)


class Trade:
    """What may be won by another launch, and what it costs, at one moment of a study: ``best`` has the trials of the
    best measured layout, ``trials`` all of them."""

    def __init__(self, request: TuneRequest, best: Sequence[TrialResult], trials: Sequence[TrialResult]) -> None:
        self._request, self._best = request, best
        self._hours = launch_s(request, trials) / 3600
        self._price = priced(request)

    def worthwhile(self, belief: Belief, seen: Outlook) -> NDArray[np.bool_]:
        """By candidate, whether its launch may win more than it costs; every one while nothing meets the SLO."""
        if not self._met:
            return np.ones(len(belief.candidates), dtype=bool)
        return self._net(belief, seen) > 0

    def confirming(self, on_its_engine: bool = False) -> bool:
        """Whether the best layout is worth a second run before it is announced: a launch, or a window of load where its
        engine is still there."""
        again = self._second_run()
        window = self._held(self._best[0].deployment, self._request.load.seconds / 3600)
        return _weight(again.worth) > _weight(window if on_its_engine else again.costs)

    def stopped(self, belief: Belief, left: NDArray[np.bool_], seen: Outlook, untried: NDArray[np.bool_]) -> Stopped:
        """How it stands where nothing is launched any more. ``left`` may be launched, ``untried`` were not."""
        ties, launch, once = 0, None, None
        if self._met:
            ties = int((untried & tied(self._request, belief, self._best)).sum())
            once = self._second_run() if len(self._best) == 1 else None
            if left.any():
                launch = self._next(belief, seen, int(np.argmax(np.where(left, self._net(belief, seen), -np.inf))))
        return Stopped(self._request.budget.horizon_hours, CLEARLY, UNLIKELY, None, launch, once, ties)

    @property
    def _met(self) -> bool:
        return bool(self._best) and meets_and_order(self._request, *self._best)[0]

    @property
    def _counts(self) -> float:
        """How much a share of the objective counts beside a share of what the best layout costs to run."""
        return LATENCY_COUNTS if set(self._request.objectives) == {Objective.MIN_LATENCY} else 1.0

    def _net(self, belief: Belief, seen: Outlook) -> Floats:
        """By candidate, what its launch may win beyond what it costs."""
        running = _weight(self._running()) * self._counts
        costs = np.array([_weight(self._launching(c.layout)) for c in belief.candidates])
        return np.asarray(seen.gain * running - costs)

    def _next(self, belief: Belief, seen: Outlook, at: int) -> NextLaunch:
        request, objective = self._request, self._request.objective
        chance, gain = float(seen.better[at]), float(seen.gain[at])
        best = value_of(request, objective, self._best)
        share = gain / chance if chance else 0.0
        won = (1 / (1 - share) - 1) / best if objective is Objective.MAX_GOODPUT else share * best
        layout = belief.candidates[at].layout
        return NextLaunch(
            str(layout), self._launching(layout), chance, objective, won, _times(self._running(), gain * self._counts)
        )

    def _second_run(self) -> Unconfirmed:
        fails = 1 - confirmation_chance(self._request, self._best)
        return Unconfirmed(self._launching(self._best[0].deployment), fails, _times(self._running(), fails))

    def _launching(self, layout: Deployment) -> Sum:
        return self._held(layout, self._hours)

    def _held(self, layout: Deployment, hours: float) -> Sum:
        """What it costs to hold a layout's devices for so long."""
        return _sum(layout.devices * hours, self._price(layout))

    def _running(self) -> Sum:
        """What the best layout costs to run over the horizon."""
        return self._held(self._best[0].deployment, self._request.budget.horizon_hours)


def priced(request: TuneRequest) -> Callable[[Deployment], float | None]:
    """US dollars per GPU-hour of a deployment, looked up once for each kind of GPU."""
    known: dict[str | None, float | None] = {}

    def price(layout: Deployment) -> float | None:
        if layout.gpu not in known:
            known[layout.gpu] = usd_per_gpu_hour(request, layout)
        return known[layout.gpu]

    return price


def _sum(gpu_hours: float, usd_per_gpu_hour: float | None) -> Sum:
    return Sum(gpu_hours, None if usd_per_gpu_hour is None else gpu_hours * usd_per_gpu_hour)


def _times(one: Sum, share: float) -> Sum:
    return Sum(one.gpu_hours * share, None if one.usd is None else one.usd * share)


def _weight(one: Sum) -> float:
    return one.gpu_hours if one.usd is None else one.usd
