"""The record of a study's trials that Optuna keeps in the same database, for optuna-dashboard and for export.

Nothing of ours reads it: the store is what a study goes by, and the record follows. Only public API of Optuna is used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tuner.ask.layout import SPACE_AXES
from tuner.ask.request import TuneRequest
from tuner.decide.comparison import meets_and_order, slo_ratio
from tuner.errors import StoreError
from tuner.plan.prune import Candidate, Plan
from tuner.search.proposal import Proposal
from tuner.study.observer import Observer
from tuner.study.store import Store
from tuner.trial.results import StepResult, TrialResult, TrialState

_LAYOUT, _REPEAT, _WHY = "layout", "repeat", "why"
_PATIENCE_S = 30.0
_FARTHEST = 1e12  # of an objective's value, which must be finite

Key = tuple[str, int]  # layout and repeat: of all trials of a study, one at most has it at a time


class OptunaRecord(Observer):
    """Writes down each trial as one of Optuna's: its parameters, worst latency ÷ target by load step, and value.

    The value orders as ``meets_and_order`` does, smallest best; the constraint ``slo`` is met where it is not positive.
    A failed trial is FAIL: it has no value, and is not a slow one. So is one that its driver did not live to end.

    Several drivers of a study may write at once. What makes a trial of theirs or ends one of others is done by one at a
    time, under ``Store.exclusive``; a trial is here after the store has it, so one that the store does not know is left
    over. Where a driver was thought dead and another ended its trial, the rest that it tells of it is dropped.
    """

    def __init__(self, store: Store, study: str, request: TuneRequest) -> None:
        """Nothing is written before the study is ``planned``."""
        self._store, self._name, self._request = store, study, request
        self._given = _Given()
        self._distributions: dict[str, BaseDistribution] = {}
        self._open: dict[int, optuna.trial.Trial] = {}

    def planned(self, plan: Plan) -> None:
        """Make the tables and Optuna's study, or find them; end what dead drivers left."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._distributions = _distributions(plan.ranked)
        with self._store.exclusive(), _told():
            self._study = optuna.create_study(
                storage=_storage(self._store.url),
                study_name=self._name,
                direction="minimize",
                load_if_exists=True,
                sampler=self._given,
            )
            self._sweep()

    def trial_started(self, number: int, launches: int, proposal: Proposal) -> None:
        """A running trial with the layout's parameters."""
        with self._store.exclusive(), _told():
            self._sweep(begun=(str(proposal.deployment), proposal.repeat))
            self._given.point = {axis: getattr(proposal.deployment, axis) for axis in self._distributions}
            trial = self._study.ask(self._distributions)
            told = {_LAYOUT: str(proposal.deployment), _WHY: proposal.why, _REPEAT: proposal.repeat}
            for name, value in told.items():
                trial.set_user_attr(name, value)
        self._open[number] = trial

    def step_measured(self, number: int, result: StepResult) -> None:
        """The worst latency ÷ target of a load step that shows something of the layout."""
        ratio = slo_ratio(self._request, result)
        if not result.step.warmup and not result.invalid and not result.failed and ratio is not None:
            with _told(), suppress(UpdateFinishedTrialError):
                self._open[number].report(ratio, result.step.index)

    def trial_finished(self, result: TrialResult) -> None:
        """Its value and what it rests on. While it is told no sweep goes on, which could end the trial in between: on
        SQLite Optuna looks at a trial's state and writes it in two transactions."""
        trial, end = self._open.pop(result.number), _End.of(self._request, result)
        with self._store.exclusive(), _told(), suppress(UpdateFinishedTrialError):
            for name, value in end.constraints.items():
                trial.set_constraint(name, value)
            for name, values_ms in end.user_attrs.items():
                trial.set_user_attr(name, values_ms)
            self._study.tell(trial, values=end.value, state=end.state, skip_if_finished=True)

    def ended(self, why: str) -> None:
        """End what was left."""
        with self._store.exclusive(), _told():
            self._sweep()

    def _sweep(self, begun: Key | None = None) -> None:
        """End what runs here and not in the store: trials of dead drivers, and the one that was to be where another of
        its key has ``begun``. One that the store has finished is written down as it ended."""
        for _ in self._trials(OptunaState.WAITING):  # queued by hand: the next to ask would get it
            self._study.tell(self._study.ask(), state=OptunaState.FAIL)
        running = self._trials(OptunaState.RUNNING)  # before the store is read: all of them are claimed by then
        newest = {_key(trial): trial.number for trial in running}
        alive = {(str(trial.deployment), trial.repeat) for trial in self._store.snapshot(self._name).open} - {begun}
        for trial in running:
            if _key(trial) in alive and newest[_key(trial)] == trial.number:
                continue
            self._study.tell(trial.number, state=OptunaState.FAIL, skip_if_finished=True)
            self._end_as_stored(trial)

    def _end_as_stored(self, trial: FrozenTrial) -> None:
        """Add a trial that was over before its driver died, but not yet told."""
        known = {(str(result.deployment), result.repeat): result for result in self._store.trials(self._name)}
        result = known.get(_key(trial))
        if result is None or result.state in (TrialState.RUNNING, TrialState.FAILED):
            return
        if _key(trial) in map(_key, self._trials(OptunaState.COMPLETE)):
            return
        end = _End.of(self._request, result)
        ended = optuna.trial.create_trial(
            state=OptunaState.COMPLETE,
            value=end.value,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={**trial.user_attrs, **end.user_attrs},
            intermediate_values=trial.intermediate_values,
            constraints=end.constraints,
        )
        self._study.add_trial(ended)

    def _trials(self, state: OptunaState) -> list[FrozenTrial]:
        return list(self._study.get_trials(deepcopy=False, states=(state,)))


