"""Deploys a path before an engine that costs nothing, and measures windows of load through it.

    python -m tests.fit.front_path SERIES.json OUT.csv

SERIES.json holds what one start is for: ``{"front", "engine": "free" | "vllm", "flags": {NAME: VALUE}, "niceness",
"deploys": [{"ingress", "engines", "router", "max_ongoing", "proxies", "windows": [{...}, ...]}, ...]}``. Ray reads its
flags where it starts, so a series of other flags is another process. Rows are appended as they are measured.
"""

from __future__ import annotations

import csv
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
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from serve.load.endpoint import Endpoint
from serve.measure.window import Window
from serve.measure.window_requests import WindowOrder
from serve.measure.window_runner import WindowRunner
from serve.tiny_model import build_tiny_model
from tests.fit.front_control import CONTROL, LOG
from tests.fit.front_processes import Processes, Used, machine_s, used
from tuner.ask.arrivals import offered
from tuner.ask.request import Arrival, TokenLengths, Workload

PORT = 18765
LEAD_S = 2.0
HOPS = ("proxy", "ingress", "router", "replica", "haproxy", "api_server", "core", "client", "ray")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Point:
    """A window that is asked for, and the deployment that it meets."""

    front: str
    engine: str
    flags: str
    niceness: int
    ingress: int
    engines: int
    router: str
    max_ongoing: int
    api_servers: int
    interval_ms: int
    step_ms: float
    output_tokens: int
    prompt_tokens: int
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """What was seen in a window; times in ms, processor time in seconds over ``busy_s`` of wall time.

    ``engine_ttft_ms`` is the mean time of the engine alone. ``span_s`` is from the first counted request to the last
    token, in which ``tokens`` came in ``messages``. Beside them stands ``machine_cpu_s``, of which the hops' is a part:
    where it is much more, something else was running.
    """

    requests: int
    failed: int
    offered: float
    messages: int
    tokens: int
    span_s: float
    engine_ttft_ms: float | None
    ttft_mean_ms: float
    ttft_p50_ms: float
    ttft_p90_ms: float
    ttft_p99_ms: float
    tpot_mean_ms: float
    tpot_p99_ms: float
    itl_p99_ms: float
    sent: int
    events: int
    busy_s: float


COLUMNS = (
    *(field.name for field in fields(Point)),
    *(field.name for field in fields(Row)),
    *(f"{hop}_{what}" for hop in HOPS for what in ("cpu_s", "loop_s")),
    "machine_cpu_s",
    "seed",
)


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


def measured(bench: Bench, point: Point, seed: int) -> dict[str, Any]:
    """A row of the table."""
    bench.tell(point.interval_ms, point.step_ms)
    workload = Workload(
        prompt_tokens=TokenLengths(mean=point.prompt_tokens, min=point.prompt_tokens, max=point.prompt_tokens),
        output_tokens=TokenLengths(mean=point.output_tokens, min=point.output_tokens, max=point.output_tokens),
        arrival=Arrival(requests_per_s=point.rate),
    )
    load = offered(workload, point.rate, LEAD_S + point.seconds, seed)
    order = WindowOrder(
        name=f"{point.rate:g} requests/s", load=load, duration_s=point.seconds, slo=(), lead_s=LEAD_S,
        rate_req_per_s=point.rate, timeout_s=60.0, stream=(seed, 1, 0),
    )  # fmt: skip
    runner = WindowRunner(Endpoint(f"http://127.0.0.1:{PORT}", "m"), (), None, 1, whole_windows=True)
    processes = Processes()
    _, before = processes.look()
    begun_s, begun, worked_s = time.time(), time.perf_counter(), machine_s()
    window = runner.run(order)
    hops, after = processes.look()
    busy_s, worked_s = time.perf_counter() - begun, machine_s() - worked_s
    row = _row(window, bench.engine_ttft_ms(begun_s + LEAD_S, time.time()), busy_s)
    return {
        **asdict(point),
        **asdict(row),
        **_spent(used(before, after, hops)),
        "machine_cpu_s": worked_s,
        "seed": seed,
    }


