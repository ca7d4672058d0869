"""Brings layouts up on Ray Serve LLM, on a cluster that runs or on a local Ray of its own.

Ray, vLLM and torch are imported when the first layout is launched, not before.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from serve.launch.device import cluster_of, devices_of
from serve.launch.engine import check_served, refused, serve_app
from serve.launch.health import Waiting
from serve.launch.niceness import own_ray
from serve.launch.one_ray import RAY
from serve.launch.processes import LauncherRecord, end, free_port, require_free_port, sweep, writers_under
from serve.launch.ray_api import (
    attach,
    delete_application,
    deploy_application,
    environment_of,
    import_quietly,
    is_connected,
    live_nodes,
    own_ip,
    ray_init,
    ray_shutdown,
    require_ray_address,
    serve_details,
    serve_runs,
    start_serve,
)
from serve.launch.ray_deployment import STOP_PATIENCE_S, RayServeDeployment
from serve.launch.ray_nodes import demand, fits, home_of, pinned
from tuner.ask.deployment import UNLAUNCHED, Deployment, TwoPools
from tuner.ask.request import ClusterSpec, TuneRequest
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.trial.launched import ENGINES, Launched, RayApplication, installed, model_source
from tuner.trial.seams import LaunchOrder, Watch

OBJECT_STORE_BYTES = 100 * 1024 * 1024
KIND = "ray-local"
MANY = 10_000  # the cluster's room is the limit


class RayServeLauncher:
    """Implements ``tuner.trial.seams.Launcher`` on Ray Serve LLM.

    ``address`` is ``HOST:PORT`` of a running cluster's head (or ``auto``); None starts a Ray on this machine, on the
    loopback only, with one CPU per device where devices are CPUs. One Ray and one Serve serve all trials, and those of
    other launchers of this process on the same cluster; another cluster is refused at the first launch.
    ``http_port`` is Serve's; None takes the one in use, or a free one. ``state_dir`` is where it is written what a
    kill would leave behind; what dead runs left there is removed before anything starts.

    Raises BadInput for an address that does not answer, and for a port in use.
    """

    def __init__(self, address: str | None, http_port: int | None, *, state_dir: Path) -> None:
        self._address, self._http_port = address, http_port
        self._swept = sweep(state_dir, KIND)
        self._record = LauncherRecord(state_dir, KIND)
        self._live: dict[str, RayServeDeployment] = {}
        self._base_url: str | None = None
        self._scratch: Path | None = None
        self._connected = False
        self._starting = threading.RLock()
        if address is not None:
            require_ray_address(address)
        elif http_port is not None:
            require_free_port(http_port, "http_port")

    @property
    def name(self) -> str:
        """``ray-serve``."""
        return "ray-serve"

    @property
    def parallel(self) -> int:
        """As many as a running cluster has room for; on a Ray of its own as many as the machine has GPUs, at least one.

        Engines on the cores of one machine would disturb each other.
        """
        return MANY if self._address is not None else max(1, len(list(Path("/dev").glob("nvidia[0-9]*"))))

    @property
    def versions(self) -> dict[str, str]:
        """Of Ray and vLLM: a cluster that lets this process in runs the same Ray, and Serve LLM is built from here."""
        return installed(*ENGINES)

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        """See ``tuner.trial.seams.Launcher``: what Ray Serve LLM cannot run."""
        if isinstance(deployment, TwoPools):
            return UNLAUNCHED
        return refused(deployment, request)

    def launch(self, order: LaunchOrder, watch: Watch) -> RayServeDeployment:
        """See ``tuner.trial.seams.Launcher``. Raises BadInput where Ray Serve LLM cannot run the layout as written."""
        started = time.perf_counter()
        self._start(order, watch)
        watch.cancel.raise_if_cancelled()
        self._require_devices(order)
        check_served(order.layout, order.request)
        source, prefix = model_source(order.request.model), f"/{order.app}"
        config = serve_app(order.app, order.layout, order.request, model_source=source, route_prefix=prefix)
        home = home_of(live_nodes(), order.placement, order.request.groups) if self._address is not None else None
        config = config if home is None else pinned(config, home)
        _require_room(order, config)
        launched = Launched(self.name, self.versions, source, RayApplication(config))
        deployment = RayServeDeployment(order, f"{self._base_url}{prefix}", launched, self._forget)
        if self._address is None:  # a running cluster itself knows what was left on it
            self._record.add("apps", order.app)
        self._live[order.app] = deployment
        with deployment.ended_unless_ready():
            watch.progress("handing the application to Ray Serve")
            deploy_application(config)
            deployment.wait_until_ready(order, started, Waiting(watch))
        return deployment

    def remove_orphan(self, app: str) -> bool:
        """See ``Launcher``; on a running cluster whatever application of that name is not this run's."""
        if self._address is None:
            orphan = app in self._swept
            self._swept.discard(app)
            return orphan
        if app in self._live:
            return False
        self._connect(self._address)
        if not serve_runs() or app not in serve_details()["applications"]:
            return False
        delete_application(app)
        return True

    def close(self) -> None:
        """Tear down what is up; stop a Ray that was started here, and remove its files."""
        for deployment in list(self._live.values()):
            deployment.teardown()
        if self._connected:
            self._connected = False
            RAY.leave(ray_shutdown)
        if self._scratch is not None:
            end(writers_under([self._scratch]), patience_s=STOP_PATIENCE_S)
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._base_url = self._scratch = None
        self._record.close()

    def _forget(self, app: str) -> None:
        self._live.pop(app, None)
        self._record.drop("apps", app)

    def _start(self, order: LaunchOrder, watch: Watch) -> None:
        with self._starting:
            if self._base_url is not None:
                return
            try:
                if self._address is None:
                    watch.progress("starting Ray")
                    self._start_local(cluster_of(order.layout, order.request))
                else:
                    watch.progress(f"connecting to Ray at {self._address}")
                    self._connect(self._address)
                watch.progress("loading Ray Serve LLM")
                watch.cancel.raise_if_cancelled()
                import_quietly()
                watch.cancel.raise_if_cancelled()
                self._base_url = self._start_serve()
            except BaseException:
                self.close()
                raise

    def _start_local(self, cluster: ClusterSpec) -> None:
        if self._http_port is not None:
            require_free_port(self._http_port, "http_port")
        with RAY.joining(None):
            self._connected = True  # before, so that an interrupted start is stopped as well
            # Ray's sockets lie below it, and a socket's path has at most 107 bytes: hence not in state_dir.
            self._scratch = Path(tempfile.mkdtemp(prefix="parlay-"))
            for kind in ("scratch", "directories"):
                self._record.add(kind, self._scratch)
            with environment_of(RAY_USAGE_STATS_ENABLED="0", TMPDIR=str(self._scratch), **own_ray()):
                ray_init(
                    **devices_of(cluster).own_ray(cluster.devices),
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(self._scratch / "ray"),
                )

    def _connect(self, address: str) -> None:
        try:
            with self._starting:
                if self._connected or (is_connected() and not RAY.used):  # by whoever runs us: theirs, and stays
                    return
                with RAY.joining(address) as first:
                    self._connected = True
                    if first:
                        require_ray_address(address)
                        attach(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BadInput("address", address, f"a Ray cluster of which this machine is a node ({error})") from None

    def _start_serve(self) -> str:
        local = self._address is None
        if not serve_runs():
            port = self._http_port or free_port()
            require_free_port(port, "http_port")
            start_serve("127.0.0.1" if local else "0.0.0.0", port)
        details = serve_details()
        port = int(details["http_options"]["port"])
        if self._http_port not in (None, port):
            raise BadInput("http_port", self._http_port, f"{port}, on which this cluster's Ray Serve listens")
        nodes = [proxy["node_ip"] for proxy in details["proxies"].values() if proxy.get("node_ip")]
        host = "127.0.0.1" if local or not nodes or own_ip() in nodes else nodes[0]
        return f"http://{host}:{port}"

    def _require_devices(self, order: LaunchOrder) -> None:
        cluster, needed = cluster_of(order.layout, order.request), order.layout.devices
        if needed > cluster.devices:
            detail = f"{order.layout} needs {needed} devices; the cluster has {cluster.devices}"
            raise LaunchFailed(FailureReason.PLACEMENT_IMPOSSIBLE, detail)


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
