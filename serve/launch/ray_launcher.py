"""Brings layouts up on Ray Serve LLM, on a cluster that runs or on a local Ray of its own.

Ray, vLLM and torch are imported when the first layout is launched, not before.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from serve.launch.device import cluster_of
from serve.launch.engine import attention_dp, check_served, refused, serve_app
from serve.launch.engine_caches import NO_CACHES, EngineCaches, with_variables
from serve.launch.fronts import too_old, variables
from serve.launch.health import Waiting
from serve.launch.in_place import IN_PLACE
from serve.launch.local_launcher import LocalProcessLauncher
from serve.launch.processes import LauncherRecord, sweep
from serve.launch.ray_api import (
    delete_application,
    deploy_application,
    head_node,
    live_nodes,
    serve_details,
    serve_runs,
)
from serve.launch.ray_deployment import RayServeDeployment
from serve.launch.ray_nodes import demand, fits, home_of, pinned
from serve.launch.ray_session import RaySession
from serve.launch.turns import Turns
from tuner.ask.deployment import UNLAUNCHED, Deployment, TwoPools
from tuner.ask.layout import ParallelLayout
from tuner.ask.packing import unplaceable
from tuner.ask.request import ClusterSpec, TuneRequest
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.trial.launched import ENGINES, Launched, RayApplication, installed, model_source
from tuner.trial.seams import LaunchOrder, RunningDeployment, Watch
from tuner.trial.shared import SharedCluster, this_machine

KIND = "ray-local"
_JOINED = "front=vllm starts no Ray, and a cluster that runs has one: --launcher local, or a Ray of Parlay's own"
MANY = 10_000  # the cluster's room is the limit


class RayServeLauncher:
    """Implements ``tuner.trial.seams.Launcher`` on Ray Serve LLM.

    ``address`` is ``HOST:PORT`` of a running cluster's head (or ``auto``); None starts a Ray on this machine, on the
    loopback only, with one CPU per device where devices are CPUs. One Ray and one Serve serve all trials, and those of
    other launchers of this process on the same cluster; another cluster is refused at the first launch.

    Of a Ray of its own its environment decides the front: for another one it is started anew, once nothing is deployed
    behind the last, and stopped for vLLM's own server, which is then started beside no Ray. A running cluster has the
    front that its nodes' environment says.

    ``http_port`` is Serve's; None takes the one in use, or a free one. ``state_dir`` is where it is written what a
    kill would leave behind; what dead runs left there is removed before anything starts. ``caches`` is where engines
    keep what they compile, on a running cluster only where an operator named it.

    Raises BadInput for an address that does not answer, and for a port in use.
    """

    def __init__(
        self, address: str | None, http_port: int | None, *, state_dir: Path, caches: EngineCaches = NO_CACHES
    ) -> None:
        self._caches = caches
        self._swept, self._state_dir = sweep(state_dir, KIND), state_dir
        self._record = LauncherRecord(state_dir, KIND)
        self._live: dict[str, RayServeDeployment] = {}
        self._session = RaySession(address, http_port, self._record)
        self._turns = Turns()
        self._vllm = LocalProcessLauncher(http_port, state_dir=state_dir, caches=caches) if self._session.own else None

    @property
    def name(self) -> str:
        """``ray-serve``."""
        return "ray-serve"

    @property
    def parallel(self) -> int:
        """As many as a running cluster has room for; on a Ray of its own as many as the machine has GPUs, at least one.

        Engines on the cores of one machine would disturb each other.
        """
        return max(1, len(list(Path("/dev").glob("nvidia[0-9]*")))) if self._session.own else MANY

    @property
    def cluster(self) -> SharedCluster:
        """The running cluster, by its head; of a Ray of its own this machine, as another Ray on it counts the same
        devices from the first."""
        if self._session.own:
            return this_machine()
        self._session.connect()
        return SharedCluster(f"ray/{head_node()}", deals=True)

    @property
    def in_place(self) -> frozenset[str]:
        """What Ray Serve changes in front of an engine that runs."""
        return IN_PLACE

    @property
    def versions(self) -> dict[str, str]:
        """Of Ray and vLLM: a cluster that lets this process in runs the same Ray, and Serve LLM is built from here."""
        return installed(*ENGINES)

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        """See ``tuner.trial.seams.Launcher``: what Ray Serve LLM cannot run."""
        if isinstance(deployment, TwoPools):
            return UNLAUNCHED
        if deployment.front == "vllm":
            return _JOINED if self._vllm is None else self._vllm.refuses(deployment, request)
        front = too_old(deployment, self.versions.get("ray")) or self._session.other_front(deployment)
        return front or refused(deployment, request) or _scattered(deployment, cluster_of(deployment, request))

    def launch(self, order: LaunchOrder, watch: Watch) -> RunningDeployment:
        """See ``tuner.trial.seams.Launcher``. Raises BadInput where Ray Serve LLM cannot run the layout as written."""
        if not self._session.own:  # its front is what it is
            return self._deploy(order, watch)
        alone = order.layout.front == "vllm"
        kind = f"vllm {order.app}" if alone else tuple(variables(order.layout).items())
        self._turns.enter(order.app, kind, watch)
        try:
            return self._serve_by_vllm(order, watch) if alone else self._deploy(order, watch)
        except BaseException:
            self._turns.leave(order.app)
            raise

    def _serve_by_vllm(self, order: LaunchOrder, watch: Watch) -> RunningDeployment:
        """vLLM's own server, on this machine; Ray would take cores from it, and count its devices as free."""
        assert self._vllm is not None
        self._session.close()
        return self._vllm.launch(order, watch, gone=self._turns.leave)

    def _deploy(self, order: LaunchOrder, watch: Watch) -> RayServeDeployment:
        started = time.perf_counter()
        check_served(order.layout, order.request)
        environment = variables(order.layout)
        base_url = self._session.start(cluster_of(order.layout, order.request), watch, environment)
        session_s = time.perf_counter() - started
        watch.cancel.raise_if_cancelled()
        _require_devices(order)
        if (why := self._session.other_front(order.layout)) is not None:
            raise BadInput("layout.front", order.layout.front, why)
        source, prefix = model_source(order.request.model), f"/{order.app}"
        config = serve_app(order.app, order.layout, order.request, model_source=source, route_prefix=prefix)
        home = home_of(live_nodes(), order.placement, order.request.groups) if not self._session.own else None
        config = config if home is None else pinned(config, home)
        _require_room(order, config)
        payload = RayApplication(config, environment=environment)
        launched = Launched(self.name, self.versions, source, payload)
        deployment = RayServeDeployment(order, f"{base_url}{prefix}", launched, self._forget)
        deployment.session_ready(session_s)
        if self._session.own:  # a running cluster itself knows what was left on it
            self._record.add("apps", order.app)
        self._live[order.app] = deployment
        with deployment.ended_unless_ready():
            watch.progress("handing the application to Ray Serve")
            caches = self._caches.environment(self._session.own)
            deploy_application(with_variables(config, caches), environment)
            deployment.wait_until_ready(order, started, Waiting(watch), here=self._session.own)
        return deployment

    def remove_orphan(self, app: str) -> bool:
        """See ``Launcher``; on a running cluster whatever application of that name is not this run's."""
        if self._vllm is not None and self._vllm.remove_orphan(app):
            return True
        if self._session.own:
            if app not in self._swept and app not in self._live:
                self._swept |= sweep(self._state_dir, KIND)  # of a process that has died since
            orphan = app in self._swept
            self._swept.discard(app)
            return orphan
        if app in self._live:
            return False
        self._session.connect()
        if not serve_runs() or app not in serve_details()["applications"]:
            return False
        delete_application(app)
        return True

    def close(self) -> None:
        """Tear down what is up; stop a Ray that was started here, and remove its files."""
        for deployment in list(self._live.values()):
            deployment.teardown()
        if self._vllm is not None:
            self._vllm.close()
        self._session.close()
        self._record.close()

    def _forget(self, app: str) -> None:
        self._live.pop(app, None)
        self._record.drop("apps", app)
        self._turns.leave(app)


