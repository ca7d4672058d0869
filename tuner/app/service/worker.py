"""``parlay worker``: claims queued studies one after the other, and runs each to its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tuner.app.service.confine import confine
from tuner.app.service.obeying import Obedience
from tuner.app.service.presence import Presence, See, see_ray
from tuner.app.tune.bench import bench
from tuner.app.tune.event_recorder import EventRecorder
from tuner.app.tune.options import TuneOptions
from tuner.app.tune.telemetry import Telemetry
from tuner.app.tune.telemetry_observer import TelemetryObserver
from tuner.app.tune.trial_log import LogKeeper
from tuner.app.wiring import facts, write_results
from tuner.errors import Cancelled, Cause, ParlayError, StoreError, reason
from tuner.rehearse.conditions import SEED_FACT
from tuner.study.lease import is_gone, new_driver
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Order
from tuner.study.runner import StudyOrder, run_study
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

POLL_S = 0.5
MOST_PAUSE_S = 15.0  # between two tries to reach a store that is away
NODES_S = 10.0  # between two looks for nodes that are to come


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker runs on: its launchers, the Ray cluster that they use (None: one of its own), and its folder.

    ``roots`` are the folders whose files a request may name, as the service's. Of a ``cluster`` that is named it runs
    what is for that, and nothing before the Ray cluster has as many ``devices``."""

    launchers: tuple[str, ...]
    ray_address: str | None
    out: Path
    roots: tuple[Path, ...] = ()
    cluster: str | None = None
    devices: int = 0


