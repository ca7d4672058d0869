"""Which candidate is launched next. The only module with Optuna: it keeps the trials, samples and prunes.

The model's ranking is the prior. It tells degrees of parallelism apart, but hardly an executor or a scheduler knob, so
the best candidate of each shape goes first, then the variants of the best measured one, and after those Optuna's
TPE sampler, constrained by the SLO, chooses among what is left.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState as OptunaState

from tuner.layout import ParallelLayout
from tuner.merit import merit, slo_ratio
from tuner.prune import Candidate
from tuner.request import Objective, TuneRequest
from tuner.space import STRUCTURE_AXES
from tuner.trial import Purpose, StepResult, TrialResult, TrialState

_LAYOUT = "layout"


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
    """Ask for the next layout, report its load steps, tell how it ended. One Optuna study per study, in its store."""

    def __init__(self, store_url: str, study: str, request: TuneRequest, ranked: Sequence[Candidate]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._request, self._ranked = request, list(ranked)
        self._by_layout = {c.layout: c for c in ranked}
        self._distributions = _distributions(ranked)
        self._done: dict[ParallelLayout, TrialResult] = {}
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
        self._done = {result.layout: result for result in finished}
        by_name = {str(result.layout): result for result in finished}
        alive = {str(layout) for layout in running}
        for trial in self._study.get_trials(deepcopy=False, states=(OptunaState.RUNNING, OptunaState.WAITING)):
            if (name := trial.user_attrs.get(_LAYOUT, "")) in alive:
                continue
            result = by_name.get(name)
            if result is None or trial.state is OptunaState.WAITING:
                self._study._storage.set_trial_state_values(trial._trial_id, OptunaState.FAIL)
            else:
                self.tell(trial.number, result)

    def ask(
        self, running: Sequence[ParallelLayout] = (), fits: Callable[[ParallelLayout], bool] | None = None
    ) -> Proposal | None:
        """The next layout beside the ``running`` ones, of those that ``fits`` has room for; None when no such layout
        could still win."""
        known = {*self._done, *running}
        left = [c for c in self._ranked if c.layout not in known and not self._beaten(c)]
        if fits is not None:
            left = [c for c in left if fits(c.layout)]
        if not left:
            return None
        chosen, why = self._first_of_shape(left, running) or self._variant_of_best(left) or (None, "")
        if chosen is None:
            chosen, why = self._sampled(left)
        return Proposal(chosen.layout, why, self._opened(chosen.layout, why))

    def _opened(self, layout: ParallelLayout, why: str) -> int:
        """Number of a new running trial in Optuna; it never waits in a queue, where another driver would take it."""
        trial = optuna.trial.create_trial(
            state=OptunaState.RUNNING,
            params=self._params(layout),
            distributions=self._distributions,
            user_attrs={_LAYOUT: str(layout), "why": why},
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
        if best is None:
            return None
        for axis in ("executor", "max_num_batched_tokens", "max_num_seqs", "all2all"):
            for candidate in left:
                if _differ_in(candidate.layout, best.layout) == [axis]:
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
        ratio = slo_ratio(self._request, step)
        if ratio is None or step.failed:
            return f"requests failed at {step.step.rate_req_per_s:g} requests/s"
        trial = optuna.trial.Trial(self._study, self._trial_id(handle))
        trial.report(ratio, step.step.index)
        if trial.should_prune():
            return f"the SLO is missed at {step.step.rate_req_per_s:g} requests/s ({ratio:.2f} × the target)"
        return None

    def tell(self, handle: int, result: TrialResult) -> None:
        """Give a finished trial. A failed one is FAIL to Optuna: it has no value, and is not a slow one."""
        self._done[result.layout] = result
        if result.state is TrialState.FAILED:
            self._study.tell(handle, state=OptunaState.FAIL)
            return
        feasible, key = merit(self._request, result)
        optuna.trial.Trial(self._study, self._trial_id(handle)).set_constraint("slo", -1.0 if feasible else 1.0)
        missed_by = 1e6 + 1e3 * key[0] + min(key[1], 1e3)  # the same order as the key, as one number
        self._study.tell(handle, values=_finite(key[0] if feasible else missed_by))

    def best(self) -> TrialResult | None:
        """The best measured trial so far: one that meets the SLO before one that does not."""
        measured = [r for r in self._done.values() if r.state is not TrialState.FAILED and r.steps]
        return min(measured, key=lambda r: (not (m := merit(self._request, r))[0], m[1]), default=None)

    def unbeatable(self) -> list[tuple[Candidate, str]]:
        """Candidates that need no launch because a measured one beats whatever they could show."""
        return [(c, why) for c in self._ranked if c.layout not in self._done and (why := self._beaten(c))]

    def _beaten(self, candidate: Candidate) -> str | None:
        best = self.best()
        if best is None or self._request.objective not in (Objective.MIN_GPUS, Objective.MIN_COST):
            return None
        if merit(self._request, best)[0] and candidate.layout.devices > best.layout.devices:
            return f"needs {candidate.layout.devices} devices; {best.layout} meets the SLO with {best.layout.devices}"
        return None

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
