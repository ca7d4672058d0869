"""What is asked of Ray and Ray Serve. The only module that imports them, and no sooner than they are needed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from serve.launch.fronts import DIRECT, GRPC, HAPROXY, THROUGHPUT
from serve.launch.ray_nodes import cluster_of_nodes
from serve.launch.ray_seen import RayNode
from tuner.ask.request import ClusterSpec
from tuner.errors import BadInput, FailureReason, LaunchFailed, ParlayError

CONNECT_TIMEOUT_S = 12.0
_ENVIRONMENT = threading.RLock()
_LLM = "ray.llm._internal.serve"
_READ_BY = {
    HAPROXY: ("ray.serve._private.build_app",),
    DIRECT: (f"{_LLM}.core.ingress.builder", f"{_LLM}.serving_patterns.data_parallel.builder"),
}


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
    command = [
        sys.executable,
        "-c",
        "import sys; from serve.launch.ray_api import attach; attach(sys.argv[1])",
        address,
    ]
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
    return cluster_seen(address)[0]


def cluster_seen(address: str) -> tuple[ClusterSpec | tuple[ClusterSpec, ...], str]:
    """What the Ray cluster at ``address`` has, and the name by which studies share it."""
    import ray

    require_ray_address(address)
    connected = ray.is_initialized()
    if not connected:
        attach(address)
    try:
        return cluster_of_nodes(live_nodes()), f"ray/{head_node()}"
    finally:
        if not connected:
            ray.shutdown()


def live_nodes() -> list[dict[str, float]]:
    """Resources of every node that is alive, by name."""

    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def ray_nodes_alive() -> tuple[RayNode, ...]:
    """Every node that is alive, for those who watch."""
    import ray

    return tuple(
        RayNode(node["NodeID"], node["NodeManagerAddress"], int(node["MetricsExportPort"] or 0), node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    )


def free_nodes() -> list[dict[str, float]]:
    """What of every living node's resources nobody holds now, by name."""
    from ray._private.state import available_resources_per_node

    return [dict(free) for free in available_resources_per_node().values()]


def head_node() -> str:
    """Ray's name of the node that coordinates the cluster: no other cluster, before or after, has the same."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    heads = [node["NodeID"] for node in nodes if "node:__internal_head__" in node["Resources"]]
    return str(min(heads or [node["NodeID"] for node in nodes]))


def variables_of_nodes(names: Sequence[str]) -> dict[str, str]:
    """Of these environment variables those that every living node's processes have, with one value."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def look(names: Sequence[str]) -> dict[str, str]:
        return {name: os.environ[name] for name in names if name in os.environ}

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    on = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    task = ray.remote(num_cpus=0)(look)
    told = ray.get([task.options(scheduling_strategy=one).remote(names) for one in on], timeout=CONNECT_TIMEOUT_S)
    first, *others = told
    return {name: value for name, value in first.items() if all(one.get(name) == value for one in others)}


def groups_pending() -> bool:
    """True while a placement group waits for room."""

    from ray.util import placement_group_table

    return any(group["state"] == "PENDING" for group in placement_group_table().values())


def ray_logs() -> Path | None:
    """Where this node's Ray keeps its logs; None where this process is connected to none."""
    from ray._private import worker

    node = worker._global_node
    return None if node is None else Path(node.get_logs_dir_path())