def _scattered(layout: ParallelLayout, nodes: ClusterSpec) -> str | None:
    """Why ranks that share experts would not lie as they are priced; None where they would.

    Ray Serve LLM 2.60 asks for one placement group of all ranks, packed device by device, and gives each rank the next
    devices in the order of the nodes (``DPServer``): on several nodes they are whole only where they divide them.
    """
    replica, per_node = layout.devices_per_replica, nodes.gpus_per_node
    if not attention_dp(layout) or layout.devices <= per_node or 0 in (replica % per_node, per_node % replica):
        return None
    return f"Ray Serve LLM would split ranks of {replica} devices over nodes of {per_node}"


def _require_devices(order: LaunchOrder) -> None:
    nodes = cluster_of(order.layout, order.request)
    if (why := unplaceable(order.layout, nodes) or _scattered(order.layout, nodes)) is not None:
        raise LaunchFailed(FailureReason.PLACEMENT_IMPOSSIBLE, f"{order.layout}: {why}")


def _require_room(order: LaunchOrder, config: dict[str, Any]) -> None:
    nodes = live_nodes()
    bundles, together = demand(config, order.layout.dp)
    if fits(nodes, bundles):
        return
    device = "GPU" if any(bundle.get("GPU") for bundle in bundles) else "CPU"
    has, where = sum(node.get(device, 0) for node in nodes), "on one node" if together else "over its nodes"
    needs = f"{order.layout.dp} × {order.layout.devices_per_replica} {device}s {where}"
    raise LaunchFailed(
        FailureReason.PLACEMENT_IMPOSSIBLE,
        f"{order.layout} needs {needs}; the Ray cluster has {has:g} on {len(nodes)} node(s)",
    )
