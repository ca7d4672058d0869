"""Brings layouts up on Ray Serve LLM, on a cluster that runs or on a local Ray of its own.

The only module that imports Ray. Ray, vLLM and torch are imported when the first layout is launched, not before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.engine import check_served, serve_app, served_model_id
from serve.health import Waiting, served_models, warm_up
from serve.logs import keep, tail, tells_of_no_memory
from serve.placement import demand, fits
from serve.processes import (
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
from tuner.errors import BadInput, LaunchFailed, ParlayError
from tuner.request import ClusterSpec
from tuner.trial import FailureReason, LaunchOrder

CONNECT_TIMEOUT_S = 10.0
POLL_S = 0.25
TAIL_LINES = 20
OBJECT_STORE_BYTES = 100 * 1024 * 1024
LOCAL = "ray-local"  # kind of the launcher records
_ENGINE = "LLMServer:", "DPServer:"  # how Ray Serve LLM begins the names of deployments that hold engines


class RayServeLauncher:
    """Implements ``tuner.trial.Launcher`` on Ray Serve LLM.

    ``address`` is ``HOST:PORT`` of a running cluster's head (or ``auto``); None starts a Ray on this machine, on the
    loopback only, with one CPU per device where devices are CPUs. One Ray and one Serve serve all trials.
    ``http_port`` is Serve's; None takes the one in use, or a free one. ``state_dir`` is where it is written what a
    kill would leave behind; what dead runs left there is removed before anything starts.

    Raises BadInput for an address that does not answer, and for a port in use.
    """

    def __init__(self, address: str | None, http_port: int | None, *, state_dir: Path) -> None:
        self._address, self._http_port = address, http_port
        self._swept = sweep(state_dir, LOCAL)
        self._record = LauncherRecord(state_dir, LOCAL)
        self._live: dict[str, RayServeDeployment] = {}
        self._base_url: str | None = None
        self._scratch: Path | None = None
        if address is not None:
            require_ray_address(address)
        elif http_port is not None:
            require_free_port(http_port, "http_port")

    @property
    def name(self) -> str:
        """``ray-serve``."""
        return "ray-serve"

    def launch(self, order: LaunchOrder, progress: Callable[[str], None]) -> RayServeDeployment:
        """See ``tuner.trial.Launcher``. Raises BadInput where Ray Serve LLM cannot run the layout as written."""
        check_served(order.layout, order.request)
        started = time.perf_counter()
        self._start(order, progress)
        config = serve_app(
            order.app,
            order.layout,
            order.request,
            model_source=_model_source(order.request.model),
            route_prefix=f"/{order.app}",
        )
        self._require_room(order, config)
        deployment = RayServeDeployment(
            app=order.app,
            url=f"{self._base_url}/{order.app}",
            model_id=served_model_id(order.request),
            log_dir=order.log_dir,
            on_teardown=self._forget,
        )
        self._record.add("apps", order.app)
        self._live[order.app] = deployment
        try:
            progress("handing the application to Ray Serve")
            _deploy(config)
            deployment.wait_until_ready(order, started, Waiting(progress))
        except BaseException as error:
            lines = deployment.log_tail(TAIL_LINES) if isinstance(error, LaunchFailed) else ()
            deployment.teardown()
            if isinstance(error, LaunchFailed):
                raise LaunchFailed(error.reason, error.detail, error.log_tail or lines) from None
            raise
        return deployment

    def remove_orphan(self, app: str) -> bool:
        """See ``tuner.trial.Launcher``; on a running cluster whatever application of that name is not this run's."""
        if app in self._swept:
            self._swept.discard(app)
            return True
        if self._address is None or app in self._live:
            return False
        self._connect()
        from ray import serve as ray_serve

        if not _serve_runs() or app not in ray_serve.status().applications:
            return False
        ray_serve.delete(app)
        return True

    def close(self) -> None:
        """Tear down what is up; stop a Ray that was started here, and remove its files."""
        for deployment in list(self._live.values()):
            deployment.teardown()
        if self._base_url is None and self._scratch is None:
            return
        import ray

        if self._scratch is not None and ray.is_initialized():
            _shut_down_serve()
        ray.shutdown()
        if self._scratch is not None:
            end(writers_under([self._scratch]), patience_s=5.0)
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._base_url = self._scratch = None
        self._record.close()

    def _forget(self, app: str) -> None:
        self._live.pop(app, None)
        self._record.drop("apps", app)

    def _start(self, order: LaunchOrder, progress: Callable[[str], None]) -> None:
        if self._base_url is not None:
            return
        try:
            if self._address is None:
                progress("starting Ray")
                self._start_local(order.request.cluster)
            else:
                progress(f"connecting to Ray at {self._address}")
                self._connect()
            progress("loading Ray Serve LLM")
            _import_quietly()
            self._base_url = self._start_serve()
        except BaseException:
            self.close()
            raise

    def _start_local(self, cluster: ClusterSpec | str) -> None:
        if self._http_port is not None:
            require_free_port(self._http_port, "http_port")
        # Ray's sockets lie below this directory, and a socket's path has at most 107 bytes: hence not in state_dir.
        self._scratch = Path(tempfile.mkdtemp(prefix="parlay-"))
        for kind in ("scratch", "directories"):
            self._record.add(kind, self._scratch)
        cpus = cluster.devices if isinstance(cluster, ClusterSpec) and cluster.gpu == "cpu" else None
        with _environment(RAY_USAGE_STATS_ENABLED="0", TMPDIR=str(self._scratch)):
            _ray_init(
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(self._scratch / "ray"),
            )

    def _connect(self) -> None:
        import ray

        if not ray.is_initialized() and self._address is not None:
            require_ray_address(self._address)
            try:
                _ray_init(address=self._address)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise BadInput("address", self._address, f"a Ray cluster of which this is a node ({error})") from None

    def _start_serve(self) -> str:
        from ray import serve as ray_serve

        if not _serve_runs():
            local = self._address is None
            port = self._http_port or free_port()
            require_free_port(port, "http_port")
            ray_serve.start(http_options={"host": "127.0.0.1" if local else "0.0.0.0", "port": port})
        details = _serve_details()
        port = int(details["http_options"]["port"])
        if self._http_port not in (None, port):
            raise BadInput("http_port", self._http_port, f"{port}, on which this cluster's Ray Serve listens")
        nodes = [proxy["node_ip"] for proxy in details["proxies"].values() if proxy.get("node_ip")]
        host = "127.0.0.1" if self._address is None or not nodes or _own_ip() in nodes else nodes[0]
        return f"http://{host}:{port}"

    def _require_room(self, order: LaunchOrder, config: dict[str, Any]) -> None:
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        bundles, together = demand(config, order.layout.dp)
        if not fits(nodes, bundles):
            where = "on one node each" if together else "over all nodes"
            devices = "CPU" if all("GPU" not in bundle for bundle in bundles) else "GPU"
            has = sum(node.get(devices, 0) for node in nodes)
            raise LaunchFailed(
                FailureReason.PLACEMENT_IMPOSSIBLE,
                f"{order.layout} needs {order.layout.devices} {devices}s, {order.layout.devices_per_replica} per "
                f"replica {where}; the cluster has {has:g} on {len(nodes)} node(s)",
            )


