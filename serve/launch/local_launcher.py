"""Brings layouts up as a local ``vllm`` server process, for machines without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from serve.launch.deployed import Deployed
from serve.launch.device import cluster_of
from serve.launch.engine import environment, served_model_id, vllm_args
from serve.launch.engine_processes import EngineProcesses, ended_with
from serve.launch.failure import crash, replica_died
from serve.launch.health import Waiting, served_models, warm_up
from serve.launch.logs import SEARCHED_LINES, SHOWN_LINES, tail
from serve.launch.processes import (
    LauncherRecord,
    ProcessId,
    end,
    free_port,
    group_of,
    identify,
    require_free_port,
    sweep,
    writers_under,
)
from tuner.ask.deployment import UNLAUNCHED, Deployment, TwoPools
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.trial.launched import ENGINES, Launched, VllmServer, installed, model_source
from tuner.trial.seams import LaunchOrder, Watch

KIND = "local-process"
HOST = "127.0.0.1"
POLL_S = 0.25
STOP_PATIENCE_S = 10.0


class LocalProcessLauncher:
    """Implements ``tuner.trial.seams.Launcher`` with ``python -m vllm.entrypoints.openai.api_server`` on one node.

    ``port`` is where each server listens, on the loopback only; None takes a free one each time. ``state_dir`` is
    where it is written what a kill would leave behind; what dead runs left there is removed before anything starts.
    Raises BadInput for a port in use.
    """

    def __init__(self, port: int | None, *, state_dir: Path) -> None:
        self._port = port
        self._swept = sweep(state_dir, KIND)
        self._record = LauncherRecord(state_dir, KIND)
        self._live: dict[str, LocalProcessDeployment] = {}
        if port is not None:
            require_free_port(port, "http_port")

    @property
    def name(self) -> str:
        """``local-process``."""
        return "local-process"

    @property
    def parallel(self) -> int:
        """One: nothing here gives each server devices of its own."""
        return 1

    @property
    def versions(self) -> dict[str, str]:
        """Of vLLM; there is no Ray in it."""
        return installed(*(name for name in ENGINES if name != "ray"))

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        """See ``tuner.trial.seams.Launcher``: a process without Ray has no Ray executor, and stays on its node."""
        if isinstance(deployment, TwoPools):
            return UNLAUNCHED
        if deployment.executor == "ray":
            return "executor ray; a local process runs mp or uni"
        return _misplaced(deployment, request)

    def launch(self, order: LaunchOrder, watch: Watch) -> LocalProcessDeployment:
        """See ``tuner.trial.seams.Launcher``. Raises BadInput where the port was taken in the meantime."""
        started = time.perf_counter()
        _require_devices(order)
        port = self._port or free_port()
        require_free_port(port, "http_port")
        logs = order.log_dir.resolve() / order.app
        logs.mkdir(parents=True, exist_ok=True)
        self._record.add("directories", logs)
        self._record.add("apps", order.app)
        source = model_source(order.request.model)
        server = _server(order, source, port)
        process = _spawn(server, logs)
        deployment = LocalProcessDeployment(
            process=process,
            url=f"http://{HOST}:{port}",
            model_id=served_model_id(order.request),
            launched=Launched(self.name, self.versions, source, server),
            logs=logs,
            on_teardown=lambda: self._forget(order.app, logs),
        )
        self._live[order.app] = deployment
        try:
            deployment.wait_until_ready(order, started, Waiting(watch))
        except LaunchFailed as error:
            lines = error.log_tail or deployment.log_tail(SHOWN_LINES)
            deployment.teardown()
            raise LaunchFailed(error.reason, error.detail, lines) from None
        except BaseException:
            deployment.teardown()
            raise
        return deployment

    def remove_orphan(self, app: str) -> bool:
        """See ``tuner.trial.seams.Launcher``; orphans are ended when the launcher is made, and named here."""
        orphan = app in self._swept
        self._swept.discard(app)
        return orphan

    def close(self) -> None:
        """Tear down what is still up."""
        for deployment in list(self._live.values()):
            deployment.teardown()
        self._record.close()

    def _forget(self, app: str, logs: Path) -> None:
        self._live.pop(app, None)
        self._record.drop("apps", app)
        self._record.drop("directories", logs)


class LocalProcessDeployment(Deployed):
    """Implements ``tuner.trial.seams.Deployment`` for one server process and the engine processes below it."""

    def __init__(
        self,
        *,
        process: subprocess.Popen[bytes],
        url: str,
        model_id: str,
        launched: Launched,
        logs: Path,
        on_teardown: Callable[[], None],
    ) -> None:
        super().__init__(url, model_id, launched)
        self._process = process
        self._logs, self._on_teardown = logs, on_teardown
        self._leader = identify(process.pid)
        self._engine = EngineProcesses()
        self._ready: frozenset[ProcessId] | None = None

    @property
    def metrics_urls(self) -> tuple[str, ...]:
        """Where the server shows its engines' own metrics."""
        return (f"{self._url}/metrics",)

    def failure(self) -> tuple[FailureReason, str] | None:
        """REPLICA_DIED where the server, or an engine process that it had when it was ready, has ended."""
        if self._down or self._ready is None:
            return None
        lost, code = self._engine.look(self._leaders), self._process.poll()
        if code is not None:
            what = f"the server {ended_with(code)}"
        elif lost:
            what = "; ".join(str(process) for process in lost)
        elif ended := sorted(process.pid for process in self._ready if not process.alive):
            what = f"{len(ended)} of its processes ended: {ended}"
        else:
            return None
        return replica_died(what, self.log_tail(SEARCHED_LINES))

    def log_tail(self, lines: int = SHOWN_LINES) -> tuple[str, ...]:
        """The server's and engine's last log lines, oldest first."""
        return tail(self._logs.glob("*.log"), lines)

    def teardown(self) -> None:
        """End the server's process group and wait until it is gone."""
        if self._down:
            return
        members = group_of(self._leader) if self._leader is not None else ()
        end({*members, *writers_under([self._logs])}, patience_s=STOP_PATIENCE_S)
        self._process.wait()
        self._down = True
        self._on_teardown()

    def wait_until_ready(self, order: LaunchOrder, started: float, waiting: Waiting) -> None:
        """Return once the server has answered; raises LaunchFailed where it ends or takes too long, or Cancelled."""
        limit_s = order.request.engine.start_timeout_s
        answered = False
        while not answered:
            elapsed_s = time.perf_counter() - started
            if self._ended():
                raise self._crashed()
            if elapsed_s > limit_s:
                raise LaunchFailed(FailureReason.START_TIMED_OUT, f"not ready within {limit_s:g} s")
            if waiting.answer(self._lists_its_model):
                waiting.on("waiting for the first answers", elapsed_s)
                left_s = max(1.0, limit_s - elapsed_s)
                answered = waiting.answer(partial(self._warm_up, order.layout.dp, left_s))
            else:
                waiting.on("waiting for the engine", elapsed_s)
            waiting.pause(0 if answered else POLL_S)
        if self._leader is not None:
            self._ready = frozenset(group_of(self._leader))
        self._ready_after_s = time.perf_counter() - started

    def _ended(self) -> bool:
        """True once the server has ended, or had the time to after a process of its engine did."""
        self._engine.look(self._leaders)
        return self._process.poll() is not None or self._engine.lost_for_long

    def _crashed(self) -> LaunchFailed:
        code = self._process.poll()
        fallback = "the server hangs" if code is None else f"the server {ended_with(code)}"
        lost = self._engine.look(self._leaders)
        return crash(self.log_tail(SEARCHED_LINES), f"{fallback} before it was ready", status=code, lost=lost)

    @property
    def _leaders(self) -> tuple[ProcessId, ...]:
        return () if self._leader is None else (self._leader,)

    def _lists_its_model(self) -> bool:
        return self._model_id in served_models(self._url, timeout_s=5.0)

    def _warm_up(self, replicas: int, timeout_s: float) -> bool:
        return warm_up(self._url, self._model_id, replicas, timeout_s=timeout_s)


def _misplaced(layout: ParallelLayout, request: TuneRequest) -> str | None:
    per_node = cluster_of(layout, request).gpus_per_node
    if layout.devices <= per_node:
        return None
    return f"{layout} needs {layout.devices} devices; a local process has the {per_node} of one node"


def _require_devices(order: LaunchOrder) -> None:
    if (detail := _misplaced(order.layout, order.request)) is not None:
        raise LaunchFailed(FailureReason.PLACEMENT_IMPOSSIBLE, detail)
    if order.layout.executor == "ray":
        raise BadInput("layout.executor", "ray", "mp, uni (a local process runs without Ray)")


def _server(order: LaunchOrder, source: str, port: int) -> VllmServer:
    words = vllm_args(order.layout, order.request, model_source=source, host=HOST, port=port)
    return VllmServer(tuple(words), environment(order.layout, order.request, model_source=source))


def _spawn(server: VllmServer, logs: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *server.arguments]
    # A session of its own: Ctrl-C at the terminal reaches this process only, which then ends the server in order.
    with (logs / "engine.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | server.environment,
            start_new_session=True,
        )
