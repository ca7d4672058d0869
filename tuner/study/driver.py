"""One driver's work on a study: trials side by side, as many as the cluster has room for and the budget allows.

Each trial runs in a thread of its own, where the launcher can place several, else in the caller's. Search, store and
observer are used under one lock. Other drivers may work on the same study: what they claimed, hold and found is in the
store, and is looked at before every launch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from tuner.ask.deployment import Deployment
from tuner.errors import Cancelled, Cause, LeaseLost
from tuner.search.proposal import Proposal
from tuner.search.rates import usual_load_s
from tuner.search.search import Search
from tuner.study.assignment import Assignment
from tuner.study.budget import Purse
from tuner.study.claiming import Claims
from tuner.study.device_leases import Blocked
from tuner.study.lease import Heartbeat, is_gone
from tuner.study.lifecycle import StudyState
from tuner.study.records import OpenTrial, Pulse, Snapshot, TrialClaim
from tuner.study.running_trial import Phase, Running
from tuner.study.start_forecast import StartForecast
from tuner.study.study_time import StudyTime
from tuner.study.trial_run import OTHERS_S, TrialRun, cause_of
from tuner.trial.cancel import CancelHandle
from tuner.trial.devices import Placement, Reservation, place
from tuner.trial.ledger import Entry, spent
from tuner.trial.results import TrialResult, TrialState
from tuner.trial.seams import Reconfigurable


class Driver:
    """Runs trials until the budget is spent or nothing is left that could win.

    ``best`` names the trial that would win if the study ended with the given ones.
    """

    def __init__(self, assignment: Assignment, best: Callable[[Sequence[TrialResult]], TrialResult | None]) -> None:
        self._p, self._best = assignment, best
        self._state = threading.Condition()
        self._running: dict[int, Running] = {}
        self._told: set[int] = set()
        self._failure: BaseException | None = None
        self._changed = True
        self._seen: Snapshot | None = None
        self._why: str | None = None  # nothing more is launched: the part of the budget that is spent
        self._overrun: str | None = None
        self._time = StudyTime(assignment.clock, assignment.store.pulse(assignment.study).study_s)
        p = assignment
        self._claims = Claims(p.store, p.launcher, p.study, p.request, p.nodes, p.driver)
        self._waiting: Proposal | None = None  # for devices that other studies hold
        self._blocked: Blocked | None = None
        self._held: str | None = None
        self._heartbeat = Heartbeat(self._beat)
        self._cancel = CancelHandle()  # of all its trials: set with the assignment's, and on a defect of ours
        self._listening = ExitStack()
        self._search: Search | None = None
        running = self._running
        self._trials = TrialRun(
            p, self._state, self._cancel, self._claims, running.values, self._out_of_budget, self._beat
        )

    def __enter__(self) -> Driver:
        """Give signs of life from here on, and be at work."""
        self._heartbeat.start()  # before the state: a running study without a driver is ended by the next that leaves
        self._listening.enter_context(self._p.cancel.listening(self._cancel.cancel))
        try:
            self._p.store.change_state(self._p.study, StudyState.RUNNING)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the study to other drivers."""
        self._listening.close()
        self._heartbeat.stop()
        self._beat()
        self._p.store.leave(self._p.study, self._p.driver)

    def clear_orphans(self) -> list[str]:
        """Tear down what dead drivers left, and forget their unfinished trials: they run again from the start."""
        removed, p = [], self._p
        for trial in p.store.take_over(p.study, p.driver, is_gone):
            if p.launcher.remove_orphan(trial.app):
                removed.append(trial.app)
            p.store.forget_trial(p.study, trial.number, p.driver, self._study_s())
        return removed

    def run(self, search: Search, known: Sequence[TrialResult]) -> str | None:
        """Launch and measure; the answer says which part of the budget ended that, None where nothing is left that is
        worth a launch. ``known``: trials that are finished.

        Raises Cancelled where that was asked. Whatever ends it before its time, that or a defect of ours, tears down
        what runs and records it as cancelled.
        """
        self._search = search
        self._told = {trial.number for trial in known}
        try:
            self._tell_beliefs(search)
            return self._loop(search)
        except BaseException as error:
            self._cancel.cancel(*cause_of(error))
            self._wait_for_trials()
            raise

    def _loop(self, search: Search) -> str | None:
        while True:
            with self._state:
                self._cancel.raise_if_cancelled()
                if self._failure is not None:
                    raise self._failure
                pulse = self._pulse()
                begun = self._next(search, pulse)
                if self._waiting is None:
                    self._claims.leave_line()
                self._time.wait(self._waiting is not None and not self._running)
                if begun is None:
                    if self._held is not None and not (self._running or self._changed):
                        self._p.observer.ended(self._held)
                        raise Cancelled(Cause.QUOTA, self._held)
                    if not (self._running or self._others(pulse) or self._changed or self._waiting):
                        self._beat()  # what is decided counts the study's time up to here
                        return self._why
                    self._state.wait(OTHERS_S)
                    continue
            if self._p.launcher.parallel == 1:
                self._work(begun, search)
            else:
                begun.thread = threading.Thread(target=self._work, args=(begun, search), name=begun.trial.app)
                begun.thread.start()

    def _pulse(self) -> Pulse:
        """Whether anything has happened in the study; what dead drivers left is cleared."""
        store, study = self._p.store, self._p.study
        pulse = store.pulse(study)
        silent_s = {driver.driver: driver.silent_s for driver in pulse.drivers}
        if any(is_gone(owner, silent_s.get(owner)) for owner in self._others(pulse)):
            self.clear_orphans()
            pulse = store.pulse(study)
        return pulse

    def _next(self, search: Search, pulse: Pulse) -> Running | None:
        """Claim the next trial that has room, or None; reads and asks again only when something has changed since."""
        p = self._p
        self._changed = self._changed or self._seen is None or pulse.mark != self._seen.pulse.mark
        if len(self._running) >= p.launcher.parallel:
            return None
        waiting, self._waiting = self._waiting, None
        if not self._changed:
            return self._claimed(waiting, search) if waiting is not None and self._may_launch() else None
        self._changed = False
        self._seen = seen = p.store.snapshot(p.study)
        self._recall(search, seen)
        purse = self._purse(seen.entries)
        self._held = None
        if (empty := purse.empty()) is not None:
            self._why = f"{empty} is spent"
            return None
        starts = StartForecast(p.request, seen.finished)
        self._overrun = None
        running = [trial.deployment for trial in seen.open]
        proposal = search.ask(running, lambda layout: self._fits(layout, seen.open, purse, starts))
        if proposal is None:
            self._why = self._overrun
            return None
        return self._claimed(proposal, search) if self._may_launch() else None

    def _may_launch(self) -> bool:
        self._held = self._p.held()
        return self._held is None

    def _fits(self, layout: Deployment, held: Sequence[OpenTrial], purse: Purse, starts: StartForecast) -> bool:
        least_s = starts.least_s(layout) + usual_load_s(self._p.request)
        if (overrun := purse.overrun(layout, least_s)) is not None:
            self._overrun = f"{overrun} leaves no time for another trial"
            return False
        return self._placed(layout, held) is not None

    def _claimed(self, proposal: Proposal, search: Search) -> Running | None:
        p = self._p
        layout, launches = proposal.deployment, p.request.budget.launches
        price = p.price(layout)
        claim = TrialClaim(p.driver, layout, proposal.purpose, proposal.repeat, self._study_s(), price, p.log_root)
        trial = self._claims.claim(claim, partial(self._placed, layout))
        if isinstance(trial, Blocked):
            told, self._waiting, self._blocked = self._blocked, proposal, trial
            self._time.wait(not self._running)
            if told != trial:
                p.observer.waiting(proposal, trial)
            return None
        self._changed, self._waiting, self._blocked = True, None, None
        if trial is None:  # another driver was faster, or left it when it was cancelled
            self.clear_orphans()
            return None
        self._running[trial.number] = begun = Running(trial, proposal, p.clock())
        self._beat()
        p.observer.trial_started(trial.number, launches, proposal)
        return begun

    def _placed(
        self, layout: Deployment, held: Sequence[OpenTrial], others: Sequence[Reservation] = ()
    ) -> Placement | None:
        reservations = list(others)
        for trial in held:
            mine = self._running.get(trial.number)
            measuring = mine is not None and mine.phase is Phase.MEASURING
            if trial.placement is not None:
                reservations.append(Reservation(trial.placement, measuring, mine is not None))
        return place(layout, self._p.nodes, reservations, self._p.request.isolation)

    def _work(self, begun: Running, search: Search) -> None:
        """One trial from its launch to the record of its end, and those that follow it on its engine. What goes wrong
        with us, not with it, ends the study."""
        following: Running | None = begun
        try:
            while following is not None:
                begun = following
                following = self._ended(begun, search)
        except LeaseLost:
            begun.teardown()  # another driver has it, and has begun it again
        except BaseException as error:
            self._failure = self._failure or error
            begun.teardown()
        finally:
            with self._state:
                self._running.pop(begun.trial.number, None)
                self._changed = True
                self._state.notify_all()

    def _ended(self, running: Running, search: Search) -> Running | None:
        """Run a trial and record it; the answer is the one that goes on with its engine, which else is torn down."""
        p, result = self._p, self._trials.run(running, search)
        following, result = self._handed_over(running, result, search)
        if following is None:
            running.teardown()
        with self._state:
            if following is None:
                result = self._trials.timed(result, running)
                p.store.finish_trial(p.study, result, p.driver)
            self._beat()
            self._told.add(result.number)
            search.tell(result)
            p.observer.trial_finished(result)
            self._tell_best()
            self._tell_beliefs(search)
            if following is not None:
                p.observer.trial_started(following.trial.number, p.request.budget.launches, following.proposal)
        return following

    def _handed_over(self, running: Running, result: TrialResult, search: Search) -> tuple[Running | None, TrialResult]:
        """The next trial on the engine of one that was measured, if any is worth it, and the end of that one."""
        p, deployment = self._p, running.deployment
        if result.state is TrialState.FAILED or deployment is None:
            return None, result
        with self._state:
            purse = self._purse(p.store.ledger(p.study))
            least_s = usual_load_s(p.request, warm=True)
            over = purse.empty(but_launches=True) or purse.overrun(result.deployment, least_s, launches=0)
            if over is not None or self._cancel.cause is not None:
                return None, result
            timed = self._trials.timed(result, running)
            for proposal in search.on_its_engine(timed):
                if not (proposal.repeat or isinstance(deployment, Reconfigurable)):
                    continue
                price = p.price(proposal.deployment)
                claim = TrialClaim(
                    p.driver, proposal.deployment, proposal.purpose, proposal.repeat, self._study_s(), price, p.log_root
                )
                trial = p.store.hand_over(p.study, timed, claim)
                if trial is not None:  # else another driver has launched that layout
                    trial = replace(trial, lease=running.trial.lease)
                    following = Running(trial, proposal, running.began_at + (timed.seconds or 0.0), Phase.MEASURING)
                    following.deployment, following.thread = deployment, running.thread
                    self._running[trial.number] = following
                    self._running.pop(running.trial.number)
                    return following, timed
        return None, result

    def _out_of_budget(self) -> str | None:
        empty = self._purse(self._p.store.ledger(self._p.study)).empty(but_launches=True)
        return None if empty is None else f"{empty} is spent"

    def _wait_for_trials(self) -> None:
        with self._state:
            left = list(self._running.values())
        for running in left:
            if running.thread is not None:
                running.thread.join()

    def _others(self, pulse: Pulse) -> frozenset[str]:
        return pulse.owners - {self._p.driver}

    def _recall(self, search: Search, seen: Snapshot) -> None:
        """Tell the search what other drivers found."""
        numbers = {trial.number for trial in seen.finished}
        if numbers - self._told:
            search.recall(seen.finished)
            self._told |= numbers

    def _tell_best(self) -> None:
        now = self._p.store.snapshot(self._p.study)
        self._p.observer.best_so_far(self._best(now.finished), self._purse(now.entries).spent)

    def _tell_beliefs(self, search: Search) -> None:
        found = search.believed()
        if found is not None:
            self._p.observer.believed(found)

    def _purse(self, entries: Sequence[Entry]) -> Purse:
        p = self._p
        return Purse(p.request.budget, spent(entries, self._study_s(), p.price), p.price)

    def _study_s(self) -> float:
        """The study's own time: it goes by while at least one driver works on it, and has devices to work with."""
        return self._time.now_s()

    def _beat(self) -> None:
        self._p.store.beat(self._p.study, self._p.driver, self._study_s())