@dataclass(frozen=True, slots=True)
class _Replica:
    deployment: str
    replica_id: str
    state: str
    worker_id: str | None
    process: ProcessId | None

    @property
    def holds_engine(self) -> bool:
        return self.deployment.startswith(_ENGINE)


class RayServeDeployment:
    """Implements ``tuner.trial.Deployment`` for one Ray Serve application."""

    def __init__(self, *, app: str, url: str, model_id: str, log_dir: Path, on_teardown: Callable[[str], None]) -> None:
        self._app, self._url, self._model_id = app, url, model_id
        self._log_dir, self._on_teardown = log_dir, on_teardown
        self._seen: dict[str, _Replica] = {}
        self._ready: frozenset[str] | None = None
        self._ready_after_s = 0.0
        self._down = False

    @property
    def url(self) -> str:
        """Base URL, without ``/v1``."""
        return self._url

    @property
    def model_id(self) -> str:
        """The model name that requests must carry."""
        return self._model_id

    @property
    def ready_after_s(self) -> float:
        """Seconds from the order to the first healthy answers."""
        return self._ready_after_s

    def failure(self) -> tuple[FailureReason, str] | None:
        """REPLICA_DIED where a replica that was ready is gone, replaced or no longer running."""
        if self._down or self._ready is None:
            return None
        application = self._application()
        if application is None:
            return FailureReason.REPLICA_DIED, "the application is no longer known to Ray Serve"
        running = {replica.replica_id for replica in self._look(application) if replica.state == "RUNNING"}
        if lost := self._ready - running:
            names = ", ".join(f"{self._seen[name].deployment}#{name}" for name in sorted(lost))
            return FailureReason.REPLICA_DIED, f"not running any more: {names}"
        if application["status"] != "RUNNING":
            return FailureReason.REPLICA_DIED, f"the application is {application['status']}: {application['message']}"
        return None

    def log_tail(self, lines: int = TAIL_LINES) -> tuple[str, ...]:
        """The engine's last log lines, oldest first; empty where its node's logs cannot be read from here."""
        if self._down:
            return tail(self._log_dir.glob("*worker-*"), lines)
        return tail(self._log_files(engines_only=True), lines)

    def teardown(self) -> None:
        """Delete the application, wait until its processes are gone, and keep its logs."""
        if self._down:
            return
        from ray import serve as ray_serve

        try:
            application = self._application()
            if application is not None:
                self._look(application)
                ray_serve.delete(self._app)
        except Exception as error:  # Ray itself may be gone; what it left is ended below
            logging.getLogger(__name__).warning("deleting %s: %s", self._app, error)
        leaders = [replica.process for replica in self._seen.values() if replica.process is not None]
        # Engine processes stay in their replica's process group; those that outlive it would hold its devices.
        end((process for leader in leaders for process in group_of(leader)), patience_s=5.0)
        keep(self._log_files(engines_only=False), self._log_dir)
        self._down = True
        self._on_teardown(self._app)

    def wait_until_ready(self, order: LaunchOrder, started: float, waiting: Waiting) -> None:
        """Return once every replica has answered; raises LaunchFailed where that fails or takes too long."""
        deadline = started + order.request.engine.start_timeout_s
        while not self._running(waiting, time.perf_counter() - started):
            if time.perf_counter() > deadline:
                raise self._timed_out(order)
            time.sleep(POLL_S)
        waiting.on("waiting for the first answers", time.perf_counter() - started)
        while self._model_id not in served_models(self._url, timeout_s=10.0) or not warm_up(
            self._url, self._model_id, order.layout.dp, timeout_s=max(1.0, deadline - time.perf_counter())
        ):
            if time.perf_counter() > deadline:
                raise self._timed_out(order)
            if not self._running(waiting, time.perf_counter() - started):
                raise LaunchFailed(FailureReason.ENGINE_CRASHED, "the engine died on its first requests")
            time.sleep(POLL_S)
        self._ready = frozenset(r.replica_id for r in self._look(self._application()) if r.state == "RUNNING")
        self._ready_after_s = time.perf_counter() - started

    def _running(self, waiting: Waiting, elapsed_s: float) -> bool:
        """True once the application runs; raises LaunchFailed as soon as one of its replicas has died."""
        application = self._application()
        if application is None:
            return False
        replicas = self._look(application)
        present = {replica.replica_id for replica in replicas if replica.state != "STOPPING"}
        died = [replica for name, replica in self._seen.items() if name not in present]
        if died or application["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise self._crashed(application)
        engines = [replica for replica in replicas if replica.holds_engine]
        up = sum(replica.state == "RUNNING" for replica in engines)
        waiting.on(f"waiting for the engine: {up} of {len(engines) or '?'} replicas up", elapsed_s)
        return bool(application["status"] == "RUNNING")

    def _crashed(self, application: dict[str, Any]) -> LaunchFailed:
        lines = self.log_tail(200)
        reason = FailureReason.DOES_NOT_FIT if tells_of_no_memory(lines) else FailureReason.ENGINE_CRASHED
        messages = [d["message"] for d in application["deployments"].values() if d["message"]]
        detail = _last_line(*messages, application["message"]) or "a replica died before it was ready"
        return LaunchFailed(reason, detail, lines[-TAIL_LINES:])

    def _timed_out(self, order: LaunchOrder) -> LaunchFailed:
        from ray.util import placement_group_table

        limit_s = order.request.engine.start_timeout_s
        engines_placed = any(replica.holds_engine and replica.process for replica in self._seen.values())
        pending = [group for group in placement_group_table().values() if group["state"] == "PENDING"]
        if pending and not engines_placed:
            detail = f"no room within {limit_s:g} s: other applications hold the devices"
            return LaunchFailed(FailureReason.PLACEMENT_IMPOSSIBLE, detail)
        return LaunchFailed(FailureReason.START_TIMED_OUT, f"not ready within {limit_s:g} s")

    def _application(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = _serve_details()["applications"].get(self._app)
        return found

    def _look(self, application: dict[str, Any] | None) -> list[_Replica]:
        """The application's replicas now; remembers each, with the process that it was last seen in."""
        replicas = []
        for name, deployment in (application or {"deployments": {}})["deployments"].items():
            for entry in deployment["replicas"]:
                here = entry.get("node_ip") in (None, _own_ip())
                replica = _Replica(
                    deployment=name,
                    replica_id=entry["replica_id"],
                    state=str(getattr(entry["state"], "value", entry["state"])),
                    worker_id=entry.get("worker_id"),
                    process=identify(entry["pid"]) if entry.get("pid") and here else None,
                )
                before = self._seen.get(replica.replica_id)
                if before is None or replica.process is not None:
                    self._seen[replica.replica_id] = replica
                replicas.append(replica)
        return replicas

    def _log_files(self, *, engines_only: bool) -> list[Path]:
        from ray._private import worker

        node = worker._global_node
        if node is None:
            return []
        logs = Path(node.get_logs_dir_path())
        wanted = [r for r in self._seen.values() if r.worker_id and (r.holds_engine or not engines_only)]
        return [file for replica in wanted for file in logs.glob(f"worker-{replica.worker_id}-*")]


def require_ray_address(address: str) -> None:
    """Raise BadInput unless a Ray head answers at ``address`` (``HOST:PORT``, or ``auto``) within a few seconds."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise BadInput("address", address, "HOST:PORT of a Ray cluster's head, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise BadInput("address", address, f"a Ray cluster that answers ({error})") from None
    from ray._raylet import check_health

    try:
        healthy = check_health(address, timeout=int(CONNECT_TIMEOUT_S), skip_version_check=False)
    except RuntimeError as error:
        raise BadInput("address", address, f"a Ray cluster of this Ray's version ({error})") from None
    if not healthy:
        raise BadInput("address", address, f"a Ray cluster's head (nothing of the kind within {CONNECT_TIMEOUT_S:g} s)")


def discover_cluster(address: str) -> ClusterSpec:
    """The running cluster's nodes and devices, as a request's ``cluster``.

    Nodes without devices (a head that only coordinates) are left out. Raises BadInput where nodes differ in
    accelerator or in number of devices, or the accelerator has no name that Ray knows.
    """
    import ray

    require_ray_address(address)
    connected = ray.is_initialized()
    if not connected:
        _ray_init(address=address)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        if not connected:
            ray.shutdown()
    return cluster_of_nodes(nodes)


def cluster_of_nodes(nodes: list[dict[str, float]]) -> ClusterSpec:
    """See ``discover_cluster``; ``nodes`` are resources by node as Ray reports them."""
    equipped = [node for node in nodes if node.get("GPU", 0) >= 1]
    if not equipped:
        cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
        if len(set(cores)) != 1:
            raise BadInput("cluster", f"ray, with nodes of {cores} CPUs", "equal nodes")
        return ClusterSpec(gpu="cpu", nodes=len(cores), gpus_per_node=cores[0])
    kinds = {(_accelerator(node), int(node["GPU"])) for node in equipped}
    if len(kinds) != 1:
        raise BadInput("cluster", f"ray, with nodes of {sorted(kinds)}", "equal nodes")
    accelerator, count = kinds.pop()
    return ClusterSpec(gpu=accelerator, nodes=len(equipped), gpus_per_node=count)


# Ray's accelerator types (ray.util.accelerators) and the hardware profiles that describe them.
_PROFILES = {
    "A100": "a100_40gb_sxm",
    "A100-40G": "a100_40gb_sxm",
    "A100-80G": "a100_sxm",
    "H100": "h100_sxm",
    "H200": "h200_sxm",
    "GH200": "gh200",
    "B200": "b200_sxm",
    "B300": "b300_sxm",
    "L40S": "l40s",
}


def _accelerator(node: dict[str, float]) -> str:
    kinds = sorted(name.removeprefix("accelerator_type:") for name in node if name.startswith("accelerator_type:"))
    known = [_PROFILES[kind] for kind in kinds if kind in _PROFILES]
    if len(known) != 1:
        raise BadInput("cluster", f"ray, with accelerators {kinds}", "one of " + ", ".join(_PROFILES))
    return known[0]


def _model_source(model: str) -> str:
    path = Path(model)
    return str(path.resolve()) if path.is_dir() else model


def _deploy(config: dict[str, Any]) -> None:
    from ray import serve as ray_serve
    from ray.serve import llm

    build = getattr(llm, config["import_path"].rpartition(":")[2])
    try:
        with _quiet():
            target = ray_serve.RunTarget(
                target=build(config["args"]),
                name=config["name"],
                route_prefix=config["route_prefix"],
                logging_config=config["logging_config"],
            )
            ray_serve.run_many([target], wait_for_applications_running=False)
    except (ValueError, TypeError, ImportError) as error:
        raise LaunchFailed(FailureReason.ENGINE_CRASHED, f"Ray Serve LLM refuses the configuration: {error}") from None


def _ray_init(**options: Any) -> None:
    import ray

    ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options)


def _import_quietly() -> None:
    """Import Ray Serve LLM, and with it vLLM, which announces itself on standard output."""
    with _environment(VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1"), _quiet():
        import ray.serve.llm  # noqa: F401


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Serve's own progress messages off the terminal."""
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _serve_details() -> dict[str, Any]:
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    if client is None:
        raise ParlayError("Ray Serve is not running")
    details: dict[str, Any] = client.get_serve_details()
    return details


def _serve_runs() -> bool:
    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=False) is not None


def _shut_down_serve() -> None:
    from ray import serve as ray_serve

    with _quiet():
        ray_serve.shutdown()


def _own_ip() -> str:
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


def _last_line(*texts: str) -> str:
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
