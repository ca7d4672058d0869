"""A study: the only file that knows the order of the stages, from the plan to the decision.

It talks to the world through a Launcher, a Meter, the store and an observer, and can be killed at any instant: on
``resume`` it clears what was in flight, repeats nothing that finished, and ends in the same decision.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.cluster import Cluster, Fleet
from tuner.decide import Decision, decide
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.model import ModelShape
from tuner.prune import DroppedGroup, Plan, plan
from tuner.request import TuneRequest
from tuner.rules import DropReason
from tuner.search import Proposal, Search
from tuner.space import Space
from tuner.store import Store
from tuner.trial import Deployment, Launcher, LaunchOrder, LoadStep, Meter, StepResult, TrialResult, TrialState

BASE_SEED = 20260101  # arrivals of step i are drawn from BASE_SEED + i, the same for every layout


class Observer:
    """What a study tells while it runs; every method does nothing here, so that a listener overrides what it shows."""

    def planned(self, plan: Plan) -> None:
        """The space was priced."""

    def trial_started(self, number: int, launches: int, proposal: Proposal) -> None:
        """Trial ``number`` of at most ``launches`` begins."""

    def launching(self, number: int, text: str) -> None:
        """What the launcher waits for."""

    def ready(self, number: int, deployment: Deployment) -> None:
        """The deployment answers."""

    def step_started(self, number: int, step: LoadStep, steps: int) -> None:
        """Load step begins; ``steps`` in all."""

    def step_measured(self, number: int, result: StepResult) -> None:
        """Load step over (warm-up steps too)."""

    def trial_finished(self, result: TrialResult) -> None:
        """Trial over, whatever its outcome."""

    def resumed(self, finished: Sequence[TrialResult], orphans: Sequence[str]) -> None:
        """An earlier run was taken up: its finished trials, and the deployments of it that were torn down."""


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

    def __init__(self, setting: Setting, store: Store, launcher: Launcher, meter: Meter, observer: Observer) -> None:
        self._s, self._store, self._launcher, self._meter, self._observer = setting, store, launcher, meter, observer

    def run(self, resume: bool, facts: dict[str, str]) -> Decision:
        """Plan, launch and measure until the budget is spent or nothing is left that could win; decide.

        Raises BadInput when the name is taken and ``resume`` is false, or taken by another request.
        """
        s = self._s
        known = self._store.find_study(s.name)
        if known is None or not resume:
            self._store.create_study(s.name, s.request, facts)
        elif known.request != s.request:
            raise BadInput("--resume", s.name, "the request that the study was started with")
        orphans = self._clear_orphans()
        planned = self._runnable(plan(s.request, s.model, s.cluster, s.space))
        self._store.save_plan(s.name, planned.candidates, planned.ranked, planned.dropped)
        self._observer.planned(planned)
        finished = self._store.trials(s.name)
        search = Search(self._store.url, s.name, s.request, planned.ranked)
        search.recall(finished)
        if known is not None:
            self._observer.resumed(finished, orphans)
        self._spend(search, list(finished), known_seconds=sum(t.seconds or 0.0 for t in finished))
        return self._decide(planned, search)

    def _runnable(self, planned: Plan) -> Plan:
        """The plan without the candidates that this launcher cannot run as they are written."""
        kept, dropped = [], list(planned.dropped)
        for candidate in planned.ranked:
            refusal = self._launcher.refuses(candidate.layout, self._s.request)
            if refusal is None:
                kept.append(candidate)
            else:
                dropped.append(DroppedGroup(DropReason.LAUNCHER, 1, candidate.layout, refusal))
        return replace(planned, ranked=tuple(kept), dropped=tuple(dropped))

    def _clear_orphans(self) -> list[str]:
        """Tear down what a killed run left, and forget its unfinished trials: they run again from the start."""
        removed = []
        for trial in self._store.open_trials(self._s.name):
            if self._launcher.remove_orphan(trial.app):
                removed.append(trial.app)
            self._store.forget_trial(self._s.name, trial.number)
        return removed

    def _spend(self, search: Search, finished: list[TrialResult], known_seconds: float) -> None:
        budget = self._s.request.budget
        started = time.perf_counter()
        while len(finished) < budget.launches:
            if known_seconds + time.perf_counter() - started >= budget.minutes * 60:
                return
            proposal = search.ask()
            if proposal is None:
                return
            number = max((t.number for t in finished), default=-1) + 1
            self._observer.trial_started(number, budget.launches, proposal)
            result = self._trial(number, proposal, search)
            finished.append(result)
            search.tell(proposal.handle, result)
            self._observer.trial_finished(result)

    def _trial(self, number: int, proposal: Proposal, search: Search) -> TrialResult:
        s, started = self._s, time.perf_counter()
        app = app_name(s.name, number)
        order = LaunchOrder(s.name, number, app, proposal.layout, s.request, s.log_root / f"trial-{number:03d}")
        order.log_dir.mkdir(parents=True, exist_ok=True)
        self._store.begin_trial(s.name, number, proposal.layout, app, order.log_dir)
        deployment: Deployment | None = None
        steps: list[StepResult] = []
        try:
            deployment = self._launcher.launch(order, lambda text: self._observer.launching(number, text))
            self._observer.ready(number, deployment)
            stopped = self._measure(number, deployment, proposal, search, steps)
            state = TrialState.STOPPED if stopped else TrialState.MEASURED
            result = TrialResult(number, proposal.layout, state, tuple(steps), detail=stopped)
        except LaunchFailed as failure:
            tail = failure.log_tail or (deployment.log_tail() if deployment else ())
            result = TrialResult(
                number, proposal.layout, TrialState.FAILED, tuple(steps), failure.reason, failure.detail, tail
            )
        except KeyboardInterrupt:
            cancelled = TrialResult(number, proposal.layout, TrialState.FAILED, failure=FailureReason.CANCELLED)
            self._observer.trial_finished(cancelled)
            raise
        finally:
            if deployment is not None:
                deployment.teardown()
        ready = deployment.ready_after_s if deployment else None
        result = _timed(result, ready, time.perf_counter() - started)
        self._store.finish_trial(s.name, result)
        return result

    def _measure(
        self, number: int, deployment: Deployment, proposal: Proposal, search: Search, steps: list[StepResult]
    ) -> str | None:
        """Warm up, then the rising load steps; the answer says why it stopped early, None when it did not."""
        for step in load_steps(self._s.request):
            self._observer.step_started(number, step, len(self._s.request.rates_req_per_s))
            result = self._meter.measure(deployment, step, self._s.request)
            self._observer.step_measured(number, result)
            if step.warmup:
                continue
            steps.append(result)
            self._store.add_step(self._s.name, number, result)
            lost = search.report(proposal.handle, result)
            if lost is not None:
                return lost
        return None

    def _decide(self, planned: Plan, search: Search) -> Decision:
        groups = list(planned.dropped)
        for candidate, why in search.unbeatable():
            groups.append(DroppedGroup(DropReason.OUTRANKED, 1, candidate.layout, why))
        return decide(self._s.name, self._s.request, self._store.trials(self._s.name), planned.ranked, groups)


def load_steps(request: TuneRequest) -> list[LoadStep]:
    """Warm-up (index −1, at the lowest rate) and the rising rates; every layout gets the same arrivals."""
    rates = request.rates_req_per_s
    steps = [LoadStep(i, rate, request.load.seconds, BASE_SEED + i) for i, rate in enumerate(rates)]
    if request.load.warmup_seconds > 0:
        steps.insert(0, LoadStep(-1, rates[0], request.load.warmup_seconds, BASE_SEED - 1, warmup=True))
    return steps


def default_name(request: TuneRequest) -> str:
    """A study's name when the operator gave none: the model's last word and a digest of the request."""
    return f"{service_name(request)}-{hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:8]}"


def service_name(request: TuneRequest) -> str:
    """The name that the winner carries in production: the model's last word, in characters that Kubernetes takes."""
    word = re.sub(r"[^a-z0-9]+", "-", Path(request.model).name.lower())
    return word[:40].strip("-") or "parlay"


def app_name(study: str, number: int) -> str:
    """The deployment's name of a trial, unique in a cluster and known before it starts."""
    return f"parlay-{study}-{number}"


def _timed(result: TrialResult, ready_after_s: float | None, seconds: float) -> TrialResult:
    return replace(result, ready_after_s=ready_after_s, seconds=seconds)
