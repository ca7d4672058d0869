"""A controller without threads on an API server in memory: who looks when is the test's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.controller.asking import Runs
from deploy.controller.names import Key
from deploy.specs.rayservice import Platform
from tests.kube_fake import FakeKube
from tests.layout_requests import NAMESPACE, KubeRayStandIn, layout_request
from tests.service_app import work
from tuner.app.controller.kube import (
    CONFIG_MAP,
    EVENT,
    LAYOUT_REQUEST,
    RAY_CLUSTER,
    RAY_SERVICE,
    Kube,
    KubeError,
    Object,
)
from tuner.app.controller.room import Room
from tuner.app.controller.steps import Reconciler, View
from tuner.app.controller.studies import Studies
from tuner.ask.request_document import parse_request
from tuner.errors import StoreError
from tuner.study.store import Store

RUNS = Runs(("simulated", "ray"), "trials", Platform(ray_version="2.60.0"))


class Killed(BaseException):
    """The end of a controller's process."""


@dataclass
class KilledAt:
    """A Kube, and a store's queue, between which and the controller it is killed: before or behind the n-th write."""

    kube: FakeKube
    at: float
    before: bool
    writes: int = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.kube, name)
        return self.dying(found) if name in ("create", "replace", "merge", "apply", "remove") else found

    def dying(self, write: Any) -> Any:
        """The same, with the controller's end at the right moment."""

        def call(*words: Any, **more: Any) -> Any:
            self.writes += 1
            if self.writes == self.at and self.before:
                raise Killed
            found = write(*words, **more)
            if self.writes == self.at:
                raise Killed
            return found

        return call


@dataclass
class World:
    """Cluster, store, worker and controller."""

    store: Store
    folder: Path
    kube: FakeKube = field(default_factory=FakeKube)
    platforms: dict[str, Platform] = field(default_factory=dict)
    runs: Runs = RUNS
    again_s: float | None = None

    def ask(self, name: str = "llama", changes: Any = None, **spec: Any) -> Key:
        """What a person does with kubectl."""
        self.kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request(name, changes, **spec))
        return Key(NAMESPACE, name)

    def edit(self, key: Key, spec: Object) -> None:
        """The same, later."""
        self.kube.edit(LAYOUT_REQUEST, key.namespace, key.name, {"spec": spec})

    def look(self, key: Key, kube: Kube | None = None, wrap: Any = None) -> str | None:
        """One look of a controller that has just been started: it knows nothing of those before."""
        studies = Studies(self.store)
        if wrap is not None:
            for name in ("submit", "resume", "cancel", "keep", "let", "end_orphan"):
                setattr(studies, name, wrap(getattr(studies, name)))
        view = View(
            lambda one: self.kube.get(LAYOUT_REQUEST, one.namespace, one.name),
            lambda one: self.service(one.name),
            lambda namespace: [] if RAY_SERVICE in self.kube.unknown else self.kube.list(RAY_SERVICE, namespace)[0],
            lambda: RAY_SERVICE not in self.kube.unknown,
            lambda _: None,
            self.clusters,
            Room(0 if self.runs.trials is None else self.runs.trials.max_gpus, self.clusters),
        )
        found = Reconciler(kube or self.kube, studies, view, parse_request, self.runs, lambda: True)
        found.platforms = self.platforms
        looked = found.reconcile(key)
        self.again_s = None if looked is None else looked.again_s
        return None if looked is None else looked.phase

    def clusters(self, namespace: str = NAMESPACE) -> list[Object]:
        """All RayClusters."""
        return [] if RAY_CLUSTER in self.kube.unknown else self.kube.list(RAY_CLUSTER, namespace)[0]

    def settle(self, key: Key) -> str | None:
        """Look, work and have KubeRay's stand-in speak until nothing changes any more."""
        before = None
        while before != (before := self.kube.list(LAYOUT_REQUEST, NAMESPACE)[1]):
            self.look_again(key)
            work(self.store, self.folder)
            self.look_again(key)
            if RAY_SERVICE not in self.kube.unknown:
                KubeRayStandIn(self.kube).look()
        return self.look_again(key)

    def look_again(self, key: Key) -> str | None:
        """As the queue does: where something did not answer or had changed, once more."""
        for _ in range(5):
            try:
                return self.look(key)
            except (KubeError, StoreError):
                continue
        raise AssertionError("it never came to an end")

    def request(self, key: Key) -> Object | None:
        return self.kube.get(LAYOUT_REQUEST, key.namespace, key.name)

    def service(self, name: str = "llama") -> Object | None:
        if RAY_SERVICE in self.kube.unknown:
            return None
        return self.kube.get(RAY_SERVICE, NAMESPACE, name)

    def config_map(self, name: str = "llama-rayservice") -> Object | None:
        return self.kube.get(CONFIG_MAP, NAMESPACE, name)

    def events(self) -> list[tuple[str, str]]:
        """(kind, reason) of all, oldest first."""
        return [(one["type"], one["reason"]) for one in self.kube.list(EVENT, NAMESPACE)[0]]
