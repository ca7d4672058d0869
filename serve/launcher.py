"""Brings layouts up on Ray Serve LLM, on a cluster that runs or on a local Ray of its own.

The only module that imports Ray. Ray, vLLM and torch are imported when the first layout is launched, not before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from serve.engine import check_served, cluster_of, refused, serve_app, served_model_id
from serve.health import Waiting, served_models, warm_up
from serve.logs import SEARCHED_LINES, SHOWN_LINES, crash, keep, tail
from serve.placement import cluster_of_nodes, demand, fits
from serve.processes import LauncherRecord, end, free_port, group_of, require_free_port, sweep, writers_under
from serve.replicas import ReplicaHistory, last_message, status_of
from tuner.errors import BadInput, FailureReason, LaunchFailed, ParlayError
from tuner.layout import ParallelLayout
from tuner.request import ClusterSpec, TuneRequest
from tuner.trial import LaunchOrder

CONNECT_TIMEOUT_S = 12.0
POLL_S = 0.25
STOP_PATIENCE_S = 5.0
OBJECT_STORE_BYTES = 100 * 1024 * 1024
KIND = "ray-local"
MANY = 10_000  # the cluster's room is the limit


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
        self._swept = sweep(state_dir, KIND)
        self._record = LauncherRecord(state_dir, KIND)
        self._live: dict[str, RayServeDeployment] = {}
        self._base_url: str | None = None
        self._scratch: Path | None = None
        self._connected = False
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

    def refuses(self, layout: ParallelLayout, request: TuneRequest) -> str | None:
        """See ``tuner.trial.Launcher``: what Ray Serve LLM cannot run."""
        return refused(layout, request)

    def launch(self, order: LaunchOrder, progress: Callable[[str], None]) -> RayServeDeployment:
        """See ``tuner.trial.Launcher``. Raises BadInput where Ray Serve LLM cannot run the layout as written."""
        started = time.perf_counter()
        self._start(order, progress)
        self._require_devices(order)
        check_served(order.layout, order.request)
        source, prefix = _model_source(order.request.model), f"/{order.app}"
        config = serve_app(order.app, order.layout, order.request, model_source=source, route_prefix=prefix)
        _require_room(order, config)
        deployment = RayServeDeployment(order, f"{self._base_url}{prefix}", self._forget)
        if self._address is None:  # a running cluster itself knows what was left on it
            self._record.add("apps", order.app)
        self._live[order.app] = deployment
        try:
            progress("handing the application to Ray Serve")
            _deploy(config)
            deployment.wait_until_ready(started, Waiting(progress))
        except LaunchFailed as error:
            lines = error.log_tail or deployment.log_tail(SHOWN_LINES)
            deployment.teardown()
            raise LaunchFailed(error.reason, error.detail, lines) from None
        except BaseException:
            deployment.teardown()
            raise
        return deployment

    def remove_orphan(self, app: str) -> bool:
        """See ``tuner.trial.Launcher``; on a running cluster whatever application of that name is not this run's."""
        if self._address is None:
            orphan = app in self._swept
            self._swept.discard(app)
            return orphan
        if app in self._live:
            return False
        self._connect(self._address)
        if not _serve_runs() or app not in _serve_details()["applications"]:
            return False
        _delete(app)
        return True

    def close(self) -> None:
        """Tear down what is up; stop a Ray that was started here, and remove its files."""
        for deployment in list(self._live.values()):
            deployment.teardown()
        if self._connected:
            import ray

            ray.shutdown()
            self._connected = False
        if self._scratch is not None:
            end(writers_under([self._scratch]), patience_s=STOP_PATIENCE_S)
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
                self._start_local(cluster_of(order.layout, order.request))
            else:
                progress(f"connecting to Ray at {self._address}")
                self._connect(self._address)
            progress("loading Ray Serve LLM")
            _import_quietly()
            self._base_url = self._start_serve()
        except BaseException:
            self.close()
            raise

    def _start_local(self, cluster: ClusterSpec) -> None:
        if self._http_port is not None:
            require_free_port(self._http_port, "http_port")
        # Ray's sockets lie below this directory, and a socket's path has at most 107 bytes: hence not in state_dir.
        self._scratch = Path(tempfile.mkdtemp(prefix="parlay-"))
        for kind in ("scratch", "directories"):
            self._record.add(kind, self._scratch)
        on_cpus = cluster.gpu == "cpu"
        with _environment(RAY_USAGE_STATS_ENABLED="0", TMPDIR=str(self._scratch)):
            self._connected = True  # before, so that an interrupted start is stopped as well
            _ray_init(
                num_cpus=cluster.devices if on_cpus else None,
                # What Ray's executor takes for a device on CPUs: see serve.cpu_on_ray.
                num_gpus=cluster.devices if on_cpus else None,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(self._scratch / "ray"),
            )

    def _connect(self, address: str) -> None:
        import ray

        if ray.is_initialized():
            return
        require_ray_address(address)
        try:
            attach(address)
            self._connected = True
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BadInput("address", address, f"a Ray cluster of which this machine is a node ({error})") from None

    def _start_serve(self) -> str:
        from ray import serve as ray_serve

        local = self._address is None
        if not _serve_runs():
            port = self._http_port or free_port()
            require_free_port(port, "http_port")
            with _quiet():
                ray_serve.start(http_options={"host": "127.0.0.1" if local else "0.0.0.0", "port": port})
        details = _serve_details()
        port = int(details["http_options"]["port"])
        if self._http_port not in (None, port):
            raise BadInput("http_port", self._http_port, f"{port}, on which this cluster's Ray Serve listens")
        nodes = [proxy["node_ip"] for proxy in details["proxies"].values() if proxy.get("node_ip")]
        host = "127.0.0.1" if local or not nodes or _own_ip() in nodes else nodes[0]
        return f"http://{host}:{port}"

    def _require_devices(self, order: LaunchOrder) -> None:
        cluster, needed = cluster_of(order.layout, order.request), order.layout.devices
        if needed > cluster.devices:
            detail = f"{order.layout} needs {needed} devices; the cluster has {cluster.devices}"
            raise LaunchFailed(FailureReason.PLACEMENT_IMPOSSIBLE, detail)