@contextmanager
def _told() -> Iterator[None]:
    """Optuna's failure to reach the database is one of the store."""
    try:
        yield
    except StorageInternalError:
        raise StoreError("the record for optuna-dashboard could not be written") from None


class _Given(optuna.samplers.BaseSampler):  # type: ignore[misc]  # mypy skips Optuna
    """Samples the point that it was given: what to launch is chosen elsewhere."""

    def __init__(self) -> None:
        self.point: Mapping[str, Any] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.point[param_name]


@dataclass(frozen=True, slots=True)
class _End:
    """What Optuna is told of a trial that is over."""

    state: OptunaState
    value: float | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    user_attrs: Mapping[str, list[float | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, request: TuneRequest, result: TrialResult) -> _End:
        if result.state is TrialState.FAILED:
            return cls(OptunaState.FAIL)
        feasible, key = meets_and_order(request, result)
        missed_by = 1e6 + 1e3 * key[0] + min(key[1], 1e3)  # the same order as the key, as one number
        value = min(max(key[0] if feasible else missed_by, -_FARTHEST), _FARTHEST)
        steps_ms = {
            f"at {step.step.rate_req_per_s:g} requests/s": [step.slo_values_ms.get(t.key) for t in request.slo]
            for step in result.steps
        }
        return cls(OptunaState.COMPLETE, value, {"slo": -1.0 if feasible else 1.0}, steps_ms)


def _storage(url: str) -> optuna.storages.RDBStorage:
    """As patient as our own store where another driver writes to the same file of SQLite."""
    patience = {"connect_args": {"timeout": _PATIENCE_S}} if url.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(url, engine_kwargs=patience)


def _key(trial: FrozenTrial) -> Key:
    return trial.user_attrs.get(_LAYOUT, ""), trial.user_attrs.get(_REPEAT, 0)


def _distributions(ranked: Sequence[Candidate]) -> dict[str, BaseDistribution]:
    """The axes in which the candidates differ, each with its values."""
    values = {axis: sorted({getattr(c.deployment, axis) for c in ranked}) for axis in SPACE_AXES}
    return {axis: CategoricalDistribution(found) for axis, found in values.items() if len(found) > 1}
