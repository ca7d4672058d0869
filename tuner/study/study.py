"""A study: the only file that knows the order of the stages, from the plan to the decision.

It talks to the world through a Launcher, a Meter, the store and an observer, and can be killed at any instant: on
``resume`` it clears what was in flight, repeats nothing that finished, and ends in the same decision.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tuner.ask.cluster import Cluster, Fleet, usd_per_gpu_hour
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.ask.rules import DropReason, illegal
from tuner.ask.space import Space
from tuner.decide.decision import Decision, decide, winner
from tuner.decide.stopping import NOTHING_LEFT, Stopped
from tuner.errors import BadInput, Cancelled, Cause, StoreError, reason
from tuner.plan.infeasible import infeasible, slower_than_predicted
from tuner.plan.prune import Candidate, DroppedGroup, Plan, plan
from tuner.search.belief_strategy import BeliefStrategy
from tuner.search.in_place import InPlace
from tuner.search.path_liking import by_path
from tuner.search.search import Search
from tuner.search.strategy import Strategy
from tuner.search.warm_start import MOST, Factors, Past, carried
from tuner.study.assignment import Assignment
from tuner.study.driver import Driver
from tuner.study.launchable import launchable
from tuner.study.lease import is_gone, new_driver
from tuner.study.lifecycle import StudyState
from tuner.study.observer import Fanout, Observer
from tuner.study.optuna_record import OptunaRecord
from tuner.study.resuming import require_same, require_same_request
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle
from tuner.trial.devices import nodes_of
from tuner.trial.ledger import spent
from tuner.trial.results import TrialResult
from tuner.trial.seams import Launcher, Meter

_AFTER = {
    Cause.PAUSE: StudyState.PAUSED,
    Cause.QUOTA: StudyState.PAUSED,
    Cause.HANDOVER: StudyState.QUEUED,
}  # all other ends cancel a study

Strategist = Callable[[TuneRequest, Sequence[Candidate], ModelShape, Cluster | Fleet, Factors], Strategy]


@dataclass(frozen=True, slots=True)
class Setting:
    """All that a study works with."""

    name: str
    request: TuneRequest
    model: ModelShape
    cluster: Cluster | Fleet
    space: Space
    log_root: Path


class Study:
    """Runs one request to its decision."""

    def __init__(
        self,
        setting: Setting,
        store: Store,
        launcher: Launcher,
        meter: Meter,
        observer: Observer,
        *,
        clock: Callable[[], float] = time.perf_counter,
        driver: str | None = None,
        cancel: CancelHandle | None = None,
        held: Callable[[], str | None] = lambda: None,
        strategist: Strategist = BeliefStrategy.of,
    ) -> None:
        """``clock`` in s; ``driver`` as the store knows this run of the study; ``cancel`` ends it from any thread.
        ``held`` is as in ``tuner.study.assignment.Assignment``.

        ``strategist`` makes what chooses the launches, from the candidates and what earlier studies taught.
        """
        self._s, self._store, self._launcher, self._meter = setting, store, launcher, meter
        self._observer = Fanout((OptunaRecord(store, setting.name, setting.request), observer))
        self._clock, self._driver = clock, driver or new_driver()
        self._cancel, self._held, self._strategist = cancel or CancelHandle(), held, strategist

    def run(self, resume: bool, facts: dict[str, str]) -> Decision:
        """Plan, launch and measure until the budget is spent or nothing is left that could win; decide, and store that.

        With ``resume`` it goes on with a study that was stopped or killed, and joins one that others are driving.
        Raises BadInput when the name is taken and ``resume`` is false, or taken by another request or on another
        cluster, and where the launcher can run no layout of the space; nothing is begun then. Raises Cancelled where
        that was asked: then nothing of it runs any more, and ``resume`` goes on from there.
        """
        s = self._s
        self._cancel.raise_if_cancelled()
        planned = self._runnable(self._planned())
        known = self._begun(resume, facts)
        with ending(self._store, s.name, self._cancel), Driver(self._assignment(), self._best) as driver:
            orphans = driver.clear_orphans()
            self._store.save_plan(s.name, planned.candidates, planned.ranked, planned.dropped)
            self._observer.planned(planned)
            self._cancel.raise_if_cancelled()
            search = Search(s.request, planned.ranked, self._strategy(planned), self._in_place())
            found = self._store.snapshot(s.name)
            search.recall(found.finished)
            if known and (found.finished or orphans):
                self._observer.resumed(found.finished, orphans)
            budget = driver.run(search, found.finished)
            stopped = search.stopped(budget)
            plain = f"Stopped: {budget or NOTHING_LEFT}."
            self._observer.ended(plain if stopped is None else stopped.sentence)
            return self._decide(planned, search, stopped)

    def _planned(self) -> Plan:
        """The plan of what this launcher has paths to the engine for."""
        s = self._s
        gpu = s.request.groups[0].gpu if len(s.request.groups) > 1 else None
        space, lost = launchable(s.space, gpu, lambda layout: self._launcher.refuses(layout, s.request))
        planned = plan(s.request, s.model, s.cluster, space)
        total = planned.candidates + sum(group.count for group in lost)
        return replace(planned, candidates=total, dropped=(*planned.dropped, *lost))

    def _begun(self, resume: bool, facts: dict[str, str]) -> bool:
        """Begin the study, or find it begun; True where it was."""
        s = self._s
        known = self._store.find_study(s.name)
        if known is None or not resume:
            try:
                self._store.create_study(s.name, s.request, facts)
                return False
            except BadInput:
                known = self._store.find_study(s.name) if resume else None
                if known is None:
                    raise
        require_same_request(s.name, known.request, s.request)
        if not known.facts:  # it was queued, and nobody knew where it would run
            self._store.keep_facts(s.name, facts)
            return True
        require_same(s.name, known.facts, facts)
        return True

    def _strategy(self, planned: Plan) -> Strategy | None:
        """What chooses the launches, with what earlier studies of the store taught; None where there is no choice."""
        if not planned.ranked:
            return None
        s, own = self._s, self._store.study(self._s.name)
        past: dict[str, Past] = {}
        for name in self._store.kinship.earlier(s.name, MOST):
            if (record := self._store.find_study(name)) is not None:
                trials = self._store.snapshot(name).finished
                past[name] = Past(record.created_at, record.request, record.ranked or (), trials)
        if past:
            self._observer.remembered(list(past))
        return self._strategist(
            s.request, planned.ranked, s.model, s.cluster, carried(list(past.values()), s.model, own.created_at)
        )

    def _in_place(self) -> InPlace | None:
        """What may be measured on engines that run; None where the launcher changes nothing of them."""
        s, axes = self._s, self._launcher.in_place
        if not axes:
            return None

        def legal(layout: ParallelLayout) -> bool:
            refused = illegal(s.model, layout, s.cluster.group(layout)) or self._launcher.refuses(layout, s.request)
            return refused is None

        return InPlace(s.request, s.space, axes, legal, by_path(s.cluster))

    def _assignment(self) -> Assignment:
        s = self._s
        return Assignment(
            study=s.name,
            request=s.request,
            nodes=nodes_of(s.request.groups),
            price=partial(usd_per_gpu_hour, s.request),
            log_root=s.log_root,
            store=self._store,
            launcher=self._launcher,
            meter=self._meter,
            observer=self._observer,
            driver=self._driver,
            clock=self._clock,
            cancel=self._cancel,
            held=self._held,
        )

    def _best(self, finished: Sequence[TrialResult]) -> TrialResult | None:
        return winner(self._s.request, finished)

    def _runnable(self, planned: Plan) -> Plan:
        """The plan without the candidates that this launcher cannot run as they are written."""
        kept, dropped = [], list(planned.dropped)
        for candidate in planned.ranked:
            refusal = self._launcher.refuses(candidate.deployment, self._s.request)
            if refusal is None:
                kept.append(candidate)
            else:
                dropped.append(DroppedGroup(DropReason.LAUNCHER, 1, candidate.layout, refusal))
        if planned.ranked and not kept:
            refusal = f"it refuses all {len(planned.ranked)} that are left, {dropped[-1].example}: {dropped[-1].figure}"
            raise BadInput("space", self._s.space.name, f"layouts that {self._launcher.name} can run; {refusal}")
        return replace(planned, ranked=tuple(kept), dropped=tuple(dropped))

    def _decide(self, planned: Plan, search: Search, stopped: Stopped | None) -> Decision:
        groups = list(planned.dropped)
        for candidate, why in search.unbeatable():
            groups.append(DroppedGroup(DropReason.OUTRANKED, 1, candidate.layout, why))
        s, found = self._s, self._store.snapshot(self._s.name)
        used = spent(found.entries, found.pulse.study_s, partial(usd_per_gpu_hour, s.request))
        decision = decide(s.name, s.request, found.finished, planned.ranked, groups, used)
        decision = replace(decision, stopped=stopped)
        if decision.winner is None:
            slower = slower_than_predicted(s.request, decision.trials, decision.predictions)
            decision = replace(decision, infeasible=infeasible(s.request, s.model, s.space, slower))
        self._store.save_decision(s.name, decision)
        return decision


def default_name(request: TuneRequest) -> str:
    """A study's name when the operator gave none: the model's last word and a digest of the request."""
    return f"{service_name(request)}-{hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:8]}"


def service_name(request: TuneRequest) -> str:
    """The name that the winner carries in production: the model's last word, in characters that Kubernetes takes."""
    word = re.sub(r"[^a-z0-9]+", "-", Path(request.model).name.lower())
    return word[:40].strip("-") or "parlay"


@contextmanager
def ending(store: Store, study: str, cancel: CancelHandle) -> Iterator[None]:
    """What ends the block by an error ends the study, unless other drivers go on with it: in a state that says why.

    An interrupt that follows the handle's cause, since the end took too long, is no other cause.
    """
    try:
        yield
    except (Cancelled, KeyboardInterrupt) as error:
        cause = error.cause if isinstance(error, Cancelled) else cancel.cause or Cause.OPERATOR
        held = error.words if isinstance(error, Cancelled) and cause is Cause.QUOTA else None
        store.end_study(study, _AFTER.get(cause, StudyState.CANCELLED), is_gone, held)
        raise
    except StoreError:  # nothing is wrong with the study: whoever reaches the store goes on with it
        store.end_study(study, StudyState.QUEUED, is_gone)
        raise
    except BaseException as error:
        store.end_study(study, StudyState.FAILED, is_gone, reason(error))
        raise
