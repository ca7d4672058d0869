"""Paths that are up: Ray Serve LLM, or vLLM's own server, before an engine that costs nothing.

Ray reads its flags where it is imported, so a process has one path, whose applications follow one another.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from serve.tiny_model import build_tiny_model
from tests.fit.front_control import CONTROL, LOG

PORT = 18765  # of the proxy, or of vLLM's server
ROOT = Path(__file__).parents[2]
ROUTERS = {
    "prefix_aware": "ray.serve.llm.request_router.PrefixCacheAffinityRouter",
    "round_robin": "ray.serve.experimental.round_robin_router.RoundRobinRouter",
}


class Bench:
    """Files through which the engine is told what the window wants, and tells what it saw."""

    def __init__(self, directory: Path) -> None:
        self.control, self.log = directory / "control.json", directory / "log.txt"
        self.log.touch()
        self.tell(0, 20)
        self.model = build_tiny_model(Path(tempfile.gettempdir()) / "parlay-front-model", "test")
        self.environment = {CONTROL: str(self.control), LOG: str(self.log), "HF_HUB_OFFLINE": "1"}
        self.environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

    def tell(self, interval_ms: int, step_ms: float) -> None:
        """Replaced as a whole: a reader sees the old values or the new ones."""
        new = self.control.with_suffix(".new")
        new.write_text(json.dumps({"interval_ms": interval_ms, "step_ms": step_ms}), encoding="utf-8")
        new.replace(self.control)

    def engine_ttft_ms(self, since_s: float, until_s: float) -> float | None:
        """Mean of the engine's own times to a first token that was made in that time; None where it keeps no log."""
        lines = (line.split() for line in self.log.read_text(encoding="utf-8").splitlines())
        found = [float(ms) for made_s, ms in lines if since_s <= float(made_s) <= until_s]
        return float(np.mean(found)) if found else None


def answers(port: int, prompt: str | list[int], patience_s: float = 90.0) -> None:
    """Wait until the path answers a prompt at a port; raises TimeoutError."""
    body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 2, "stream": True}).encode()
    url, end_s = f"http://127.0.0.1:{port}/v1/completions", time.monotonic() + patience_s
    while True:
        try:
            asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=10) as answer:
                answer.read()
            return
        except OSError as error:
            if time.monotonic() > end_s:
                raise TimeoutError(f"no answer from {url}: {error}") from error
            time.sleep(0.3)


class RayPath:
    """One start of Ray and Serve with its flags, on which applications are deployed one after the other."""

    def __init__(self, bench: Bench, series: Mapping[str, Any]) -> None:
        self._bench, self._series = bench, series
        os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": str(series.get("niceness", 0))})
        os.environ.update(bench.environment | series.get("flags", {}))
        import ray

        ray.init(
            num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            object_store_memory=100 * 2**20,
        )  # fmt: skip
        from ray import serve

        self._serve, self._ray = serve, ray
        serve.start(proxy_location=series.get("proxies", "EveryNode"), http_options={"host": "127.0.0.1", "port": PORT})

    def deploy(self, deploy: Mapping[str, Any]) -> None:
        """Have one application take the place of the one before."""
        from ray.serve.llm import build_openai_app

        free = self._series.get("engine", "free") == "free"
        name = "tests.fit.front_engine.FreeEngine" if free else "tests.fit.front_ray_vllm.FreeVllm"
        variables = self._bench.environment | {"RAYLLM_VLLM_ENGINE_CLS": name}
        if not free:
            variables |= VLLM_ENVIRONMENT
        deployment: dict[str, Any] = {
            "num_replicas": deploy.get("engines", 1),
            "max_ongoing_requests": deploy.get("max_ongoing", 10**9),
            "ray_actor_options": {"num_cpus": 0},
        }
        if (router := deploy.get("router", "power_of_two")) in ROUTERS:
            deployment["request_router_config"] = {"request_router_class": ROUTERS[router]}
        config = {
            "model_loading_config": {"model_id": "m", "model_source": str(self._bench.model)},
            "engine_kwargs": {"max_model_len": 4096} | ({} if free else VLLM_ARGUMENTS),
            "deployment_config": deployment,
            "placement_group_config": {"bundles": [{"CPU": 1}]},
            "accelerator_config": {"kind": "cpu"},
            "runtime_env": {"env_vars": variables},
            "experimental_configs": {"stream_batching_interval_ms": 0},
        }
        built: dict[str, Any] = {"llm_configs": [config]}
        if self._series["front"] != "ray_direct":
            built["ingress_deployment_config"] = {
                "num_replicas": deploy.get("ingress", 1), "max_ongoing_requests": 10**9,
                "ray_actor_options": {"num_cpus": 0},
            }  # fmt: skip
        self._serve.run(build_openai_app(built), name="front", route_prefix="/", blocking=False)
        answers(self._series.get("port", PORT), "one two" if router == "prefix_aware" else [11, 12])

    def end(self) -> None:
        """Stop Serve and Ray."""
        self._serve.shutdown()
        self._ray.shutdown()


VLLM_ENVIRONMENT = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
VLLM_ARGUMENTS: dict[str, Any] = {
    "worker_cls": "tests.fit.front_vllm.FreeWorker",
    "kv_cache_memory_bytes": 2**29,
    "max_num_seqs": 512,
    "max_num_batched_tokens": 16384,
    "enable_prefix_caching": False,
    "async_scheduling": False,
    "enforce_eager": True,
}


class VllmPath:
    """vLLM's own server, as many API servers as are asked for."""

    def __init__(self, bench: Bench, series: Mapping[str, Any]) -> None:
        self._bench = bench
        self._niceness = int(series.get("niceness", 0))
        self._process: subprocess.Popen[bytes] | None = None

    def deploy(self, deploy: Mapping[str, Any]) -> None:
        """Start a server in place of the one before."""
        self.end()
        command = [sys.executable, "-m", "tests.fit.front_vllm_server", str(self._bench.model)]
        command += ["--served-model-name", "m", "--host", "127.0.0.1", "--port", str(PORT), "--max-model-len", "4096"]
        command += ["--api-server-count", str(deploy.get("api_servers", 1)), "--disable-uvicorn-access-log"]
        for name, value in VLLM_ARGUMENTS.items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                command.append(f"--{option}" if value else f"--no-{option}")
            else:
                command += [f"--{option}", str(value)]
        environment = os.environ | self._bench.environment | VLLM_ENVIRONMENT
        with (self._bench.log.parent / "vllm.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        answers(PORT, [11, 12], 180)

    def end(self) -> None:
        """End the server's whole group."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None


@contextmanager
def path_of(series: Mapping[str, Any]) -> Iterator[tuple[Bench, RayPath | VllmPath]]:
    """A path that is up to its first deployment, and its end whatever happens."""
    directory = Path(tempfile.mkdtemp(prefix="parlay-front-"))
    bench = Bench(directory)
    path = (VllmPath if series["front"] == "vllm" else RayPath)(bench, series)
    try:
        yield bench, path
    finally:
        path.end()
        if (log := directory / "vllm.log").exists() and os.environ.get("PARLAY_FRONT_KEEP"):
            print(log.read_text(encoding="utf-8", errors="replace")[-3000:])
        shutil.rmtree(directory, ignore_errors=True)
