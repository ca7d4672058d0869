"""What acts on RayClusters for studies where there is neither KubeRay nor a pod: a stand-in for the operator, and one
for the worker in the head's pod, which runs the study on a simulated cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.controller.names import Key
from deploy.controller.study_clusters import ready
from deploy.specs.study_cluster import Trials
from tests.controller_app import World
from tests.layout_requests import NAMESPACE
from tuner.app.controller.kube import LAYOUT_REQUEST, RAY_CLUSTER, KubeError, Object
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.errors import Cause
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

TRIALS = Trials(max_gpus=16, image="registry/parlay-ray:1", ray_version="2.60.0", store_secret="store")
CREATE = {"rayCluster": {"create": {}}}


def ready_status(cluster: Object) -> Object:
    """What KubeRay says of a RayCluster whose pods are all there, as its documentation has it."""
    wanted = sum(group["replicas"] for group in cluster["spec"]["workerGroupSpecs"])
    counts = dict.fromkeys(("desiredWorkerReplicas", "availableWorkerReplicas", "readyWorkerReplicas"), wanted)
    return {"state": "ready", "observedGeneration": cluster["metadata"]["generation"], **counts}


class InTheHead(Worker):
    """Not a pod: the worker of a RayCluster, whose trials are simulated."""

    def _drive(self, order: Any, *words: Any) -> None:
        terms = replace(order.terms, launcher="simulated", seed=0)
        super()._drive(replace(order, terms=terms), *words)


class OperatorStandIn:
    """Not KubeRay: says of every RayCluster that its pods are there, and has the worker of its head run meanwhile."""

    def __init__(self, kube: Any, store: Store, folder: Path, every_s: float = 0.2) -> None:
        self._kube, self._store, self._folder, self._every_s = kube, store, folder, every_s
        self._stopped = threading.Event()
        self._workers: dict[str, Callable[[], None]] = {}
        self._thread = threading.Thread(target=self._run, name="stand-in for KubeRay's clusters", daemon=True)

    def __enter__(self) -> OperatorStandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for end in self._workers.values():
            end()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self._look()
            except KubeError:
                continue  # deleted meanwhile, or the server is away

    def _look(self) -> None:
        there = {one["metadata"]["uid"]: one for one in self._kube.list(RAY_CLUSTER, NAMESPACE)[0]}
        for uid in self._workers.keys() - there.keys():
            self._workers.pop(uid)()
        for uid, cluster in there.items():
            if not ready(cluster):
                name = cluster["metadata"]["name"]
                self._kube.set_status(RAY_CLUSTER, NAMESPACE, name, ready_status(cluster))
            elif uid not in self._workers:
                self._workers[uid] = self._start(cluster["metadata"]["name"])

    def _start(self, name: str) -> Callable[[], None]:
        stop = CancelHandle()
        worker = InTheHead(self._store, settings(name, self._folder), stop)
        threading.Thread(target=worker.run, name=f"head of {name}", daemon=True).start()
        return lambda: stop.cancel(Cause.SHUTDOWN)


def settings(name: str, folder: Path) -> WorkerSettings:
    """Of the worker of that RayCluster."""
    return WorkerSettings(("ray",), None, folder / "heads", cluster=name)


def work_there(store: Store, name: str, folder: Path) -> int:
    """Have the worker of a RayCluster run what waits for it."""
    return InTheHead(store, settings(name, folder), CancelHandle()).run(until_idle=True)


def ask(world: World, name: str = "llama", **spec: Any) -> Key:
    """Ask for a layout whose trials have a RayCluster of their own."""
    return world.ask(name, **{"launcher": None, "trials": CREATE, **spec})


def message(found: Object, kind: str) -> str:
    """What a condition says."""
    return next(c["message"] for c in found["status"]["conditions"] if c["type"] == kind)


def get_ready(world: World) -> None:
    """Have all pods of all RayClusters be there."""
    for cluster in world.clusters():
        world.kube.set_status(RAY_CLUSTER, NAMESPACE, cluster["metadata"]["name"], ready_status(cluster))


def settle(world: World, key: Key) -> str | None:
    """Let everybody act until nothing changes any more; the phase then."""
    """Look and have the workers of the clusters work, until nothing changes."""
    before = None
    while before != (before := world.kube.list(LAYOUT_REQUEST, NAMESPACE)[1]):
        world.look_again(key)
        get_ready(world)
        world.look_again(key)
        for cluster in world.clusters():
            work_there(world.store, cluster["metadata"]["name"], world.folder)
        world.settle(key)
    return world.look_again(key)
