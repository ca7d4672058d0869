"""A service on loopback as the page's tests need it: stopped and started again, with studies that stop where they
should be looked at."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes import copy_of_empty_store, document
from tuner.app.service.application import application
from tuner.app.service.server import Server
from tuner.app.service.service import Settings
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.app.tune.event_recorder import EventRecorder
from tuner.app.wiring import write_results
from tuner.ask.cluster import Cluster, requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.request_document import parse_request
from tuner.errors import Cancelled, Cause, FailureReason
from tuner.rehearse.cluster import SimulatedCluster
from tuner.rehearse.conditions import SEED_FACT, Conditions
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.rehearse.meter import SimulatedMeter
from tuner.study.lease import is_gone, new_driver
from tuner.study.lifecycle import StudyState
from tuner.study.observer import Observer
from tuner.study.orders import Terms
from tuner.study.runner import StudyOrder, run_study
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle
from tuner.trial.results import StepResult

WIDE: dict[str, Any] = {  # what wins has eight ranks on two nodes
    "model": "meta-llama/Llama-3.3-70B-Instruct", "cluster.nodes": 2, "cluster.gpus_per_node": 4,
    "space": {"tp": [1, 2, 4], "pp": [1, 2], "dp": [1, 2], "max_num_seqs": [32, 128]},
    "workload.arrival.requests_per_s": 6, "load.rates_req_per_s": [2, 4, 6], "slo.0.ms": 150,
    "objective": ["min_latency", "min_gpus"], "budget.launches": 6, "budget.gpu_hours": 4.0,
}  # fmt: skip


class PageService:
    """The service, and a worker that works when it is told to."""

    def __init__(self, folder: Path, open_to_all: bool = True) -> None:
        self.store = Store(copy_of_empty_store(folder / "store.db"))
        self._folder, self._open, self.port = folder, open_to_all, 0
        self.start()

    def start(self) -> None:
        """Answer, at the same address as before."""
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        app = application(self.store, Settings(("simulated",), self._folder / "out"), open_to_all=self._open)
        self._stop = CancelHandle()
        self._thread = threading.Thread(target=Server(app, listening).run, args=(self._stop,))
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._stop.cancel(Cause.SHUTDOWN)
        self._thread.join()

    def close(self) -> None:
        """The end."""
        self.stop()
        self.store.close()

    def work(self) -> int:
        """Run all that waits; how many studies that was."""
        settings = WorkerSettings(("simulated",), None, self._folder / "out")
        return Worker(self.store, settings, CancelHandle()).run(until_idle=True)

    @property
    def url(self) -> str:
        """Of its page."""
        return f"http://127.0.0.1:{self.port}/"

    def submit(self, name: str, changes: Mapping[str, Any] | None = None) -> None:
        """Queue a study, with changes to the tests' request."""
        self.store.orders.submit(name, parse_request(document(changes or {})), Terms("", "simulated", seed=0))

    def run(self, name: str, failures: Mapping[str, FailureReason] | None = None, told: Observer | None = None) -> None:
        """Run a queued study as a worker does, on a cluster where some layouts fail."""
        store, driver, folder = self.store, new_driver(), self._folder / "out" / name
        order = store.orders.claim(driver, ("simulated",), is_gone)
        assert order is not None
        assert order.study == name
        request = store.study(name).request
        cluster = requested_cluster(request)
        assert isinstance(cluster, Cluster)
        broken = {ParallelLayout.parse(layout): reason for layout, reason in (failures or {}).items()}
        world = SimulatedCluster(cluster, Conditions(term_error=0.1, noise=0.02, failures=broken))
        asked = StudyOrder(name, request, folder / "logs", True, {SEED_FACT: "0"})
        observers = [EventRecorder(store.events, name, request), *([told] if told else [])]
        try:
            decision = run_study(
                asked, store, SimulatedLauncher(world), SimulatedMeter(world), observers,
                clock=lambda: world.clock_s, driver=driver,
            )  # fmt: skip
            write_results(folder, store, store.study(name), decision)
            store.orders.release(name, driver, StudyState.DECIDED, is_gone)
        except Cancelled:
            store.orders.release(name, driver, StudyState.CANCELLED, is_gone)

    @contextmanager
    def half_way(
        self, name: str, trial: int = 2, failures: Mapping[str, FailureReason] | None = None
    ) -> Iterator[None]:
        """Run a queued study up to the first load step of that trial; it goes on behind the block."""
        hold = _Hold(trial)
        thread = threading.Thread(target=self.run, args=(name, failures, hold))
        thread.start()
        try:
            assert hold.reached.wait(120)
            yield
        finally:
            hold.go_on.set()
            thread.join()


class _Hold(Observer):
    """Holds a study at the first load step of a trial that counts."""

    def __init__(self, trial: int) -> None:
        self._trial, self.reached, self.go_on = trial, threading.Event(), threading.Event()

    def step_measured(self, number: int, result: StepResult) -> None:
        if number == self._trial and not result.step.warmup:
            self.reached.set()
            self.go_on.wait(3600)


def until(found: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait until it holds."""
    ends = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < ends, what
        time.sleep(0.1)
