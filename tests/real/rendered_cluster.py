"""A Ray cluster as KubeRay would make one of a rendered RayService: a node for each pod, as large as its container.

What stands in for KubeRay says only what it takes from the manifest: the words of ``ray start``, the cores, the ports
and the probes, and that ``serveConfigV2`` is handed to Serve's API. Every node is a process of this machine, so that
ports that are fixed in a pod are others here.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from serve.launch.engine_processes import EngineProcesses
from serve.launch.processes import ProcessId, end, free_port, identify, writers_under

_AGENT = 52365  # of every pod: where KubeRay's probes ask the node's agent
_DASHBOARD, _SERVE = 8265, 8000


class RenderedCluster:
    """Started by ``with``, from the document of a RayService; whoever asks it needs its token."""

    def __init__(self, service: dict[str, Any]) -> None:
        self._spec = service["spec"]
        self._scratch = Path(tempfile.mkdtemp(prefix="ray-"))  # short: a socket's path has at most 107 bytes
        self._token = secrets.token_hex(32)
        self._gcs, self._dashboard, self._port = free_port(), free_port(), free_port()
        self._nodes: list[tuple[subprocess.Popen[bytes], dict[str, Any], int]] = []

    def __enter__(self) -> RenderedCluster:
        cluster = self._spec["rayClusterConfig"]
        # The dashboard is asked by this process alone.
        head = {"dashboard-host": "127.0.0.1", "dashboard-port": str(self._dashboard), "port": str(self._gcs)}
        given = cluster["headGroupSpec"]["rayStartParams"] | head | {"ray-client-server-port": str(free_port())}
        self._start(cluster["headGroupSpec"], {**given, "temp-dir": str(self._scratch)}, "--head")
        self._wait(lambda: "success" in self._ask("/api/gcs_healthz"))
        for group in cluster["workerGroupSpecs"]:
            for _ in range(group["replicas"]):
                self._start(group, group["rayStartParams"], f"--address=127.0.0.1:{self._gcs}")
        return self

    def __exit__(self, *_: object) -> None:
        for process, _, _ in self._nodes:
            process.kill()
            process.wait()
        end(writers_under([self._scratch]), patience_s=5)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self, group: dict[str, Any], params: dict[str, str], role: str) -> None:
        """``params`` win over what is read off the container, as in KubeRay."""
        (container,) = group["template"]["spec"]["containers"]
        agent = free_port()
        words = {"num-cpus": container["resources"]["limits"]["cpu"], "dashboard-agent-listen-port": str(agent)}
        flags = [f"--{name}={value}" for name, value in (words | params).items()]
        environment = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        environment |= {"HF_HOME": str(self._scratch / "hf"), "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token, "RAY_raylet_start_wait_time_s": "300"}
        with (self._scratch / f"node-{len(self._nodes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [Path(sys.executable).with_name("ray"), "start", "--block", role, *flags],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **environment},
            )  # fmt: skip
        self._nodes.append((process, container, agent))

    def apply(self) -> None:
        """Hand ``serveConfigV2`` to Serve, unchanged but for where this machine's Serve listens."""
        config = yaml.safe_load(self._spec["serveConfigV2"])
        config["http_options"] = {"host": "127.0.0.1", "port": self._port}
        self._wait(lambda: "error" not in self._ask("/api/serve/applications/", "PUT", config))

    def answer(self, model: str) -> dict[str, Any]:
        """The first completion. No clock: it takes as long as it takes; an engine that dies says so."""
        body = {"model": model, "prompt": [11, 12, 13], "max_tokens": 4, "ignore_eos": True}
        engine = EngineProcesses()
        while True:
            lost = engine.look(self._engines())
            assert not lost, f"{lost}\n{self._told()}"
            try:
                return dict(json.loads(_call(f"http://127.0.0.1:{self._port}/v1/completions", "POST", body, {})))
            except OSError:
                time.sleep(0.5)

    def statuses(self) -> dict[str, str]:
        """Of the applications, which is what KubeRay looks at."""
        told = json.loads(self._ask("/api/serve/applications/"))
        return {name: one["status"] for name, one in told["applications"].items()}

    def probes(self) -> dict[str, int]:
        """Exit code of every probe of every container, with the ports of here in place of those of a pod."""
        ports = {_DASHBOARD: self._dashboard, _SERVE: self._port}
        codes = {}
        for place, (_, container, agent) in enumerate(self._nodes):
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                *shell, script = container[kind]["exec"]["command"]
                for port, here in {**ports, _AGENT: agent}.items():
                    script = script.replace(f"localhost:{port}/", f"localhost:{here}/")
                done = subprocess.run([*shell, script], capture_output=True, timeout=30)
                codes[f"{container['name']} {place}: {kind}"] = done.returncode
        return codes

    def _ask(self, path: str, method: str = "GET", body: Any = None) -> str:
        try:
            return _call(
                f"http://127.0.0.1:{self._dashboard}{path}", method, body, {"Authorization": f"Bearer {self._token}"}
            )
        except OSError as error:
            return f"error: {error}"

    def _engines(self) -> set[ProcessId]:
        """Leaders of the process groups in which Ray's workers live."""
        leaders = set()
        for process in writers_under([self._scratch]):
            try:
                leaders.add(identify(os.getpgid(process.pid)))
            except ProcessLookupError:  # it ended meanwhile
                continue
        return {leader for leader in leaders if leader is not None}

    def _wait(self, look: Any) -> None:
        while not look():
            assert all(process.poll() is None for process, _, _ in self._nodes), self._told()
            time.sleep(0.2)

    def _told(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self._scratch.glob("node-*.log")))


def _call(url: str, method: str, body: Any, headers: dict[str, str]) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return str(reply.read().decode())
    except urllib.error.HTTPError as error:
        raise OSError(f"{error}: {error.read().decode()[:500]}") from None