class RayServeDeployment:
    """Implements ``tuner.trial.Deployment`` for one Ray Serve application."""

    def __init__(self, order: LaunchOrder, url: str, on_teardown: Callable[[str], None]) -> None:
        self._order, self._url, self._on_teardown = order, url, on_teardown
        self._model_id = served_model_id(order.request)
        self._history = ReplicaHistory()
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
            return FailureReason.REPLICA_DIED, "Ray Serve no longer knows the application"
        running = _running_ids(self._history.look(application, _own_ip()))
        if lost := self._ready - running:
            names = ", ".join(f"{self._history.seen[name].deployment}#{name}" for name in sorted(lost))
            return FailureReason.REPLICA_DIED, f"not running any more: {names}"
        if (status := status_of(application)) != "RUNNING":
            return FailureReason.REPLICA_DIED, f"the application is {status}: {last_message(application)}"
        return None

    def log_tail(self, lines: int = SHOWN_LINES) -> tuple[str, ...]:
        """The engine's last log lines, oldest first; empty where its node's logs cannot be read from here."""
        engines = [replica for replica in self._history.seen.values() if replica.holds_engine]
        return tail(_log_files(engines, self._order.log_dir if self._down else _ray_logs()), lines)

    def teardown(self) -> None:
        """Delete the application, wait until its processes are gone, and keep its logs."""
        if self._down:
            return
        try:
            application = self._application()
            if application is not None:
                self._history.look(application, _own_ip())
                _delete(self._order.app)
        except Exception as error:  # Ray may be gone, or going; its processes are ended below all the same
            logging.getLogger(__name__).debug("deleting %s: %s", self._order.app, error)
        # Engine processes stay in their replica's process group; those that outlive it would hold its devices.
        engines = (process for leader in self._history.leaders for process in group_of(leader))
        end(engines, patience_s=STOP_PATIENCE_S)
        keep(_log_files(self._history.seen.values(), _ray_logs()), self._order.log_dir)
        self._down = True
        self._on_teardown(self._order.app)

    def wait_until_ready(self, started: float, waiting: Waiting) -> None:
        """Return once every replica has answered; raises LaunchFailed where that fails or takes too long."""
        deadline = started + self._order.request.engine.start_timeout_s
        answered = False
        while not answered:
            now = time.perf_counter()
            if now > deadline:
                raise self._timed_out()
            if self._runs(waiting, now - started) and self._model_id in served_models(self._url, timeout_s=10.0):
                waiting.on("waiting for the first answers", now - started)
                left_s = max(1.0, deadline - now)
                answered = warm_up(self._url, self._model_id, self._order.layout.dp, timeout_s=left_s)
            time.sleep(0 if answered else POLL_S)
        self._ready = frozenset(_running_ids(self._history.seen.values()))
        self._ready_after_s = time.perf_counter() - started

    def _runs(self, waiting: Waiting, elapsed_s: float) -> bool:
        """True once the application runs; raises LaunchFailed as soon as one of its replicas has died."""
        application = self._application()
        if application is None:
            return False
        replicas = self._history.look(application, _own_ip())
        status = status_of(application)
        if self._history.died(replicas) or status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise self._crashed(application)
        engines = [replica for replica in replicas if replica.holds_engine]
        up = sum(replica.state == "RUNNING" for replica in engines)
        if status != "RUNNING":
            waiting.on(f"waiting for the engine, {up} of {self._order.layout.dp} replicas up", elapsed_s)
        return status == "RUNNING"

    def _crashed(self, application: dict[str, Any]) -> LaunchFailed:
        fallback = last_message(application) or "a replica died before it was ready"
        return crash(self.log_tail(SEARCHED_LINES), fallback)

    def _timed_out(self) -> LaunchFailed:
        limit_s = self._order.request.engine.start_timeout_s
        placed = any(replica.holds_engine and replica.worker_id for replica in self._history.seen.values())
        if not placed and _groups_pending():
            detail = f"no room within {limit_s:g} s: others hold the cluster's devices"
            return LaunchFailed(FailureReason.PLACEMENT_IMPOSSIBLE, detail)
        return LaunchFailed(FailureReason.START_TIMED_OUT, f"not ready within {limit_s:g} s")

    def _application(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = _serve_details()["applications"].get(self._order.app)
        return found


def require_ray_address(address: str) -> None:
    """Raise BadInput unless a Ray head answers at ``address`` (``HOST:PORT``, or ``auto``) within seconds.

    Asked in a child process: Ray's client would go on for minutes where something else listens there, then exit.
    """
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise BadInput("address", address, "HOST:PORT of a Ray cluster's head, or auto")
    try:
        if address != "auto":  # a refused connection need not be waited for
            socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise BadInput("address", address, f"a Ray cluster that answers ({error})") from None
    command = [sys.executable, "-c", "import sys; from serve.launcher import attach; attach(sys.argv[1])", address]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=CONNECT_TIMEOUT_S, env=environment)
    except subprocess.TimeoutExpired:
        raise BadInput("address", address, f"a Ray cluster that answers within {CONNECT_TIMEOUT_S:g} s") from None
    if answer.returncode != 0:
        said = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BadInput("address", address, f"a Ray cluster that answers, and lets this machine in ({said})")


