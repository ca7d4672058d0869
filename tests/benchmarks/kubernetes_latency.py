"""How soon the controller answers a change, and what an idle LayoutRequest costs, with many of them.

    python -m tests.benchmarks.kubernetes_latency [--requests 200] [--edits 200] [--per-s 5] [--idle-s 180]

On a real API server and one machine with everything else. Latency is from the answer to `kubectl apply`'s call to the
moment when a watch tells of the status that is of the new generation. First all are made at once; then, when they are
decided and serve (as a stand-in for KubeRay says), one after the other gets another SLO, so many a second; at last
nobody does anything, and the controller's calls of the API server are counted from its own metrics.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from tests.api_server import ApiServer, wait_for
from tests.kube_bench import ControllerProcess, RealKube, prepare
from tests.layout_requests import NAMESPACE, KubeRayStandIn, layout_request, phase
from tuner.app.controller.kube import LAYOUT_REQUEST, KubeError
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.errors import Cause
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle


class Stopwatch:
    """When each generation of each LayoutRequest was asked for, and when its status told of it."""

    def __init__(self, kube: RealKube) -> None:
        self._kube, self._told = kube, dict[tuple[str, int], float]()
        self.asked: dict[tuple[str, int], float] = {}
        _, self._version = kube.list(LAYOUT_REQUEST, NAMESPACE)
        threading.Thread(target=self._watch, daemon=True).start()

    def seconds(self, generation: int) -> list[float]:
        """Of all that were asked for, waiting for the last."""
        wanted = [key for key in self.asked if key[1] == generation]
        wait_for(lambda: all(key in self._told for key in wanted), 600)
        return [self._told[key] - self.asked[key] for key in wanted]

    def _watch(self) -> None:
        while True:
            try:
                for change in self._kube.watch(LAYOUT_REQUEST, NAMESPACE, self._version, 3600):
                    now, meta = time.perf_counter(), change.object["metadata"]
                    self._version = meta["resourceVersion"]
                    said = (change.object.get("status") or {}).get("observedGeneration")
                    if said is not None:
                        self._told.setdefault((meta["name"], said), now)
            except KubeError:
                return


def shown(seconds: list[float]) -> str:
    """Percentiles of latencies."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, most {max(seconds):.2f} s of {len(seconds)}"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--edits", type=int, default=200, help="0: no more than the first part")
    parser.add_argument("--per-s", type=float, default=5)
    parser.add_argument("--idle-s", type=float, default=180)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, {time.strftime('%F', time.gmtime())}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory(prefix="parlay-") as scratch:
        folder, stop = Path(scratch), CancelHandle()
        server, store = ApiServer(folder / "server").start(), Store(f"sqlite:///{folder}/store.db")
        kube = prepare(server)
        controller = ControllerProcess(server, store.url, folder).start()
        try:
            wait_for(lambda: controller.answer("/readyz"))
            watch, names = Stopwatch(kube), [f"request-{number}" for number in range(options.requests)]
            for name in names:
                kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request(name))
                watch.asked[name, 1] = time.perf_counter()
            print(f"all {options.requests} made at once: {shown(watch.seconds(1))}", flush=True)
            if not options.edits:
                return
            worker = Worker(store, WorkerSettings(("simulated",), None, folder / "out"), stop)
            threading.Thread(target=worker.run, daemon=True).start()
            with KubeRayStandIn(kube, every_s=2):
                wait_for(lambda: _all_serve(kube, options.requests), 1800)
            before, began = _calls(controller), time.monotonic()
            time.sleep(options.idle_s)
            calls, minutes = _calls(controller) - before, (time.monotonic() - began) / 60
            each = calls / minutes / options.requests
            print(f"idle: {calls:.0f} calls in {minutes:.1f} min, {each:.3f} a LayoutRequest and minute", flush=True)
            stop.cancel(Cause.SHUTDOWN)
            for number, name in enumerate(names[: options.edits]):
                slo = [{"metric": "ttft", "percentile": 99, "ms": 300 + number}]
                kube.edit(LAYOUT_REQUEST, NAMESPACE, name, {"spec": {"request": {"slo": slo}}})
                watch.asked[name, 2] = time.perf_counter()
                time.sleep(1 / options.per_s)
            print(f"{options.per_s:g} changes a second: {shown(watch.seconds(2))}")
        finally:
            controller.stop()
            stop.cancel(Cause.SHUTDOWN)
            server.stop()


def _all_serve(kube: RealKube, count: int) -> bool:
    return [phase(one) for one in kube.list(LAYOUT_REQUEST, NAMESPACE)[0]].count("RolledOut") == count


def _calls(controller: ControllerProcess) -> float:
    return sum(controller.calls().values())


if __name__ == "__main__":
    main()
