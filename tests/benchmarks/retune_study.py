"""Simulated trials of a study, and what they teach: a watcher's knowledge when it begins, and after a round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from tests.benchmarks.retune_service import START_S
from tests.benchmarks.retune_world import State, World
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.plan.prune import Candidate
from tuner.retune.asked_now import AskedNow
from tuner.retune.known import Known
from tuner.retune.outlook import outlook
from tuner.search.belief import Belief
from tuner.search.term_prices import TermPrices
from tuner.trial.results import LoadStep, StepResult, TrialResult, TrialState

LAUNCHES = 6  # of a round, at most
TRIAL_S = START_S + 150.0
_NOISE = 0.02  # of a load step, as a standard deviation of the logarithm
_WINDOW_S = 60.0


def trial(of: World, state: State, request: TuneRequest, layout: ParallelLayout, number: int) -> TrialResult:
    """One launch in a state: its load steps as they are in truth, but for noise, up to the first that misses."""
    truth, random = of.truth(state), np.random.default_rng([3, of.seed, number, *str(layout).encode()])
    steps = []
    for index, rate in enumerate(request.rates_req_per_s):
        shown = truth.percentiles(layout, rate)
        noise = math.exp(_NOISE * random.standard_normal())
        values = {target.key: ms * noise for target, ms in zip(request.slo, shown, strict=True)}
        sent = max(int(rate * _WINDOW_S), 1)
        steps.append(
            StepResult(
                LoadStep(index, rate, _WINDOW_S, 0), sent, sent, 0, _WINDOW_S, {}, values, None, None, None, None, {}
            )
        )
        if not steps[-1].meets(request):
            break
    seconds = TRIAL_S
    return TrialResult(
        number, layout, TrialState.MEASURED, tuple(steps), ready_after_s=START_S, seconds=seconds,
        device_s=seconds * layout.devices,
    )  # fmt: skip


def taught(of: World, request: TuneRequest, known: Known, trials: Sequence[TrialResult]) -> Known:
    """What is known after a round, as a study learns it: prices from its own trials, beginning with those of before."""
    tried = {one.deployment for one in trials}
    candidates: list[Candidate] = [c for c in of.site.candidates if c.layout in tried]
    prices = TermPrices.of(request, candidates, of.site.model, of.site.cluster_of(request))
    begin = _on_top(known, prices.terms)
    belief = Belief(request, candidates, prices, {}, begin)
    belief.observe({one.deployment: list(one.steps) for one in trials})
    learnt = {**known.factors, **belief.factors}
    return Known(request, tuple(trials), learnt, {}, known.lived)


def _on_top(known: Known, terms: Sequence[str]) -> Mapping[str, tuple[float, float]]:
    scale = dict.fromkeys(terms, known.slower.get(Metric.TPOT, 1.0)) | {"ttft": known.slower.get(Metric.TTFT, 1.0)}
    return {name: (factor * scale.get(name, 1.0), sd) for name, (factor, sd) in known.factors.items()}


@cache
def first_study(of: World) -> Known:
    """What a study knows that ended in the right layout, with three others that it tried."""
    best, request = of.best(State()), of.site.request
    others = [c.layout for c in of.site.candidates if c.layout.devices <= 2 * best.devices and c.layout.dp != best.dp]
    tried = [best, *others[:3]]
    trials = [trial(of, State(), request, layout, number) for number, layout in enumerate(tried)]
    return taught(of, request, Known(request), trials)


def round_of(of: World, state: State, now: AskedNow, present: ParallelLayout, known: Known, spare: int) -> Known:
    """Trials on the ``spare`` GPUs of what the model expects to be best, given those before, until the best is one that
    was measured; where that does not meet the SLO, of what is untried."""
    request = now.request
    assert request is not None
    fresh = replace(now, changed={})  # its own trials are of now
    trials: list[TrialResult] = []
    known = replace(known, trials=())
    after = known
    while len(trials) < LAUNCHES:
        told = outlook(fresh, present, after, simulate=False)
        best = told.untried if told.best is None or (told.best.measured and not told.best.meets) else told.best
        if best is None or best.measured or best.gpus > spare or not isinstance(best.deployment, ParallelLayout):
            break
        trials.append(trial(of, state, request, best.deployment, len(trials)))
        after = taught(of, request, known, trials)
    return after