def discover_cluster(address: str) -> ClusterSpec | tuple[ClusterSpec, ...]:
    """The nodes and devices of the Ray cluster at ``address``; see ``cluster_of_nodes``."""
    import ray

    require_ray_address(address)
    connected = ray.is_initialized()
    if not connected:
        attach(address)
    try:
        return cluster_of_nodes(_nodes())
    finally:
        if not connected:
            ray.shutdown()


def _require_room(order: LaunchOrder, config: dict[str, Any]) -> None:
    nodes = _nodes()
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


def _nodes() -> list[dict[str, float]]:
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _groups_pending() -> bool:
    from ray.util import placement_group_table

    return any(group["state"] == "PENDING" for group in placement_group_table().values())


def _running_ids(replicas: Any) -> set[str]:
    return {replica.replica_id for replica in replicas if replica.state == "RUNNING"}


def _ray_logs() -> Path | None:
    """Where this node's Ray keeps its logs; None where this process is connected to none."""
    from ray._private import worker

    node = worker._global_node
    return None if node is None else Path(node.get_logs_dir_path())


def _log_files(replicas: Any, directory: Path | None) -> list[Path]:
    names = [replica.worker_id for replica in replicas if replica.worker_id]
    return [] if directory is None else [file for name in names for file in directory.glob(f"worker-{name}-*")]


def _model_source(model: str) -> str:
    path = Path(model)
    return str(path.resolve()) if path.is_dir() else model


def _deploy(config: dict[str, Any]) -> None:
    from ray import serve as ray_serve
    from ray.serve import llm

    build = getattr(llm, config["import_path"].rpartition(":")[2])
    name, prefix, logs = config["name"], config["route_prefix"], config["logging_config"]
    try:
        with _quiet():
            target = ray_serve.RunTarget(build(config["args"]), name, prefix, logs)
            ray_serve.run_many([target], wait_for_applications_running=False)
    except (ValueError, TypeError, ImportError) as error:
        raise LaunchFailed(FailureReason.ENGINE_CRASHED, f"Ray Serve LLM refuses the configuration: {error}") from None


def _delete(app: str) -> None:
    from ray import serve as ray_serve

    with _quiet():
        ray_serve.delete(app)


def attach(address: str) -> None:
    """Connect this process to a running Ray, with the token that this machine has for it, if any.

    A Ray that is started where a token is at hand asks for it; ``ray.init`` by an address does not look for one.
    """
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    with _quiet("ray"):
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        _ray_init(address=address)


def _ray_init(**options: Any) -> None:
    import ray

    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)


def _import_quietly() -> None:
    """Import Ray Serve LLM, and with it vLLM, which announces itself on standard output."""
    with _environment(VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1"), _quiet():
        import ray.serve.llm  # noqa: F401


@contextlib.contextmanager
def _quiet(name: str = "ray.serve") -> Iterator[None]:
    """Keep progress messages of Ray's own off the terminal."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
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


def _own_ip() -> str:
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())