class Worker:
    """Runs what waits in a store until it is told to end; then it gives back what it has."""

    def __init__(
        self,
        store: Store,
        settings: WorkerSettings,
        stop: CancelHandle,
        telemetry: Telemetry | None = None,
        see: See = see_ray,
    ) -> None:
        """``see`` asks the Ray cluster at an address what it has."""
        self._store, self._settings, self._stop = store, settings, stop
        self._telemetry = telemetry or Telemetry()
        self._presence = Presence(store.workers, settings.launchers, settings.ray_address, see)

    def run(self, *, until_idle: bool = False) -> int:
        """Work; how many studies were run. With ``until_idle`` it ends where nothing waits, else when ``stop`` is set.

        A store that cannot be reached for a while is asked again.
        """
        with self._presence:
            return self._work(until_idle)

    def _work(self, until_idle: bool) -> int:
        done = 0
        self._await_devices()
        while self._stop.cause is None:
            try:
                self._presence.look()
                if (order := self._claim(driver := new_driver())) is not None:
                    self._run(order, driver)
                    done += 1
                    continue
                # What is left undone is files, and those of a cluster that goes with its study go with it.
                left = self._store.orders.claim_left(driver, is_gone) if self._settings.cluster is None else None
                if left is not None:
                    self._finish(left, driver)
                    continue
            except StoreError:
                if until_idle:
                    raise
            if until_idle:
                return done
            try:
                self._stop.wait(POLL_S)
            except Cancelled:
                return done
        return done

    def _claim(self, driver: str) -> Order | None:
        named, sees = self._settings.cluster, self._presence.sees_ray
        return self._store.orders.claim(driver, self._settings.launchers, is_gone, sees_ray=sees, cluster=named)

    def _await_devices(self) -> None:
        """Until the cluster has its nodes: a study that begins before finds no room for its trials."""
        with suppress(Cancelled):
            while self._settings.devices > self._presence.devices:
                self._presence.look(again=True)
                if self._settings.devices > self._presence.devices:
                    self._stop.wait(NODES_S)

    def _run(self, order: Order, driver: str) -> None:
        """One study, to whatever end; none of its errors ends the worker. Its metrics stay until the next begins."""
        self._telemetry.forget_all_but(order.study)
        problem: str | None = None
        held: str | None = None
        cancel, again = CancelHandle(), ""
        self._presence.runs(order.study)
        with Obedience(self._store.orders, order.study, driver, self._stop, cancel) as obedience:
            try:
                self._drive(order, driver, cancel, obedience)
            except Cancelled as end:  # the study's state says how
                held = end.words if end.cause is Cause.QUOTA else None
            except (StoreError, _ClusterAway) as error:
                again = str(error)  # it says nothing of the study
            except Exception as error:  # a fault of ours must not take the queue with it
                problem = reason(error)
        self._presence.runs(None)
        if again:
            self._give_back(order, driver, again)
            return
        after = StudyState.FAILED if problem is not None else _after(Cause.QUOTA if held else cancel.cause)
        self._patiently(lambda: self._store.orders.release(order.study, driver, after, is_gone, problem or held))

    def _give_back(self, order: Order, driver: str, why: str) -> None:
        """A study that this worker could not go on with, as the store or its cluster was away: another does, or this
        one again."""

        def release() -> None:
            if self._store.listing.state(order.study) is StudyState.DECIDED:
                self._finish(order, driver)
            else:
                self._store.orders.try_again(order.study, driver, is_gone, why)

        self._patiently(release)

    def _patiently(self, call: Callable[[], None]) -> None:
        """Until the store takes it, or the worker is told to end: then its lease runs out, which comes to the same."""
        pause_s = POLL_S
        while True:
            try:
                return call()
            except StoreError:
                try:
                    self._stop.wait(pause_s)
                except Cancelled:
                    return None
                pause_s = min(2 * pause_s, MOST_PAUSE_S)

    def _finish(self, order: Order, driver: str) -> None:
        """Do what a worker left undone that died behind its study's end: the files of the decision."""
        problem = order.problem
        try:
            record, decision = self._store.study(order.study), self._store.decision(order.study)
            if decision is not None and record.state is StudyState.DECIDED:
                write_results(self._folder(order.study), self._store, record, decision)
        except StoreError:
            raise
        except Exception as error:
            problem = f"its files could not be written: {error}"
        self._store.orders.release(order.study, driver, StudyState.DECIDED, is_gone, problem)

    def _held(self, order: Order) -> str | None:
        """Why a study may launch nothing for now: its account has spent its GPU-hours. Simulated ones cost none."""
        owner = order.terms.owner
        standing = None if order.terms.seed is not None else self._store.quotas.standing(owner)
        return None if standing is None or standing.frees_at is None else f"the quota of {owner}: {standing.words}"

    def _folder(self, study: str) -> Path:
        return self._settings.out / study

    def _find_cluster(self, order: Order) -> None:
        """Look what the cluster has now, for a study that asked for whatever is there and has not begun."""
        if not order.discovers or self._store.study(order.study).facts:
            return
        groups = self._presence.look(again=True)
        if groups is None:
            raise _ClusterAway("the Ray cluster does not answer")
        self._store.orders.found_cluster(order.study, groups)

    def _drive(self, order: Order, driver: str, cancel: CancelHandle, obedience: Obedience) -> None:
        self._find_cluster(order)
        record, folder = self._store.study(order.study), self._folder(order.study)
        confine(record.request.model_dump(), self._settings.roots)  # a link may have changed since it was asked
        known = facts()
        if order.terms.seed is not None:
            known[SEED_FACT] = str(order.terms.seed)
        asked = StudyOrder(order.study, record.request, folder / "logs", True, known)
        options = TuneOptions(
            request_file=folder / "request.yaml",
            out=self._settings.out,
            launcher=order.terms.launcher,
            ray_address=self._settings.ray_address,
            simulated_seed=order.terms.seed or 0,
        )
        recorder = EventRecorder(self._store.events, order.study, record.request)
        keeper = LogKeeper(self._store.logs, order.study, asked.log_root)
        observers = (obedience, recorder, keeper, TelemetryObserver(order.study, record.request, self._telemetry))
        with bench(options, asked.setting().cluster) as made, keeper:
            decision = run_study(
                asked, self._store, made.launcher, made.meter, observers, cancel, clock=made.clock, driver=driver,
                held=partial(self._held, order),
            )  # fmt: skip
        obedience.keep()  # the study's driver has left it, its worker has not
        write_results(folder, self._store, self._store.study(order.study), decision)


class _ClusterAway(ParlayError):
    """The cluster on which a study is to run cannot be asked what it has."""


def _after(cause: Cause | None) -> StudyState:
    """The state of a study whose worker was asked to end it before it had begun."""
    states = {Cause.PAUSE: StudyState.PAUSED, Cause.QUOTA: StudyState.PAUSED, Cause.HANDOVER: StudyState.QUEUED}
    return StudyState.CANCELLED if cause is None else states.get(cause, StudyState.CANCELLED)
