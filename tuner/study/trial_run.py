"""A driver's trials one by one: brought up, loaded, and recorded where somebody asks them to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from tuner.ask.request import Isolation
from tuner.errors import Cancelled, Cause, FailureReason, LaunchFailed
from tuner.search.search import Search
from tuner.study.assignment import Assignment
from tuner.study.claiming import Claims
from tuner.study.load_steps import step_at, warm_up
from tuner.study.records import OpenTrial
from tuner.study.running_trial import Phase, Running
from tuner.trial.cancel import CancelHandle
from tuner.trial.results import LoadStep, StepResult, TrialResult, TrialState
from tuner.trial.seams import LaunchOrder, Reconfigurable, RunningDeployment, Samples, Watch

OTHERS_S = 1.0  # how often it is looked at what other drivers did, and whether all shall end


class TrialRun:
    """Runs trials for a driver, each in its own thread: ``state`` is the driver's lock, ``beside`` what it runs.

    ``spent`` says which part of the budget is used up, launches aside; ``beat`` is the driver's sign of life.
    """

    def __init__(
        self,
        assignment: Assignment,
        state: threading.Condition,
        cancel: CancelHandle,
        claims: Claims,
        beside: Callable[[], Collection[Running]],
        spent: Callable[[], str | None],
        beat: Callable[[], None],
    ) -> None:
        self._p, self._state, self._cancel, self._claims = assignment, state, cancel, claims
        self._beside, self._spent, self._beat = beside, spent, beat

    def run(self, running: Running, search: Search) -> TrialResult:
        """Bring a trial up and measure it; the answer lacks its times, and the deployment is up, if it ever was.

        Where it was asked to end it is torn down and recorded as cancelled, and Cancelled raised; on any other error
        that is ours it is torn down.
        """
        try:
            return self._outcome(running, search)
        except (Cancelled, KeyboardInterrupt) as end:
            self._record_cancelled(running, end)
            raise
        except BaseException:
            running.teardown()
            raise

    def timed(self, result: TrialResult, running: Running) -> TrialResult:
        """With the times of a trial that ends now."""
        seconds = self._p.clock() - running.began_at
        came_up = running.is_up and not running.goes_on
        ready = running.deployment.ready_after_s if running.deployment and came_up else None
        return replace(result, ready_after_s=ready, seconds=seconds, device_s=seconds * result.deployment.devices)

    def _outcome(self, running: Running, search: Search) -> TrialResult:
        try:
            return self._measured(running, search)
        except LaunchFailed as failure:
            self._cancel.raise_if_cancelled()  # what breaks while all is being ended says nothing of the layout
            return running.finished(TrialState.FAILED, failure)

    def _measured(self, running: Running, search: Search) -> TrialResult:
        p, trial = self._p, running.trial
        deployment = self._up(running)
        with self._state:
            p.store.record_launch(p.study, trial.number, deployment.launched, p.driver)
            if not running.goes_on:
                p.observer.ready(trial.number, deployment)
            self._wait_for_neighbours(running)
        stopped = self._steps(running, deployment, search)
        return running.finished(TrialState.STOPPED if stopped else TrialState.MEASURED, why=stopped)

    def _up(self, running: Running) -> RunningDeployment:
        p, trial = self._p, running.trial
        watch = Watch(self._cancel, progress=lambda text: self._launching(trial, text))
        self._claims.require(trial)
        if running.deployment is not None and not running.goes_on:
            assert isinstance(running.deployment, Reconfigurable), "the trial before it says so"
            running.deployment.reconfigure(trial.layout, watch)
        elif running.deployment is None:
            trial.log_dir.mkdir(parents=True, exist_ok=True)
            running.deployment = p.launcher.launch(
                LaunchOrder(
                    p.study, trial.number, trial.app, trial.deployment, p.request, trial.log_dir, trial.placement
                ),
                watch,
            )
        running.is_up = True
        return running.deployment

    def _wait_for_neighbours(self, running: Running) -> None:
        """Return, measuring, once nothing starts on the trial's nodes any more."""
        if running.phase is Phase.MEASURING:  # since its engine came up, and nothing may start beside it
            return
        running.phase = Phase.READY
        self._state.notify_all()
        while self._p.request.isolation is Isolation.NODE and self._start_beside(running):
            self._state.wait(OTHERS_S)
            self._cancel.raise_if_cancelled()
        running.phase = Phase.MEASURING

    def _start_beside(self, running: Running) -> bool:
        nodes = _nodes(running.trial)
        others = (r for r in self._beside() if r is not running and r.phase is Phase.STARTING)
        return any(nodes & _nodes(other.trial) for other in others)

    def _steps(self, running: Running, deployment: RunningDeployment, search: Search) -> str | None:
        """Warm up, then the load steps that the search asks for; the answer says why it has lost, None where it has
        not, or why nothing more of it is measured."""
        p, number, repeat = self._p, running.trial.number, running.trial.repeat
        warmed = [self._step(number, s, deployment) for s in ([] if running.goes_on else warm_up(p.request, repeat))]
        lost: str | None = None
        while True:
            with self._state:
                rate = search.next_rate(running.proposal, running.steps)
                if rate is not None and running.steps and (spent := self._spent()) is not None:
                    return spent
            if rate is None:
                return lost
            result = _after(warmed, self._step(number, step_at(p.request, rate, repeat), deployment))
            warmed = []
            with self._state:
                running.steps.append(result)
                p.store.add_step(p.study, number, result, p.driver)
                self._beat()
                lost = search.report(running.proposal, result) if lost is None else lost
            if lost is not None and not result.misses(p.request):
                return lost

    def _step(self, number: int, step: LoadStep, deployment: RunningDeployment) -> StepResult:
        p = self._p
        with self._state:
            self._cancel.raise_if_cancelled()
            p.observer.step_started(number, step, len(p.request.rates_req_per_s))
        result = p.meter.measure(deployment, step, p.request, self._watch_of(number, step))
        with self._state:
            p.observer.step_measured(number, result)
        return result

    def _watch_of(self, number: int, step: LoadStep) -> Watch:
        observer = self._p.observer

        def sampled(samples_s: Samples) -> None:
            with self._state:
                observer.sampled(number, step, samples_s)

        # Not under the lock, which is held while the search thinks: the load that is just sent would wait for it.
        return Watch(self._cancel, lambda text: observer.measuring(number, text), sampled)

    def _launching(self, trial: OpenTrial, text: str) -> None:
        with self._state:
            self._cancel.raise_if_cancelled()
            self._claims.require(trial)
            self._p.observer.launching(trial.number, text)

    def _record_cancelled(self, running: Running, end: BaseException) -> None:
        running.teardown()
        words = str(Cancelled(*cause_of(end)))
        cancelled = running.finished(TrialState.FAILED, LaunchFailed(FailureReason.CANCELLED, words))
        cancelled = self.timed(cancelled, running)
        with self._state:
            self._p.store.finish_trial(self._p.study, cancelled, self._p.driver)
            self._p.observer.trial_finished(cancelled)


def _after(warmed: Sequence[StepResult], result: StepResult) -> StepResult:
    """The first load step, with how long the warm-up before it was and what that leaves to be borne."""
    for one in warmed:
        lasted_s = one.step.duration_s if one.offered_s is None else one.offered_s
        result = replace(result, warm_up_s=lasted_s, cautions=(*one.cautions, *result.cautions))
    return result


def cause_of(end: BaseException) -> tuple[Cause, str]:
    """Who ended the trials, and how: whoever cancelled, the operator at the terminal, or a defect of ours."""
    if isinstance(end, Cancelled):
        return end.cause, end.words
    if isinstance(end, KeyboardInterrupt):
        return Cause.OPERATOR, "interrupted"
    return Cause.SHUTDOWN, f"the study cannot go on: {type(end).__name__}: {end}"


def _nodes(trial: OpenTrial) -> frozenset[int]:
    return trial.placement.nodes if trial.placement is not None else frozenset()
