"""Strategies of the search benchmark: ours, and what a team would do with Optuna alone and no model of the cluster.

The peers are helped where it costs them nothing here: they never launch an illegal or out-of-memory layout, do not have
the executor as an axis, and pay nothing for asking for a layout a second time.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import optuna

from tests.benchmarks.search_problems import Problem
from tuner.ask.layout import ParallelLayout
from tuner.ask.space import STRUCTURE_AXES
from tuner.decide.comparison import by_layout, meets_and_order, slo_ratio
from tuner.search.belief_strategy import BeliefStrategy
from tuner.search.choice import value_of
from tuner.search.proposal import Proposal
from tuner.search.search import Search
from tuner.search.strategy import Strategy
from tuner.trial.results import StepResult, TrialResult, TrialState

AXES = (*(axis for axis in STRUCTURE_AXES if axis != "executor"), "max_num_batched_tokens", "max_num_seqs")
Strategist = Callable[..., Strategy]
_PATIENCE = 8  # proposals in a row that need no launch, before a peer is given a random new layout


@dataclass(frozen=True, slots=True)
class Run:
    """What a strategy did on a problem: after each launch, its incumbent's true regret and the GPU-seconds so far."""

    regrets: tuple[float, ...]
    gpu_s: tuple[float, ...]
    seconds: float  # of the strategy's own thinking

    def launches_to(self, share: float) -> float:
        """Launches until the incumbent is within a share of the optimum; infinite where it never is."""
        return next((i + 1.0 for i, regret in enumerate(self.regrets) if regret <= share), math.inf)

    def gpu_s_to(self, share: float) -> float:
        """GPU-seconds until then; all that was spent and more where it never is (infinite)."""
        return next((s for s, regret in zip(self.gpu_s, self.regrets, strict=True) if regret <= share), math.inf)

    def final(self, budget: int) -> float:
        """Regret of the layout that is announced after at most ``budget`` launches."""
        known = self.regrets[:budget]
        return known[-1] if known else math.inf


class _Log:
    """Trials of one run and the regret of the incumbent after each."""

    def __init__(self, problem: Problem, noise: float, seed: int) -> None:
        self.problem, self._noise, self._seed = problem, noise, seed
        self.trials: list[TrialResult] = []
        self.regrets: list[float] = []
        self.gpu_s: list[float] = []

    def launch(
        self,
        layout: ParallelLayout,
        repeat: int = 0,
        next_rate: Callable[[Sequence[StepResult]], float | None] | None = None,
    ) -> TrialResult:
        result = self.problem.trial(len(self.trials), layout, repeat, self._noise, self._seed, next_rate)
        return self._keep(result)

    def go_on(self, proposal: Proposal) -> TrialResult:
        """Another window on the engine of the last launch, which is no launch."""
        steps = iter([proposal.rate_req_per_s])
        result = self.problem.trial(
            len(self.trials), proposal.layout, proposal.repeat, self._noise, self._seed, lambda seen: next(steps, None)
        )
        held_s = sum(step.step.duration_s for step in result.steps)
        del self.regrets[-1]
        before_s = self.gpu_s.pop()
        result = replace(
            result, seconds=held_s, device_s=held_s * proposal.layout.devices, engine_of=proposal.engine_of
        )
        self._keep(result)
        self.gpu_s[-1] = before_s + (result.device_s or 0.0)
        return result

    def _keep(self, result: TrialResult) -> TrialResult:
        self.trials.append(result)
        self.gpu_s.append((self.gpu_s[-1] if self.gpu_s else 0.0) + (result.device_s or 0.0))
        groups = [g for g in by_layout(self.trials).values() if any(t.steps for t in g)]

        def key(group: tuple[TrialResult, ...]) -> tuple[bool, tuple[float, ...]]:
            meets, order = meets_and_order(self.problem.request, *group)
            return not meets, order

        best = min(groups, key=key, default=())
        self.regrets.append(self.problem.regret(best[0].layout) if best else math.inf)
        return result

    def run(self, seconds: float) -> Run:
        return Run(tuple(self.regrets), tuple(self.gpu_s), seconds)