def _row(window: Window, engine_ms: float | None, busy_s: float) -> Row:
    counted = [sample for sample in window.counted if sample.ok]
    everything = [sample for sample in window.samples if sample.ok]
    ttft, tpot = (1e3 * np.array([getattr(s, n) for s in counted], float) for n in ("ttft_s", "tpot_s"))
    gaps = 1e3 * np.concatenate([s.itl_s for s in counted])
    span_s = max(s.chunk_s[-1] for s in counted) - min(s.sent_s for s in counted)
    return Row(
        requests=len(counted),
        failed=sum(not sample.ok for sample in window.samples),
        offered=len(window.counted) / window.order.duration_s,
        messages=sum(len(set(s.chunk_s)) for s in counted),
        tokens=sum(s.output_tokens or 0 for s in counted),
        span_s=span_s,
        engine_ttft_ms=engine_ms,
        ttft_mean_ms=float(np.mean(ttft)),
        ttft_p50_ms=float(np.percentile(ttft, 50)),
        ttft_p90_ms=float(np.percentile(ttft, 90)),
        ttft_p99_ms=float(np.percentile(ttft, 99)),
        tpot_mean_ms=float(np.mean(tpot)),
        tpot_p99_ms=float(np.percentile(tpot, 99)),
        itl_p99_ms=float(np.percentile(gaps, 99)),
        sent=len(everything),
        events=sum(len(set(s.chunk_s)) for s in everything),
        busy_s=busy_s,
    )


def _spent(by_hop: Mapping[str, Used]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for hop in HOPS:
        spent = by_hop.get(hop)
        found[f"{hop}_cpu_s"] = None if spent is None else round(spent.all_s, 3)
        found[f"{hop}_loop_s"] = None if spent is None else round(spent.loops_s, 3)
    return found


def answers(patience_s: float = 90.0) -> None:
    """Wait until the path answers a request; raises TimeoutError."""
    body = json.dumps({"model": "m", "prompt": [11, 12], "max_tokens": 2, "stream": True}).encode()
    url, end_s = f"http://127.0.0.1:{PORT}/v1/completions", time.monotonic() + patience_s
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
        if deploy.get("router", "power_of_two") == "prefix_aware":
            deployment["request_router_config"] = {
                "request_router_class": "ray.serve.llm.request_router.PrefixCacheAffinityRouter"
            }
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
        answers()

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
        answers(180)

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


def points_of(series: Mapping[str, Any], deploy: Mapping[str, Any]) -> Iterator[Point]:
    """The windows of one deployment."""
    flags = " ".join(f"{name}={value}" for name, value in sorted(series.get("flags", {}).items()))
    for window in deploy["windows"]:
        yield Point(
            front=series["front"],
            engine=series.get("engine", "free") if series["front"] != "vllm" else "vllm",
            flags=flags + (f" proxies={series['proxies']}" if "proxies" in series else ""),
            niceness=series.get("niceness", 0),
            ingress=deploy.get("ingress", 1),
            engines=deploy.get("engines", 1),
            router=deploy.get("router", "power_of_two"),
            max_ongoing=deploy.get("max_ongoing", 10**9),
            api_servers=deploy.get("api_servers", 1),
            interval_ms=window.get("interval_ms", 0),
            step_ms=window.get("step_ms", 20),
            output_tokens=window.get("output_tokens", 64),
            prompt_tokens=window.get("prompt_tokens", 256),
            rate=window["rate"],
            seconds=window.get("seconds", 8),
        )


def run_series(series: Mapping[str, Any], out: Path) -> None:
    """Deploy, measure, and append the rows."""
    with path_of(series) as (bench, path):
        for deploy in series["deploys"]:
            path.deploy(deploy)
            for number, point in enumerate(points_of(series, deploy)):
                row = measured(bench, point, seed=1000 + number)
                append(out, row)
                print(_line(row), flush=True)


def append(out: Path, row: Mapping[str, Any]) -> None:
    """Add a row, under a head where the file is new."""
    new = not out.exists()
    with out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def _line(row: Mapping[str, Any]) -> str:
    loads = {hop: row[f"{hop}_cpu_s"] / row["busy_s"] for hop in HOPS if row[f"{hop}_cpu_s"]}
    loads["others"] = row["machine_cpu_s"] / row["busy_s"] - sum(loads.values())
    cores = " ".join(f"{hop} {share:.2f}" for hop, share in loads.items())
    return (
        f"{row['front']} {row['flags']} i{row['interval_ms']} n{row['ingress']} e{row['engines']} {row['rate']:g}/s: "
        f"engine {row['engine_ttft_ms'] or float('nan'):.1f} ttft {row['ttft_mean_ms']:.1f}/{row['ttft_p50_ms']:.1f}/"
        f"{row['ttft_p99_ms']:.1f} tpot {row['tpot_mean_ms']:.2f} msg {row['messages']} tok {row['tokens']} "
        f"failed {row['failed']} | {cores}"
    )


def main() -> None:
    """Run one series."""
    run_series(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
