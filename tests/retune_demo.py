"""The demo of re-tuning, from nothing, on one machine: ``python -m tests.retune_demo FOLDER``.

A Ray cluster of one node serves a tiny real model by real Ray Serve and vLLM (CPU), found by ``parlay tune`` and
deployed by ``parlay deploy``, under our own load generator. Then two nodes join. ``parlay watch`` notices, has the
model say that another layout carries more, tries it as a canary beside what serves, promotes it, and drains the old
one. At the end stands a page, FOLDER/timeline.html, and the count of requests that the client lost.

Everything is real but the size and the time: nodes are raylets of one CPU each on one machine, and the windows of the
detectors are shortened, which the page says.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from deploy.report.timeline_page import render_timeline
from deploy.rollout.front import Front
from serve.launch.niceness import own_ray
from serve.launch.processes import free_port
from serve.load.client import LoadRun
from serve.load.endpoint import Endpoint
from serve.load.request_spec import Timeouts
from serve.load.workers import run_fast
from serve.measure.window_requests import WindowOrder, share_of
from serve.tiny_model import build_tiny_model
from tuner.app.watch.timeline import timeline_of
from tuner.ask.arrivals import offered
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import load_request
from tuner.errors import ParlayError
from tuner.retune.live import LiveState
from tuner.study.store import Store

STUDY = "retune"
RATE_REQ_PER_S = 1.2
BEFORE_S, AFTER_S = 40.0, 45.0  # of load, before the nodes join and after the promotion
LIMIT_S = float(os.environ.get("DEMO_LIMIT_S", "600"))
SHORTENED = 10.0
REQUEST: dict[str, Any] = {
    "cluster": {"gpu": "cpu", "nodes": 1, "gpus_per_node": 1},
    "workload": {
        "prompt_tokens": {"mean": 256},
        "output_tokens": {"mean": 16},
        "arrival": {"process": "poisson", "requests_per_s": RATE_REQ_PER_S},
    },
    "slo": [{"metric": "ttft", "percentile": 90, "ms": 5000}, {"metric": "tpot", "percentile": 90, "ms": 500}],
    "objective": "max_goodput",
    "space": {"tp": [1], "dp": [1, 2]},
    "engine": {"dtype": "bfloat16", "max_model_len": 512, "start_timeout_s": 900},
    "load": {"rates_req_per_s": [1, RATE_REQ_PER_S], "seconds": 8, "warmup_seconds": 2},
    "budget": {"launches": 1, "minutes": 5},
}
POLICY: dict[str, Any] = {
    "consent": "auto",
    "trials": "never",  # the canary is the trial: the model is sure enough of a second replica
    "persists_minutes": 0.2,
    "regains_minutes": 0.2,
    "cool_down_hours": 0,
    "canary": {"share": 0.5, "least_requests": 20, "most_minutes": 5, "alpha": 0.1, "tolerance": 0.15},
}
OBJECT_STORE_BYTES = 100 * 1024 * 1024


class Demo:
    """One run; ``tell`` says what happens, with the seconds since the beginning."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.began = folder, time.perf_counter()
        self.store = f"sqlite:///{folder / 'parlay.db'}"

    def tell(self, text: str) -> None:
        """One line."""
        print(f"{time.perf_counter() - self.began:5.0f} s  {text}", flush=True)

    def parlay(self, *words: str) -> None:
        """A command of ours, to its end."""
        done = subprocess.run([*_PARLAY, *words, "--out", str(self.folder)], stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise ParlayError(f"parlay {words[0]} ended with exit code {done.returncode}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """``parlay watch`` beside the block."""
        words = [*_PARLAY, "watch", STUDY, "--every", "4", "--windows-shortened", f"{SHORTENED:g}"]
        process = subprocess.Popen([*words, "--out", str(self.folder)])
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def until(self, holds: Callable[[Store], bool], what: str) -> None:
        """Wait until the store says so; raises ParlayError after the demo's limit."""
        opened = Store(self.store)
        try:
            while not holds(opened):
                if time.perf_counter() - self.began > LIMIT_S:
                    raise ParlayError(f"{what} did not come about within {LIMIT_S:g} s")
                time.sleep(1)
        finally:
            opened.close()


_PARLAY = (sys.executable, "-m", "tuner.app.cli.commands")


def run(folder: Path) -> int:
    """The whole of it; 0 where the new layout serves and no request was lost."""
    folder.mkdir(parents=True, exist_ok=True)
    demo, files = Demo(folder), (folder / "request.yaml", folder / "policy.yaml")
    model = build_tiny_model(folder / "tiny-llama", "demo")
    for path, document in zip(files, ({"model": str(model)} | REQUEST, POLICY), strict=True):
        path.write_text(yaml.safe_dump(document, sort_keys=False))
    with cluster() as nodes:
        demo.tell("a Ray cluster of one node of one CPU is up; tuning on it")
        demo.parlay("tune", str(files[0]), "--study", STUDY, "--ray-address", nodes.address)
        port = free_port()
        demo.tell("deploying what was measured")
        demo.parlay("deploy", STUDY, "--ray-address", nodes.address, "--port", str(port), "--policy", str(files[1]))
        request = load_request(files[0])
        with demo.watching(), Load(request, f"http://127.0.0.1:{port}") as load:
            demo.tell(f"it serves {RATE_REQ_PER_S:g} requests/s, and is watched")
            time.sleep(BEFORE_S)
            nodes.join(2)
            demo.tell("two nodes have joined")
            demo.until(lambda store: _serving(store) == ["tp=1,pp=1,dp=2"], "another layout")
            demo.tell("the new layout serves alone")
            time.sleep(AFTER_S)
        return _told(demo, load, folder)


def _serving(store: Store) -> list[str]:
    if store.rollouts.open(STUDY) is not None:
        return []
    return [str(one.deployment.shape) for one in store.live.of(STUDY) if one.state is LiveState.SERVING]


def _told(demo: Demo, load: Load, folder: Path) -> int:
    lost = sum(count for outcome, count in load.outcomes.items() if outcome != "ok")
    asked = sum(load.outcomes.values())
    facts = (
        ("asked by the load generator", f"{asked} requests"),
        ("lost", str(lost) if not lost else f"{lost}: {dict(load.outcomes)}"),
        ("engines", "vLLM on CPU cores, one replica each, behind Ray Serve and HAProxy"),
        ("seconds in all", f"{time.perf_counter() - demo.began:.0f}"),
    )
    store = Store(demo.store)
    try:
        page_file = folder / "timeline.html"
        page_file.write_text(render_timeline(timeline_of(store, STUDY, facts)), encoding="utf-8")
        for rollout in store.rollouts.of(STUDY):
            demo.tell(f"rollout {rollout.number} to {rollout.new}: {rollout.step.value}: {rollout.outcome}")
    finally:
        store.close()
    for front in folder.glob("state/*/front"):  # it would go on, as a front does
        Front(front).close()
    demo.tell(f"{asked} requests, {lost} lost; the timeline: {page_file}")
    return 0 if lost == 0 and asked > 0 else 1


class Load:
    """Our load generator in a thread, from the block's beginning to its end; then its requests are waited for."""

    def __init__(self, request: TuneRequest, url: str) -> None:
        from serve.launch.engine import served_model_id

        self._endpoint = Endpoint(url, served_model_id(request))
        load = offered(request.workload, RATE_REQ_PER_S, LIMIT_S, seed=1)
        self._order = WindowOrder("demo", load, LIMIT_S, request.slo, rate_req_per_s=RATE_REQ_PER_S)
        self._thread = threading.Thread(target=self._go, name="load")
        self._run: LoadRun | None = None
        self._stop = threading.Event()
        self.outcomes: Counter[str] = Counter()

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _go(self) -> None:
        samples = run_fast(self._drive())
        self.outcomes = Counter("ok" if one.ok else one.outcome.value for one in samples)

    async def _drive(self) -> Any:
        import asyncio

        run = LoadRun(self._endpoint, Timeouts(300.0))
        share = share_of(self._order, self._endpoint)

        async def end() -> None:
            while not self._stop.is_set():
                await asyncio.sleep(0.2)
            run.stop()

        ending = asyncio.create_task(end())
        try:
            return await run.run(share.calls, share.then)
        finally:
            ending.cancel()


class Nodes:
    """Raylets of one CPU each, beside the head's."""

    def __init__(self, made: Any) -> None:
        self._made, self.address = made, str(made.address)

    def join(self, count: int) -> None:
        """Have so many join."""
        for _ in range(count):
            self._made.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)


@contextmanager
def cluster() -> Iterator[Nodes]:
    """A Ray cluster of one node, to the end of the block; its agents tell metrics every second."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_metrics_report_interval_ms": "1000", **own_ray()}
    from ray.cluster_utils import Cluster

    made = Cluster()
    try:
        made.add_node(num_cpus=1, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES)
        yield Nodes(made)
    finally:
        made.shutdown()


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1] if len(sys.argv) > 1 else f"parlay-out/retune-{time.strftime('%Y%m%d-%H%M%S')}")))
