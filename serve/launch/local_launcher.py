"""Brings layouts up as a local ``vllm`` server process, for machines without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from serve.launch.device import cluster_of
from serve.launch.engine import environment, served_model_id, vllm_args
from serve.launch.engine_caches import NO_CACHES, EngineCaches
from serve.launch.health import Waiting
from serve.launch.local_deployment import LocalProcessDeployment
from serve.launch.processes import (
    LauncherRecord,
    free_port,
    require_free_port,
    sweep,
)
from serve.launch.vllm_server import SPAWN, python_words, several
from tuner.ask.deployment import UNLAUNCHED, Deployment, TwoPools
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.trial.launched import ENGINES, Launched, VllmServer, installed, model_source
from tuner.trial.seams import LaunchOrder, Watch
from tuner.trial.shared import SharedCluster, this_machine

KIND = "local-process"
_OF_RAY = ("stream_interval_ms", "ingress_replicas", "request_router", "serve_mode")
HOST = "127.0.0.1"


class LocalProcessLauncher:
    """Implements ``tuner.trial.seams.Launcher`` with vLLM's own server on one node.

    ``port`` is where each server listens, on the loopback only; None takes a free one each time. ``state_dir`` is
    where it is written what a kill would leave behind; what dead runs left there is removed before anything starts.
    ``caches`` is where engines keep what they compile. Raises BadInput for a port in use.
    """

    def __init__(self, port: int | None, *, state_dir: Path, caches: EngineCaches = NO_CACHES) -> None:
        self._port, self._state_dir, self._caches = port, state_dir, caches
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
    def cluster(self) -> SharedCluster:
        """This machine: each server would take whichever of its devices come first."""
        return this_machine()

    @property
    def in_place(self) -> frozenset[str]:
        """Nothing: vLLM's own server reads its settings when it starts."""
        return frozenset()

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
        if (asked := _through_ray(deployment)) is not None:
            return f"{'='.join(asked)}; a local process is vLLM's own server, front auto or vllm"
        return _misplaced(deployment, request)

    def launch(
        self, order: LaunchOrder, watch: Watch, *, gone: Callable[[str], None] = lambda _: None
    ) -> LocalProcessDeployment:
        """See ``tuner.trial.seams.Launcher``; ``gone`` is told the app once it is torn down.

        Raises BadInput where the port was taken in the meantime.
        """
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
        process = _spawn(server, logs, self._caches.environment())
        deployment = LocalProcessDeployment(
            process=process,
            url=f"http://{HOST}:{port}",
            model_id=served_model_id(order.request),
            launched=Launched(self.name, self.versions, source, server),
            logs=logs,
            on_teardown=lambda: self._forget(order.app, logs, gone),
        )
        self._live[order.app] = deployment
        with deployment.ended_unless_ready():
            deployment.wait_until_ready(order, started, Waiting(watch))
        return deployment

    def remove_orphan(self, app: str) -> bool:
        """See ``tuner.trial.seams.Launcher``; orphans are ended when the launcher is made, and named here."""
        if app not in self._swept and app not in self._live:
            self._swept |= sweep(self._state_dir, KIND)  # of a process that has died since
        orphan = app in self._swept
        self._swept.discard(app)
        return orphan

    def close(self) -> None:
        """Tear down what is still up."""
        for deployment in list(self._live.values()):
            deployment.teardown()
        self._record.close()

    def _forget(self, app: str, logs: Path, gone: Callable[[str], None]) -> None:
        self._live.pop(app, None)
        self._record.drop("apps", app)
        self._record.drop("directories", logs)
        gone(app)


def _through_ray(layout: ParallelLayout) -> tuple[str, str] | None:
    """What of a layout's front is Ray Serve's alone: an axis and its value; None where nothing is."""
    wanted = layout.canonical
    if wanted.front not in ("auto", "vllm"):
        return "front", wanted.front
    asked = ((name, getattr(wanted, name)) for name in _OF_RAY if getattr(wanted, name) != AXES[name].default)
    return next(((name, str(value)) for name, value in asked), None)


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
    if (asked := _through_ray(order.layout)) is not None:
        name, value = asked
        raise BadInput(f"layout.{name}", value, "what vLLM's own server has: front auto or vllm")


def _server(order: LaunchOrder, source: str, port: int) -> VllmServer:
    words = vllm_args(order.layout, order.request, model_source=source, host=HOST, port=port)
    variables = environment(order.layout, order.request, model_source=source)
    return VllmServer(tuple(words), variables | (SPAWN if several(words) else {}))


def _spawn(server: VllmServer, logs: Path, caches: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, *python_words(server.arguments)]
    # A session of its own: Ctrl-C at the terminal reaches this process only, which then ends the server in order.
    with (logs / "engine.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | server.environment | caches,  # of this machine alone: no part of the record
            start_new_session=True,
        )