def parlay(problem: Problem, noise: float, seed: int, launches: int, strategist: Strategist = BeliefStrategy.of) -> Run:
    """Our search: the funnel's candidates, the belief, a confirmation within the same launches."""
    log = _Log(problem, noise, seed)
    started, request, ranked = time.perf_counter(), problem.request, problem.planned.ranked
    search = Search(request, ranked, strategist(request, ranked, problem.model, problem.cluster))
    while len(log.regrets) < launches and (proposal := search.ask()) is not None:
        result = log.launch(proposal.layout, proposal.repeat, partial(search.next_rate, proposal))
        following = search.on_its_engine(result)
        search.tell(result)
        while following:
            result = log.go_on(following[0])
            following = search.on_its_engine(result)
            search.tell(result)
    return log.run(time.perf_counter() - started)


def grid(problem: Problem, noise: float, seed: int, launches: int) -> Run:
    """Every legal layout, fewest devices first."""
    log, started = _Log(problem, noise, seed), time.perf_counter()
    for layout in sorted(problem.truth.legal, key=lambda one: (one.devices, one))[:launches]:
        log.launch(layout)
    return log.run(time.perf_counter() - started)


def chance(problem: Problem, noise: float, seed: int, launches: int) -> Run:
    """Legal layouts in random order."""
    log, started = _Log(problem, noise, seed), time.perf_counter()
    layouts = list(problem.truth.legal)
    for i in np.random.default_rng(seed).permutation(len(layouts))[:launches]:
        log.launch(layouts[i])
    return log.run(time.perf_counter() - started)


def sampled(make: Callable[[int], optuna.samplers.BaseSampler]) -> Callable[[Problem, float, int, int], Run]:
    """A strategy that asks an Optuna sampler, constrained by the SLO."""

    def strategy(problem: Problem, noise: float, seed: int, launches: int) -> Run:
        log, started = _Log(problem, noise, seed), time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            study = optuna.create_study(sampler=make(seed))
            for trial, layout in _asked(study, problem, launches):
                study.tell(trial, _scored(problem, log.launch(layout), trial))
        return log.run(time.perf_counter() - started)

    return strategy


def _asked(study: optuna.Study, problem: Problem, launches: int) -> Iterator[tuple[optuna.trial.Trial, ParallelLayout]]:
    """Proposals that need a launch; others are told without one."""
    index = {tuple(getattr(layout, axis) for axis in AXES): layout for layout in problem.truth.legal}
    values = {axis: sorted({key[i] for key in index}) for i, axis in enumerate(AXES)}
    axes = {a: optuna.distributions.CategoricalDistribution(v) for a, v in values.items() if len(v) > 1}
    fixed = {axis: found[0] for axis, found in values.items()}
    told: set[ParallelLayout] = set()
    random, idle = np.random.default_rng(0), 0
    while len(told) < min(launches, len(index)):
        trial = study.ask(axes)
        layout = index.get(tuple((fixed | trial.params)[axis] for axis in AXES))
        if layout is None or layout in told:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            idle += 1
            if idle < _PATIENCE:
                continue
            left = sorted(set(index.values()) - told)  # it asks for nothing new: help it on
            layout = left[random.integers(len(left))]
            study.enqueue_trial({axis: getattr(layout, axis) for axis in axes})
            trial = study.ask(axes)
        idle = 0
        told.add(layout)
        yield trial, layout


def _scored(problem: Problem, result: TrialResult, trial: optuna.trial.Trial) -> float:
    """The objective, and as a constraint the log of the worst latency ÷ target at the asked rate."""
    request = problem.request
    value = value_of(request, request.objective, [result])
    if math.isfinite(value):
        trial.set_constraint("slo", -1.0)
        return math.log(value)
    ratios = [slo_ratio(request, step) or 10.0 for step in result.steps]
    trial.set_constraint("slo", max(math.log(ratios[-1]), 0.01) if ratios else 5.0)
    return math.log(1e6) if result.state is TrialState.FAILED else math.log(1e3 * result.layout.devices)


PEERS: dict[str, Callable[[Problem, float, int, int], Run]] = {
    "random": chance,
    "TPE": sampled(lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True)),
    "GP": sampled(lambda seed: optuna.samplers.GPSampler(seed=seed)),
    "NSGA-II": sampled(lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=10)),
    "grid": grid,
}
