"""One application of Ray Serve LLM, from its order to its teardown."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from serve.launch.deployed import POLL_S, Deployed
from serve.launch.engine import served_model_id
from serve.launch.engine_processes import EngineProcesses
from serve.launch.failure import crash, replica_died
from serve.launch.health import Waiting
from serve.launch.in_place import apply, changed, settled
from serve.launch.logs import SEARCHED_LINES, SHOWN_LINES, keep, show, tail
from serve.launch.processes import end, group_of
from serve.launch.ray_api import delete_application, groups_pending, own_ip, ray_logs, serve_details
from serve.launch.replicas import ReplicaHistory, last_message, messages, status_of
from tuner.ask.layout import ParallelLayout
from tuner.errors import FailureReason, LaunchFailed
from tuner.trial.launched import Launched, RayApplication
from tuner.trial.seams import LaunchOrder, Watch

STOP_PATIENCE_S = 5.0
CHANGE_PATIENCE_S = 120.0  # an ingress replica imports Ray Serve LLM, which takes seconds on cores that are free


class RayServeDeployment(Deployed):
    """Implements ``tuner.trial.seams.Deployment`` for one Ray Serve application."""

    lists_within_s = 10.0

    def __init__(self, order: LaunchOrder, url: str, launched: Launched, on_teardown: Callable[[str], None]) -> None:
        super().__init__(url, served_model_id(order.request), launched)
        self._order, self._on_teardown = order, on_teardown
        self._layout = order.layout
        self._history = ReplicaHistory()
        self._engine = EngineProcesses()
        self._ready: frozenset[str] | None = None
        self._up = 0  # replicas with an engine

    def failure(self) -> tuple[FailureReason, str] | None:
        """REPLICA_DIED where a replica that was ready is gone, replaced or no longer running."""
        if self._down or self._ready is None:
            return None
        application = self._application()
        if application is None:
            return FailureReason.REPLICA_DIED, "Ray Serve no longer knows the application"
        running = _running_ids(self._history.look(application, own_ip()))
        ended = "; ".join(str(process) for process in self._engine.look(self._history.leaders))
        if gone := self._ready - running:
            names = ", ".join(f"{self._history.seen[name].deployment}#{name}" for name in sorted(gone))
            what = f"not running any more: {names}" + (f"; {ended}" if ended else "")
        elif (status := status_of(application)) != "RUNNING":
            what = f"the application is {status}: {last_message(application)}"
        elif ended:
            what = ended
        else:
            return None
        return replica_died(what, self.log_tail(SEARCHED_LINES))

    def reconfigure(self, layout: ParallelLayout, watch: Watch) -> None:
        """See ``tuner.trial.seams.Reconfigurable``: the engine's replicas stay, those before them come and go."""
        started, waiting, record = time.perf_counter(), Waiting(watch), self._launched
        assert isinstance(record.payload, RayApplication)
        config = changed(record.payload.config, self._layout, layout, self._order.request, record.model_source)
        self._require_alive()
        watch.cancel.raise_if_cancelled()
        engines = frozenset(name for name in self._ready or () if self._history.seen[name].holds_engine)
        apply(config, self._known())
        while True:
            application, elapsed_s = self._known(), time.perf_counter() - started
            running = frozenset(_running_ids(self._history.look(application, own_ip())))
            if engines - running:
                self._require_alive()
            if settled(config, application):
                break
            if elapsed_s > CHANGE_PATIENCE_S:
                raise self._unchanged(layout, last_message(application))
            waiting.on("waiting for the ingress, the engine runs on", elapsed_s)
            waiting.pause(POLL_S)
        self._ready = running
        if not waiting.answer(partial(self._warm_up, len(running), CHANGE_PATIENCE_S)):
            self._require_alive()
            raise self._unchanged(layout, "its first requests were not answered")
        self._layout, self._launched = layout, replace(record, payload=replace(record.payload, config=config))
        self._ready_after_s = time.perf_counter() - started

    def _unchanged(self, layout: ParallelLayout, why: str) -> LaunchFailed:
        words = f"does not serve as {layout}, {CHANGE_PATIENCE_S:g} s after it was changed: {why}"
        return LaunchFailed(FailureReason.START_TIMED_OUT, words, self.log_tail())

    def _known(self) -> dict[str, Any]:
        application = self._application()
        if application is None:
            raise LaunchFailed(FailureReason.REPLICA_DIED, "Ray Serve no longer knows the application")
        return application

    def _require_alive(self) -> None:
        if (found := self.failure()) is not None:
            raise LaunchFailed(*found, self.log_tail())

    def log_tail(self, lines: int = SHOWN_LINES) -> tuple[str, ...]:
        """The engine's last log lines, oldest first; empty where its node's logs cannot be read from here."""
        engines = [replica for replica in self._history.seen.values() if replica.holds_engine]
        return tail(_log_files(engines, self._order.log_dir if self._down else ray_logs()), lines)

    def teardown(self) -> None:
        """Delete the application, wait until its processes are gone, and keep its logs."""
        if self._down:
            return
        try:
            application = self._application()
            if application is not None:
                self._history.look(application, own_ip())
                delete_application(self._order.app)
        except Exception as error:  # Ray may be gone, or going; its processes are ended below all the same
            logging.getLogger(__name__).debug("deleting %s: %s", self._order.app, error)
        # Engine processes stay in their replica's process group; those that outlive it would hold its devices.
        engines = (process for leader in self._history.leaders for process in group_of(leader))
        end(engines, patience_s=STOP_PATIENCE_S)
        keep(_log_files(self._history.seen.values(), ray_logs()), self._order.log_dir)
        self._down = True
        self._on_teardown(self._order.app)

    def _take_stock(self) -> None:
        self._ready = frozenset(_running_ids(self._history.seen.values()))

    def _is_up(self, waiting: Waiting, elapsed_s: float) -> bool:
        """True once the application runs; raises LaunchFailed as soon as one of its replicas has died."""
        application = self._application()
        if application is None:
            return False
        replicas = self._history.look(application, own_ip())
        show(_log_files(self._history.seen.values(), ray_logs()), self._order.log_dir)
        engines = [replica for replica in replicas if replica.holds_engine]
        if any(replica.worker_id for replica in engines):
            self._clock.process_seen(elapsed_s)
        self._clock.read(_log_files(engines, ray_logs()), elapsed_s)
        status = status_of(application)
        self._engine.look(self._history.leaders)
        ended = self._history.died(replicas) or self._engine.lost_for_long
        if ended or status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise self._crashed(application)
        self._up = sum(replica.state == "RUNNING" for replica in engines)
        if self._up >= self._order.layout.dp:
            self._clock.engine_seen(elapsed_s)
        return status == "RUNNING"

    @property
    def _progress(self) -> str:
        return f", {self._up} of {self._order.layout.dp} replicas up" if self._order.layout.dp > 1 else ""

    def _crashed(self, application: dict[str, Any]) -> LaunchFailed:
        fallback = last_message(application) or "a replica died before it was ready"
        lines = self.log_tail(SEARCHED_LINES) or messages(application)  # another node's logs cannot be read from here
        return crash(lines, fallback, lost=self._engine.look(self._history.leaders))

    def _timed_out(self, limit_s: float, caution: str | None) -> LaunchFailed:
        placed = any(replica.holds_engine and replica.worker_id for replica in self._history.seen.values())
        if not placed and groups_pending():
            detail = f"no room within {limit_s:g} s: others hold the cluster's devices"
            return LaunchFailed(FailureReason.PLACEMENT_IMPOSSIBLE, detail)
        return super()._timed_out(limit_s, caution)

    def _application(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = serve_details()["applications"].get(self._order.app)
        return found


def _running_ids(replicas: Any) -> set[str]:
    return {replica.replica_id for replica in replicas if replica.state == "RUNNING"}


def _log_files(replicas: Any, directory: Path | None) -> list[Path]:
    names = [replica.worker_id for replica in replicas if replica.worker_id]
    return [] if directory is None else [file for name in names for file in directory.glob(f"worker-{name}-*")]
