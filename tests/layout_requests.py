"""LayoutRequests for tests, and what acts beside the controller: a stand-in for KubeRay's operator, and a worker."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from deploy.controller.names import API_VERSION, KIND
from tests.fakes import document
from tuner.app.controller.kube import RAY_SERVICE, KubeError, Object

NAMESPACE = "serving"
# A study of few candidates, which a simulated cluster measures in a second.
SMALL = {"space": {"tp": [1, 2], "executor": ["mp"]}, "budget.launches": 2}
IMPOSSIBLE = [{"metric": "ttft", "percentile": 99, "ms": 0.01}]


def layout_request(name: str = "llama", changes: Mapping[str, Any] | None = None, **spec: Any) -> Object:
    """One that is valid; ``changes`` of its request, ``spec`` of the rest, of which None takes a key away."""
    given = {"request": document({**SMALL, **(changes or {})}), "launcher": "simulated", "deploy": "auto"}
    meta = {"name": name, "namespace": NAMESPACE}
    whole = {key: value for key, value in {**given, **spec}.items() if value is not None}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": whole}


def serving_status(service: Object) -> Object:
    """What KubeRay from 1.3 on says of a RayService that serves what was applied last, as its documentation has it."""
    generation = service["metadata"].get("generation", 1)
    conditions = [("Ready", "True", "NonZeroServeEndpoints"), ("UpgradeInProgress", "False", "NoPendingCluster")]
    said = [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "a stand-in says so",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": generation,
        }
        for kind, status, reason in conditions
    ]
    more = {"numServeEndpoints": 1, "observedGeneration": generation, "serviceStatus": "Running"}
    return {**more, "conditions": said}


class KubeRayStandIn:
    """Not KubeRay: says of every RayService, a moment after it was applied, that it serves. It starts no pod."""

    def __init__(self, kube: Any, namespace: str = NAMESPACE, every_s: float = 0.2) -> None:
        self._kube, self._namespace, self._every_s = kube, namespace, every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stand-in for KubeRay", daemon=True)

    def __enter__(self) -> KubeRayStandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def look(self) -> None:
        """Once."""
        for service in self._kube.list(RAY_SERVICE, self._namespace)[0]:
            wanted = serving_status(service)
            if service.get("status", {}).get("observedGeneration") != wanted["observedGeneration"]:
                self._kube.set_status(RAY_SERVICE, self._namespace, service["metadata"]["name"], wanted)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.look()
            except KubeError:
                continue  # deleted meanwhile, or the server is away


def condition(request: Object | None, kind: str) -> tuple[str, str]:
    """Status and reason of a condition; of one that is not there, nothing."""
    found = ((request or {}).get("status") or {}).get("conditions", ())
    return next(((c["status"], c["reason"]) for c in found if c["type"] == kind), ("", ""))


def phase(request: Object | None) -> str:
    """In a word."""
    return str(((request or {}).get("status") or {}).get("phase", ""))


def other_slo(ms: float = 400) -> dict[str, Any]:
    """The request of ``layout_request`` with another target."""
    return document({**SMALL, "slo": [{"metric": "ttft", "percentile": 99, "ms": ms}]})