def deploy_application(config: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Hand an application to Ray Serve, and do not wait. Raises LaunchFailed for one that Serve LLM refuses.

    ``environment`` is what Ray's nodes have for its path from client to engine: what is built follows from it.
    """

    from ray import serve as ray_serve
    from ray.serve import llm

    build = getattr(llm, config["import_path"].rpartition(":")[2])
    name, prefix, logs = config["name"], config["route_prefix"], config["logging_config"]
    try:
        with quiet(), _building_for(environment):
            target = ray_serve.RunTarget(build(config["args"]), name, prefix, logs, external_scaler_enabled=True)
            ray_serve.run_many([target], wait_for_applications_running=False)
    except (ValueError, TypeError, ImportError) as error:
        raise LaunchFailed(FailureReason.ENGINE_CRASHED, f"Ray Serve LLM refuses the configuration: {error}") from None


@contextlib.contextmanager
def _building_for(environment: Mapping[str, str]) -> Iterator[None]:
    """Have those who build applications believe in an environment, for the block.

    They have read this process's own when it imported them, which it does once, whatever Ray it uses later. A handle
    is made here and sent to the replica that asks by it: it says whether that is by gRPC.
    Raises ValueError where this release of Ray does not know a variable that is set.
    """
    with _ENVIRONMENT:
        before = []
        try:
            for variable, modules in _READ_BY.items():
                for module in map(importlib.import_module, modules):
                    if hasattr(module, variable):
                        before.append((module, variable, getattr(module, variable)))
                        setattr(module, variable, environment.get(variable) == "1")
                    elif environment.get(variable) == "1":
                        raise ValueError(f"{variable} is unknown to this release of Ray")
            handles, name = importlib.import_module("ray.serve.handle"), "create_dynamic_handle_options"
            before.append((handles, name, options := getattr(handles, name)))
            by_grpc = "1" in (environment.get(GRPC), environment.get(THROUGHPUT))
            setattr(handles, name, functools.partial(options, _by_reference=not by_grpc))
            yield
        finally:
            for module, variable, value in before:
                setattr(module, variable, value)


def change_replicas(app: str, deployment: str, replicas: int) -> None:
    """Have a deployment of an application run so many replicas; the others stay as they are."""
    import ray
    from ray.serve._private.common import DeploymentID
    from ray.serve.context import _get_global_client

    controller = _get_global_client()._controller
    this = DeploymentID(name=deployment, app_name=app)
    ray.get(controller.update_deployment_replicas.remote(this, replicas), timeout=CONNECT_TIMEOUT_S)


def change_interval(actors: Sequence[str], interval_ms: int) -> None:
    """Have these replicas of Serve LLM's engines send tokens on every so many ms, from the next request on."""
    import ray

    def change(_replica: Any, interval_ms: int) -> None:  # within a function, so that Ray sends the code itself
        from ray.serve import get_replica_context

        server = get_replica_context().servable_object
        server._llm_config.experimental_configs["stream_batching_interval_ms"] = interval_ms

    found = [ray.get_actor(name, namespace="serve") for name in actors]
    ray.get([actor.__ray_call__.remote(change, interval_ms) for actor in found], timeout=CONNECT_TIMEOUT_S)


def delete_application(app: str, *, wait: bool = True) -> None:
    """Delete an application, and wait until its replicas are gone."""

    from ray import serve as ray_serve

    with quiet():
        ray_serve.delete(app, _blocking=wait)


def attach(address: str) -> None:
    """Connect this process to a running Ray, with the token that this machine has for it, if any.

    A Ray that is started where a token is at hand asks for it; ``ray.init`` by an address does not look for one.
    """
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    with quiet("ray"):
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        ray_init(address=address)


def ray_init(**options: Any) -> None:
    """Connect, or start a Ray, without its lines on the terminal."""

    import ray

    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)


def is_connected() -> bool:
    """True where this process has a Ray."""
    import ray

    return bool(ray.is_initialized())


def ray_shutdown() -> None:
    """Leave the Ray of this process, and end it where it was started here.

    Serve remembers its controller by a number of this process's job, which the next Ray's first job has as well.
    """
    import ray

    context = sys.modules.get("ray.serve.context")
    if context is not None:
        context._set_global_client(None)
    ray.shutdown()


def start_serve(host: str, port: int) -> None:
    """Start Ray Serve, whose proxies listen on ``host`` at ``port``."""
    from ray import serve as ray_serve

    with quiet():
        ray_serve.start(http_options={"host": host, "port": port})


def import_quietly() -> None:
    """Import Ray Serve LLM, and with it vLLM, which announces itself on standard output."""
    with environment_of(VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1"), quiet():
        import ray.serve.llm  # noqa: F401


@contextlib.contextmanager
def quiet(name: str = "ray.serve") -> Iterator[None]:
    """Keep progress messages of Ray's own off the terminal."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def environment_of(**variables: str) -> Iterator[None]:
    """Environment variables that hold for the block alone; they are the process's, so blocks wait for each other."""
    with _ENVIRONMENT:
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


def serve_details() -> dict[str, Any]:
    """All that Serve's controller says of its applications. Raises ParlayError where none runs."""

    from ray.serve.context import _get_global_client

    client = _get_global_client()
    if client is None:
        raise ParlayError("Ray Serve is not running")
    details: dict[str, Any] = client.get_serve_details()
    return details


def serve_runs() -> bool:
    """True where this Ray has a Serve."""

    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=False) is not None


def own_ip() -> str:
    """Address of this node as Ray knows it."""

    from ray.util import get_node_ip_address

    return str(get_node_ip_address())
