"""Kills the controller at random instants while LayoutRequests are made, changed and deleted, and counts what is wrong.

    python -m tests.benchmarks.kubernetes_killed [--kills 50] [--requests 4] [--seed 0]

On a real API server (``tests/api_server.py``), with a worker on simulated clusters and a stand-in that says of every
RayService that it serves. Half of the LayoutRequests have a RayCluster made for their study; another stand-in says
that its pods are there, and runs the worker of its head, with simulated trials. The controller is killed with SIGKILL,
mostly in its first seconds, when it has most to do, and started again under its name, as the container of a pod is. Of
each round's LayoutRequests half get another SLO on the way. Then each has to serve what was asked last: one RayService,
no RayCluster, no study that still waits or runs, no study twice; then they are deleted, and nothing may be left of
them.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.api_server import ApiServer, wait_for
from tests.fakes import document
from tests.kube_bench import ControllerProcess, RealKube, prepare
from tests.layout_requests import NAMESPACE, SMALL, KubeRayStandIn, layout_request, phase
from tests.study_clusters import CREATE, OperatorStandIn
from tuner.app.controller.kube import CONFIG_MAP, EVENT, LAYOUT_REQUEST, RAY_CLUSTER, RAY_SERVICE
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.errors import Cause
from tuner.study.lifecycle import StudyState
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

OTHER = document({**SMALL, "slo": [{"metric": "ttft", "percentile": 99, "ms": 400}]})
OPEN = (StudyState.QUEUED, StudyState.RUNNING, StudyState.PAUSED)


def one_round(
    kube: RealKube, controller: ControllerProcess, store: Store, many: int, chance: random.Random
) -> Counter[str]:
    """So many LayoutRequests from their making to their end; what was counted."""
    found: Counter[str] = Counter()
    names = [f"round-{chance.randrange(10**8)}-{number}" for number in range(many)]
    before = set(store.study_names())
    for number, name in enumerate(names):
        spec = {"launcher": None, "trials": CREATE} if number % 4 > 1 else {"simulatedSeed": number}
        kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request(name, **spec))
    changed = names[::2]
    waits, until = list(changed), time.monotonic() + 300
    while waits or not all(_serves(kube, name, name in changed) for name in names):
        found["late"] += time.monotonic() > until
        if found["late"]:
            break
        time.sleep(chance.choice((chance.uniform(0.8, 3.0), chance.uniform(1.5, 6.0))))
        if waits and chance.random() < 0.5:
            kube.edit(LAYOUT_REQUEST, NAMESPACE, waits.pop(), {"spec": {"request": OTHER}})
        controller.kill()
        found["kills"] += 1
        controller.start()
        found["most clusters"] = max(found["most clusters"], len(kube.list(RAY_CLUSTER, NAMESPACE)[0]))
    with suppress(AssertionError):
        wait_for(lambda: not kube.list(RAY_CLUSTER, NAMESPACE)[0])
    found["clusters left"] += len(kube.list(RAY_CLUSTER, NAMESPACE)[0])
    mine = [name for name in store.study_names() if name not in before]
    found["requests"] += many
    found["rayservices"] += len(kube.list(RAY_SERVICE, NAMESPACE)[0])
    found["studies"] += len(mine)
    found["most studies"] += many + len(changed)
    found["open studies"] += sum(store.listing.state(name) in OPEN for name in mine)
    events = kube.list(EVENT, NAMESPACE)[0]
    same = Counter((e["involvedObject"]["name"], e["reason"], e["message"]) for e in events if e["reason"] == "Winner")
    found["told twice"] += sum(count - 1 for count in same.values())
    for name in names:
        kube.delete(LAYOUT_REQUEST, NAMESPACE, name)
    time.sleep(chance.uniform(0.0, 0.3))
    controller.kill()
    found["kills"] += 1
    controller.start()
    wait_for(lambda: not kube.list(LAYOUT_REQUEST, NAMESPACE)[0], 60)
    wait_for(lambda: not kube.list(RAY_SERVICE, NAMESPACE)[0], 60)
    found["clusters left"] += len(kube.list(RAY_CLUSTER, NAMESPACE)[0])
    maps = [one["metadata"]["name"] for one in kube.list(CONFIG_MAP, NAMESPACE)[0]]
    found["left"] += len([name for name in maps if name.startswith("round-")])
    return found


def _serves(kube: RealKube, name: str, changed: bool) -> bool:
    request: Any = kube.get(LAYOUT_REQUEST, NAMESPACE, name)
    return phase(request) == "RolledOut" and request["status"]["observedGeneration"] == (2 if changed else 1)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    total: Counter[str] = Counter()
    chance, began, rounds, most = random.Random(options.seed), time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="parlay-") as scratch:
        folder = Path(scratch)
        server, store, stop = (
            ApiServer(folder / "server").start(),
            Store(f"sqlite:///{folder}/store.db"),
            CancelHandle(),
        )
        kube = prepare(server)
        controller = ControllerProcess(server, store.url, folder).start()
        try:
            worker = Worker(store, WorkerSettings(("simulated",), None, folder / "out"), stop)
            threading.Thread(target=worker.run, daemon=True).start()
            with KubeRayStandIn(kube), OperatorStandIn(kube, store, folder):
                while total["kills"] < options.kills:
                    found = one_round(kube, controller, store, options.requests, chance)
                    most = max(most, found.pop("most clusters", 0))
                    total += found
                    rounds += 1
        finally:
            controller.stop()
            stop.cancel(Cause.SHUTDOWN)
            server.stop()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, {time.strftime('%F', time.gmtime())}")
    print(
        f"{total['kills']} kills in {rounds} rounds of {options.requests} LayoutRequests, "
        f"{time.monotonic() - began:.0f} s"
    )
    print(f"that did not converge: {total['late']}; RayServices: {total['rayservices']} of {total['requests']}")
    print(f"studies: {total['studies']} of at most {total['most studies']}; still open: {total['open studies']}")
    print(f"RayClusters: at most {most} at a time; left behind: {total['clusters left']}")
    print(f"decisions told twice: {total['told twice']}; left behind by deleted ones: {total['left']}")


if __name__ == "__main__":
    main()
