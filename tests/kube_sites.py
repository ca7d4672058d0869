"""KubeRay as a place that serves, in memory: a stand-in sets what KubeRay's documentation says of a RayService."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from deploy.rollout.kuberay.front import Gateway
from deploy.rollout.kuberay.placed import Placed, object_of
from deploy.rollout.kuberay.words import DEPLOYMENT
from deploy.specs.rayservice import Platform
from serve.launch.engine import serve_app
from tests.fakes import make_request
from tests.kube_fake import FakeKube
from tests.rollouts import a_live
from tests.site_contract import SiteBench
from tuner.app.controller.kube import RAY_SERVICE, Kube, Object
from tuner.app.controller.kuberay_site import KubeRaySite
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.retune.live import LiveDeployment
from tuner.trial.launched import Launched, RayApplication

NAMESPACE = "serving"
PLACED = Placed("s", NAMESPACE, "llama", Platform(ray_version="2.60.0"))
GATEWAY = Gateway("public", "http://models.example", namespace="gateways", host="models.example")
_AT = "2026-01-01T00:00:00Z"


def a_served(name: str, layout: str = "tp=2", request: TuneRequest | None = None, **changes: Any) -> LiveDeployment:
    """A deployment that Ray Serve was given in a trial."""
    asked = request or make_request()
    app = serve_app(name, ParallelLayout.parse(layout), asked, model_source=asked.model)
    versions = {"python": "3.12.3", "parlay": "0.1.0", "ray": "2.60.0", "vllm": "0.29.0"}
    launched = Launched("ray-serve", versions, asked.model, RayApplication(app))
    return a_live(name, layout, site="kuberay", launched=launched, **changes)


def a_node(name: str, gpus: int = 4, product: str = "NVIDIA-H100-80GB-HBM3", **spec: Any) -> Object:
    """A node as the API server tells of it."""
    labels = {
        "kubernetes.io/hostname": name,
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.count": str(gpus),
        "nvidia.com/cuda.driver-version.full": "570.86.15",
    }
    status = {
        "allocatable": {"cpu": "96", "nvidia.com/gpu": str(gpus)},
        "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
    }
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


def cluster_said(name: str, app: str, status: str = "RUNNING", message: str = "", **more: Any) -> Object:
    """One of the two clusters of a status."""
    told = {"status": status} | ({"message": message} if message else {})
    return {"rayClusterName": name, "applicationStatuses": {app: told}, **more}


def service_said(
    service: Object, active: Object | None = None, pending: Object | None = None, **conditions: bool
) -> Object:
    """The status of a RayService as KubeRay from 1.3 on sets it."""
    generation, ready = service["metadata"].get("generation", 1), active is not None
    said = {"Ready": ready, "UpgradeInProgress": active is not None and pending is not None} | conditions
    return {
        "activeServiceStatus": active or {},
        "pendingServiceStatus": pending or {},
        "observedGeneration": generation,
        "numServeEndpoints": int(said["Ready"]),
        "serviceStatus": "Running" if said["Ready"] else "NotRunning",
        "conditions": [
            {
                "type": kind,
                "status": str(true),
                "reason": "StandIn",
                "message": "a stand-in says so",
                "lastTransitionTime": _AT,
                "observedGeneration": generation,
            }
            for kind, true in said.items()
        ],
    }


class Serving:
    """Not KubeRay: at each look every RayService comes nearer to serving. It starts no pod."""

    def __init__(self, kube: Any) -> None:
        self._kube = kube
        self.broken: set[str] = set()
        self.dead: set[str] = set()

    def look(self) -> None:
        """Once."""
        for service in self._kube.list(RAY_SERVICE, NAMESPACE)[0]:
            if "deletionTimestamp" in service["metadata"]:
                continue
            name, app = service["metadata"]["name"], service["metadata"]["annotations"][DEPLOYMENT]
            wanted = self._said(service, app)
            if service.get("status") != wanted:
                self._kube.set_status(RAY_SERVICE, NAMESPACE, name, wanted)

    def _said(self, service: Object, app: str) -> Object:
        cluster = f"{service['metadata']['name']}-x7k2p"
        if app in self.broken:
            return service_said(service, pending=cluster_said(cluster, app, "DEPLOY_FAILED", "no such model"))
        if app in self.dead:
            return service_said(service, active=cluster_said(cluster, app, "UNHEALTHY", "replica died"), Ready=False)
        if "status" not in service:
            return service_said(service, pending=cluster_said(cluster, app, "DEPLOYING"))
        return service_said(service, active=cluster_said(cluster, app))


class KubeBench(SiteBench):
    """On an API server, in memory or not; room for two deployments of 2 GPUs."""

    def __init__(self, kube: Any, placed: Placed = PLACED, gateway: Gateway | None = GATEWAY) -> None:
        self.kube, self.placed, self.gateway = kube, placed, gateway
        self.kuberay, self.asked_at = Serving(kube), list[str]()
        self.request, self.site = make_request(), self.again()

    def again(self) -> KubeRaySite:
        return self.site_on(self.kube)

    def site_on(self, kube: Kube) -> KubeRaySite:
        """One that asks another way."""
        return KubeRaySite(kube, self.placed, self._answers, self.gateway, lambda: [a_node("n1", 4)])

    def _answers(self, url: str, name: str) -> bool:
        self.asked_at.append(url)
        return True

    def live(self, name: str, *, broken: bool = False) -> LiveDeployment:
        if broken:
            self.kuberay.broken.add(name)
        return replace(a_served(name, "tp=2", self.request))

    def eventually(self, holds: Callable[[], bool]) -> bool:
        for _ in range(5):
            self.kuberay.look()
            if holds():
                return True
        return False

    def kill(self, name: str) -> None:
        self.kuberay.dead.add(name)

    def meddle(self, name: str) -> None:
        self.kube.edit(RAY_SERVICE, NAMESPACE, object_of(name), {"spec": {"serveConfigV2": "mine"}}, "somebody")


def in_memory(gateway: Gateway | None = GATEWAY) -> KubeBench:
    """One on an API server in memory."""
    return KubeBench(FakeKube(), gateway=gateway)
