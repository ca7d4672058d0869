"""Which candidate is launched next. The only module with Optuna: it keeps the trials, samples and prunes.

With a belief (``belief``), launches go where ``choice`` sees the likeliest winner for its cost, until a
better one is unlikely. Without one the ranking is the prior: the best candidate of each shape first, then the variants
of the best measured one, and after those Optuna's TPE sampler, constrained by the SLO, chooses among what is left.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState as OptunaState

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Objective, TuneRequest
from tuner.ask.space import STRUCTURE_AXES
from tuner.decide.comparison import merit, slo_ratio
from tuner.plan.prune import Candidate
from tuner.search.belief import Belief
from tuner.search.choice import (
    CLEARLY,
    UNLIKELY,
    Outlook,
    choose,
    confirmation_chance,
    holding,
    outlook,
    overtaking,
    price_of,
    surest,
    value_of,
)
from tuner.search.lessons import doomed
from tuner.search.term_prices import engine_of
from tuner.trial.trial import Purpose, StepResult, TrialResult, TrialState

_LAYOUT, _REPEAT = "layout", "repeat"
_NEAREST = "misses the SLO by least"
_LAST = 2  # launches: one that meets the SLO and its confirmation
_SURER = 0.15  # by this probability a layout must be likelier to meet the SLO than the best that was measured
_SURE = 0.95  # of the confirmation of a layout that ends the trials of others
_CONVINCED = 3  # measured trials without one that meets the SLO before the belief may say that none will


@dataclass(frozen=True, slots=True)
class Proposal:
    """The next layout to launch, why it is its turn, and Optuna's number for it.

    ``repeat`` counts the earlier trials of the layout.
    """

    layout: ParallelLayout
    why: str
    handle: int
    purpose: Purpose = Purpose.EXPLORE
    repeat: int = 0


class Search:
    """Ask for the next layout, report its load steps, tell how it ended. One Optuna study per study, in its store.

    With a ``belief`` the launches follow it, and the winner is measured again before it is announced; without one they
    follow the ranking, then Optuna's sampler.
    """

    def __init__(
        self,
        store_url: str,
        study: str,
        request: TuneRequest,
        ranked: Sequence[Candidate],
        belief: Belief | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._request, self._ranked, self._belief = request, list(ranked), belief
        self._by_layout = {c.layout: c for c in ranked}
        self._distributions = _distributions(ranked)
        self._done: dict[ParallelLayout, tuple[TrialResult, ...]] = {}
        self._partial: dict[ParallelLayout, list[StepResult]] = {}  # load steps of trials that run
        self._study = optuna.create_study(
            storage=optuna.storages.RDBStorage(store_url),
            study_name=study,
            direction="minimize",
            load_if_exists=True,
            sampler=_sampler(0),
            # A missed target at one rate is missed at every higher one: the later steps cannot make it good.
            pruner=optuna.pruners.ThresholdPruner(upper=1.0),
        )

    def recall(self, finished: Sequence[TrialResult], running: Sequence[ParallelLayout] = ()) -> None:
        """Take over the trials of earlier runs and of other drivers.

        What is open in Optuna and not among the ``running`` ends as its trial did, or fails where that has no end.
        """
        self._done = {}
        for result in finished:
            self._remember(result)
        by_name = {(str(result.layout), result.repeat): result for result in finished}
        alive = {str(layout) for layout in running}
        for trial in self._study.get_trials(deepcopy=False, states=(OptunaState.RUNNING, OptunaState.WAITING)):
            if (name := trial.user_attrs.get(_LAYOUT, "")) in alive:
                continue
            ended = by_name.get((name, trial.user_attrs.get(_REPEAT, 0)))
            if ended is None or trial.state is OptunaState.WAITING:
                self._study._storage.set_trial_state_values(trial._trial_id, OptunaState.FAIL)
            else:
                self.tell(trial.number, ended)

    def _remember(self, result: TrialResult) -> None:
        self._partial.pop(result.layout, None)
        earlier = [r for r in self._done.get(result.layout, ()) if r.repeat != result.repeat]
        self._done[result.layout] = (*earlier, result)

    def ask(
        self, running: Sequence[ParallelLayout] = (), fits: Callable[[ParallelLayout], bool] | None = None
    ) -> Proposal | None:
        """The next layout beside the ``running`` ones, of those that ``fits`` has room for; None when no such layout
        could still win."""
        if self._belief is not None:
            return self._believed(self._belief, set(running), fits)
        known = {*self._done, *running}
        beaten = self._bar()
        left = [c for c in self._ranked if c.layout not in known and beaten(c.layout) is None]
        if fits is not None:
            left = [c for c in left if fits(c.layout)]
        if not left:
            return None
        chosen, why = self._first_of_shape(left, running) or self._variant_of_best(left) or (None, "")
        if chosen is None:
            chosen, why = self._sampled(left)
        return Proposal(chosen.layout, why, self._opened(chosen.layout, why))

    def _believed(
        self, belief: Belief, running: set[ParallelLayout], fits: Callable[[ParallelLayout], bool] | None
    ) -> Proposal | None:
        """Explore while a win is likely enough and a launch is left beside the confirmation; then confirm."""
        launched = sum(map(len, self._done.values())) + len(running)
        if self._request.budget.launches - launched <= _LAST:
            safe = self._secured(belief, running, fits)
            if safe is not None:
                return safe
        again = self._unconfirmed()
        if again is None or self._request.budget.launches - launched > 1:
            left, seen = self._outlook(belief, running)
            lost = again is None and not self._met() and not self._hopeless(seen)
            if not self._done or seen.anything >= UNLIKELY or lost:
                roomy = left & np.array([fits is None or fits(c.layout) for c in belief.candidates], dtype=bool)
                chosen = choose(belief, roomy, seen)
                if chosen is not None:
                    layout, chance = belief.candidates[chosen].layout, float(seen.chance[chosen])
                    why = f"best for its cost with a probability of {chance:.0%}" if chance else _NEAREST
                    return Proposal(layout, why, self._opened(layout, why))
                if left.any():
                    return None  # what could win has no room yet
        if again is None or again in running or (fits is not None and not fits(again)):
            return None
        repeat, why = len(self._done[again]), "measured again before it is announced"
        handle = self._opened(again, why, repeat)
        return Proposal(again, why, handle, Purpose.CONFIRM, repeat)

    def _secured(
        self, belief: Belief, running: set[ParallelLayout], fits: Callable[[ParallelLayout], bool] | None
    ) -> Proposal | None:
        """With the last launches, where nothing that was measured is likely to be confirmed: the surest layout."""
        left, _ = self._outlook(belief, running, whatever_it_costs=True)
        if not self._done or running:
            return None
        holds = holding(self._request, belief)
        met = [trials for trials in self._done.values() if merit(self._request, *trials)[0]]
        own = max((confirmation_chance(self._request, trials) for trials in met), default=0.0)
        left &= np.array([fits is None or fits(c.layout) for c in belief.candidates], dtype=bool)
        if not left.any() or holds[left].max() < own + _SURER:
            return None
        chosen = surest(belief, left, holds)
        why = f"meets the SLO with a probability of {holds[chosen]:.0%}; of what was measured none is as sure"
        layout = belief.candidates[chosen].layout
        return Proposal(layout, why, self._opened(layout, why))

    def _outlook(
        self, belief: Belief, running: set[ParallelLayout], whatever_it_costs: bool = False
    ) -> tuple[NDArray[np.bool_], Outlook]:
        """Which candidates may be launched, and what may come of them. One that runs already, but for the executor and
        the number of sequences, would teach the same."""
        belief.observe({layout: [s for r in results for s in r.steps] for layout, results in self._done.items()})
        trials, beaten = self._trials(), self._bar()
        busy = {engine_of(layout) for layout in running}
        left = np.array(
            [
                c.layout not in self._done
                and (whatever_it_costs or beaten(c.layout) is None)
                and (not busy or engine_of(c.layout) not in busy)
                and doomed(c.layout, trials) is None
                for c in belief.candidates
            ],
            dtype=bool,
        )
        best = {objective: self.best(objective) for objective in self._request.objectives}
        return left, outlook(self._request, belief, left, best)

    def _trials(self) -> list[TrialResult]:
        return [result for results in self._done.values() for result in results]

    def _met(self) -> bool:
        leader = self.best()
        return bool(leader) and merit(self._request, *leader)[0]

    def _hopeless(self, seen: Outlook) -> bool:
        """After some launches that all missed the SLO, no draw of the belief has a layout that meets it."""
        measured = [result for result in self._trials() if result.state is not TrialState.FAILED]
        return len(measured) >= _CONVINCED and seen.anything == 0.0

    def _unconfirmed(self) -> ParallelLayout | None:
        """The best layout, if it meets the SLO and was measured once."""
        leader = self.best()
        if len(leader) != 1 or not self._met() or self._request.budget.launches <= _CONVINCED:
            return None
        return leader[0].layout

    def _opened(self, layout: ParallelLayout, why: str, repeat: int = 0) -> int:
        """Number of a new running trial in Optuna; it never waits in a queue, where another driver would take it."""
        trial = optuna.trial.create_trial(
            state=OptunaState.RUNNING,
            params=self._params(layout),
            distributions=self._distributions,
            user_attrs={_LAYOUT: str(layout), "why": why, _REPEAT: repeat},
        )
        storage = self._study._storage
        number = storage.get_trial_number_from_id(storage.create_new_trial(self._study._study_id, trial))
        return int(number)

    def withdraw(self, handle: int) -> None:
        """Take back a proposal that is not launched: another driver was faster."""
        self._study.tell(handle, state=OptunaState.FAIL)

    def _first_of_shape(
        self, left: Sequence[Candidate], running: Sequence[ParallelLayout]
    ) -> tuple[Candidate, str] | None:
        tried = {layout.shape for layout in (*self._done, *running)}
        found = next((c for c in left if c.layout.shape not in tried), None)
        return (found, "best of its degrees of parallelism by the model") if found else None

    def _variant_of_best(self, left: Sequence[Candidate]) -> tuple[Candidate, str] | None:
        best = self.best()
        if not best:
            return None
        for axis in ("executor", "max_num_batched_tokens", "max_num_seqs", "all2all"):
            for candidate in left:
                if _differ_in(candidate.layout, best[0].layout) == [axis]:
                    return candidate, f"the best so far with another {axis}"
        return None

    def _sampled(self, left: Sequence[Candidate]) -> tuple[Candidate, str]:
        """The candidate nearest to what the sampler wants, the better ranked where two are equally near."""
        if len(left) == 1:
            return left[0], "the last one left"
        self._study.sampler = _sampler(len(self._done))  # seeded by progress: a resumed study asks for the same layouts
        wanted = self._study.ask(self._distributions)
        self._study.tell(wanted.number, state=OptunaState.FAIL)
        chosen = min(left, key=lambda c: sum(getattr(c.layout, axis) != v for axis, v in wanted.params.items()))
        return chosen, "nearest to what the TPE sampler makes of the trials so far"

    def report(self, handle: int, step: StepResult) -> str | None:
        """Give a measured load step; the answer says why the trial has already lost, or is None to go on."""
        if step.invalid:
            return None  # it says nothing of the layout
        ratio = slo_ratio(self._request, step)
        if ratio is None or step.failed:
            return f"requests failed at {step.step.rate_req_per_s:g} requests/s"
        trial = optuna.trial.Trial(self._study, self._trial_id(handle))
        trial.report(ratio, step.step.index)
        if trial.should_prune():
            return f"the SLO is missed at {step.step.rate_req_per_s:g} requests/s ({ratio:.2f} × the target)"
        return self._overtaken(trial.user_attrs, step)

    def _overtaken(self, trial: Mapping[str, Any], step: StepResult) -> str | None:
        """Why a layout under measurement need not go on: one that is confirmed, or sure to be, is almost certainly
        better whatever its other load steps show."""
        leader, layout = self.best(), ParallelLayout.parse(trial[_LAYOUT])
        if self._belief is None or trial[_REPEAT] or layout not in self._by_layout:
            return None
        steps = self._partial.setdefault(layout, [])
        steps.append(step)
        if not self._met() or confirmation_chance(self._request, leader) < _SURE:
            return None
        done = {known: [s for r in results for s in r.steps] for known, results in self._done.items()}
        self._belief.observe(done | {layout: steps})
        best = {objective: self.best(objective) for objective in self._request.objectives}
        chance = overtaking(self._request, self._belief, layout, best)
        if chance >= UNLIKELY:
            return None
        return f"beats {leader[0].layout} by over {CLEARLY:.0%} with a probability of {chance:.1%}"

    def tell(self, handle: int, result: TrialResult) -> None:
        """Give a finished trial. A failed one is FAIL to Optuna: it has no value, and is not a slow one."""
        self._remember(result)
        if result.state is TrialState.FAILED:
            self._study.tell(handle, state=OptunaState.FAIL)
            return
        feasible, key = merit(self._request, result)
        trial = optuna.trial.Trial(self._study, self._trial_id(handle))
        trial.set_constraint("slo", -1.0 if feasible else 1.0)
        for step in result.steps:
            trial.set_user_attr(f"at {step.step.rate_req_per_s:g} requests/s", list(step.slo_values_ms))
        missed_by = 1e6 + 1e3 * key[0] + min(key[1], 1e3)  # the same order as the key, as one number
        self._study.tell(handle, values=_finite(key[0] if feasible else missed_by))

    def best(self, objective: Objective | None = None) -> tuple[TrialResult, ...]:
        """The trials of the best measured layout so far, by the request's order or by one objective; layouts that meet
        the SLO come first. None at first."""
        measured = [rs for rs in self._done.values() if any(r.steps and r.state is not TrialState.FAILED for r in rs)]

        def key(results: tuple[TrialResult, ...]) -> tuple[Any, ...]:
            meets, order = merit(self._request, *results)
            first = () if objective is None else (value_of(self._request, objective, results),)
            return (*first, not meets, order)

        return min(measured, key=key, default=())

    def unbeatable(self) -> list[tuple[Candidate, str]]:
        """Candidates that need no launch: a measured one beats whatever they could show, or they would fail."""
        beaten, trials, best = self._bar(), self._trials(), self.best()
        left = {c: beaten(c.layout) or doomed(c.layout, trials) for c in self._ranked if c.layout not in self._done}
        if self._belief is not None and best:
            _, seen = self._outlook(self._belief, set())
            for candidate, chance in zip(self._belief.candidates, seen.chance, strict=True):
                if left.get(candidate, "known") is None and chance < UNLIKELY:
                    left[candidate] = f"beats {best[0].layout} by over {CLEARLY:.0%} with a probability of {chance:.1%}"
        return [(candidate, why) for candidate, why in left.items() if why is not None]

    def _bar(self) -> Callable[[ParallelLayout], str | None]:
        """A rule that says why a layout cannot beat the best measured one, whatever it could show, or None."""
        leader, objective = self.best(), self._request.objective
        prices = objective in (Objective.MIN_GPUS, Objective.MIN_COST) and self._request.second_objective is None
        if not prices or not leader or not merit(self._request, *leader)[0]:
            return lambda layout: None
        best, known = leader[0].layout, dict[tuple[str | None, int], float]()
        limit = price_of(self._request, objective, best)

        def rule(layout: ParallelLayout) -> str | None:
            key = (layout.gpu, layout.devices)
            if key not in known:
                known[key] = price_of(self._request, objective, layout)
            if known[key] <= limit:
                return None
            unit = "US dollars per hour" if known[key] != layout.devices else "devices"
            return f"needs {known[key]:g} {unit}; {best} meets the SLO with {limit:g}"

        return rule

    def _params(self, layout: ParallelLayout) -> dict[str, Any]:
        return {axis: getattr(layout, axis) for axis in self._distributions}

    def _trial_id(self, handle: int) -> int:
        return int(self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, handle))


def _distributions(ranked: Sequence[Candidate]) -> dict[str, BaseDistribution]:
    axes = (*STRUCTURE_AXES, "max_num_batched_tokens", "max_num_seqs")
    values = {axis: sorted({getattr(c.layout, axis) for c in ranked}) for axis in axes}
    return {axis: CategoricalDistribution(found) for axis, found in values.items() if len(found) > 1}


def _differ_in(one: ParallelLayout, other: ParallelLayout) -> list[str]:
    a, b = one.as_dict(), other.as_dict()
    return [axis for axis in a if a[axis] != b[axis]]


def _finite(value: float) -> float:
    return min(max(value, -1e12), 1e12)


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)
