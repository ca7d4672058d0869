"""The Ray and the Serve on which all deployments of a launcher run: joined where they run, else started here."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from serve.launch.device import devices_of
from serve.launch.fronts import VARIABLES, missing, variables, without_haproxy
from serve.launch.niceness import own_ray
from serve.launch.one_ray import RAY
from serve.launch.processes import LauncherRecord, end, free_port, require_free_port, writers_under
from serve.launch.ray_api import (
    attach,
    environment_of,
    import_quietly,
    is_connected,
    own_ip,
    ray_init,
    ray_shutdown,
    require_ray_address,
    serve_details,
    serve_runs,
    start_serve,
    variables_of_nodes,
)
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import ClusterSpec
from tuner.errors import BadInput
from tuner.trial.seams import Watch

OBJECT_STORE_BYTES = 100 * 1024 * 1024
STOP_PATIENCE_S = 5.0
_HELD = ("scratch", "directories")  # kinds of the record under which a directory of ours is remembered


class RaySession:
    """``address`` is that of a running cluster's head, or None for a Ray of our own; ``http_port`` is Serve's, or None.

    ``record`` is told of what a kill would leave behind. Raises BadInput for an address that does not answer, and for
    a port in use; so do its methods, and for another cluster than the one that this process uses.
    """

    def __init__(self, address: str | None, http_port: int | None, record: LauncherRecord) -> None:
        self._address, self._http_port, self._record = address, http_port, record
        self._base_url: str | None = None
        self._environment: dict[str, str] = {}
        self._found: dict[str, str] | None = None  # of the environment of a running cluster
        self._scratch: Path | None = None
        self._connected = False
        self._starting = threading.RLock()
        if address is not None:
            require_ray_address(address)
        elif http_port is not None:
            require_free_port(http_port, "http_port")

    @property
    def own(self) -> bool:
        """True for a Ray that is started here."""
        return self._address is None

    def start(self, cluster: ClusterSpec, watch: Watch, environment: Mapping[str, str] = MappingProxyType({})) -> str:
        """Base URL of Serve, with Ray and Serve up; ``cluster`` is what a Ray of our own is to have.

        So is the ``environment`` of its nodes: with another one it is started anew, and nothing may be deployed there
        then. Whoever comes while it starts waits for it; what fails, or is interrupted, leaves nothing.
        """
        with self._starting:
            if self._base_url is not None and (not self.own or self._environment == environment):
                return self._base_url
            try:
                if self._address is None:
                    watch.progress("starting Ray" if self._base_url is None else "starting Ray for another front")
                    self.close()
                    self._start_local(cluster, dict(environment))
                else:
                    watch.progress(f"connecting to Ray at {self._address}")
                    self._connect(self._address)
                watch.progress("loading Ray Serve LLM")
                watch.cancel.raise_if_cancelled()
                import_quietly()
                watch.cancel.raise_if_cancelled()
                self._base_url = self._start_serve()
                return self._base_url
            except BaseException:
                self.close()
                raise

    def connect(self) -> None:
        """Join the running cluster, without a Serve; nothing where Ray is our own."""
        if self._address is not None:
            self._connect(self._address)

    def close(self) -> None:
        """Leave Ray, or stop the one that was started here, and remove its files."""
        if self._connected:
            self._connected = False
            RAY.leave(ray_shutdown)
        if self._scratch is not None:
            end(writers_under([self._scratch]), patience_s=STOP_PATIENCE_S)
            shutil.rmtree(self._scratch, ignore_errors=True)
            for kind in _HELD:
                self._record.drop(kind, self._scratch)
        self._base_url = self._scratch = None

    def other_front(self, layout: ParallelLayout) -> str | None:
        """Why the running cluster has another front than a layout asks for, or this machine cannot have it; None where
        it has that."""
        if self.own:
            return without_haproxy(layout)
        if layout.front == "auto" and not variables(layout):
            return None
        if self._found is None:
            self.connect()
            self._found = variables_of_nodes(VARIABLES)
        return missing(layout, self._found)

    def _start_local(self, cluster: ClusterSpec, environment: dict[str, str]) -> None:
        if self._http_port is not None:
            require_free_port(self._http_port, "http_port")
        with RAY.joining(None):
            self._connected = True  # before, so that an interrupted start is stopped as well
            # Ray's sockets lie below it, and a socket's path has at most 107 bytes: hence not in state_dir.
            self._scratch = Path(tempfile.mkdtemp(prefix="parlay-"))
            for kind in _HELD:
                self._record.add(kind, self._scratch)
            self._environment = environment
            own = own_ray() | own_haproxy(self._scratch) | environment
            with environment_of(RAY_USAGE_STATS_ENABLED="0", TMPDIR=str(self._scratch), **own):
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
        host, port = proxy_of(serve_details())
        if self._http_port not in (None, port):
            raise BadInput("http_port", self._http_port, f"{port}, on which this cluster's Ray Serve listens")
        return f"http://{'127.0.0.1' if local else host}:{port}"


def own_haproxy(scratch: Path) -> dict[str, str]:
    """Where a HAProxy of our own Ray's Serve keeps its files, ports of its own for its counts, and how long replicas
    that it asks stay up after they are told to end: by default half a minute, for others who deal requests to them.

    Its defaults are one folder of the machine and two ports, which another Ray's HAProxy may have; by its files its
    process is found where it outlives Ray. A socket's path is short: hence the name of the folder.
    """
    files = scratch / "h"
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(files / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(files / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


def proxy_of(details: Mapping[str, Any]) -> tuple[str, int]:
    """Host and port of a proxy of Serve, of what its controller says: this node's, where it has one."""
    nodes = [proxy["node_ip"] for proxy in details["proxies"].values() if proxy.get("node_ip")]
    return "127.0.0.1" if not nodes or own_ip() in nodes else nodes[0], int(details["http_options"]["port"])
