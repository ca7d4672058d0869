"""KubeRay as a place that is watched: from what is kept of it in the store to the site that is acted on, and to what is
seen of it: pods tell what was counted, nodes which GPUs there are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from deploy.rollout.application import measured as as_measured
from deploy.rollout.application import planned
from deploy.rollout.kuberay.front import Gateway
from deploy.rollout.kuberay.placed import Placed
from deploy.rollout.kuberay.reading import read
from deploy.rollout.kuberay.upgrades import Upgrades
from deploy.specs.rayservice import Platform
from serve.launch.engine import refused
from serve.launch.health import served_models, warm_up
from serve.measure.live_reader import Places
from tuner.app.controller.kube import POD, Kube, KubeError, Object
from tuner.app.controller.kube_nodes import KubeNodes
from tuner.app.controller.kube_objects import KubeObjects
from tuner.app.controller.kuberay_site import KubeRaySite
from tuner.app.controller.kuberay_upgrades import KubeRayUpgradeSite
from tuner.app.controller.retried import Retried
from tuner.ask.deployment import UNLAUNCHED, Deployment, TwoPools, one_group
from tuner.ask.request import TuneRequest
from tuner.errors import ParlayError
from tuner.retune.policy import CanaryPolicy
from tuner.retune.seen import Fingerprint
from tuner.retune.site import Site
from tuner.trial.launched import Launched, RayApplication

KUBERAY: Final = "kuberay"
METRICS_PORT, WARM_S = 8080, 60.0


class KubeSite(BaseModel):
    """Where a watched study serves, as the store keeps it. ``carried`` is what all objects carry beside their own
    labels, such as who owns them; ``watched`` by what they are known as those of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["kuberay"] = KUBERAY
    namespace: str
    service: str
    watched: str
    carried: dict[str, Any] = {}
    gateway: Gateway | None = None
    upgrades: Upgrades | None = None

    def kept(self) -> dict[str, Any]:
        """As JSON."""
        return self.model_dump(mode="json")


class KubeRayPlace:
    """Implements ``tuner.app.watch.place.Place``. ``platform`` is what a site says of pods."""

    def __init__(self, kube: Kube, kept: KubeSite, platform: Platform, canary: CanaryPolicy) -> None:
        self._kube, self._kept = Retried(kube), kept
        self._placed = Placed(kept.watched, kept.namespace, kept.service, platform, kept.carried)
        site = platform.site
        tolerated = [*site.tolerations, *(one for kind in site.gpu_types.values() for one in kind.tolerations)]
        self._nodes = KubeNodes(kube, tolerated, platform.gpu_resource, platform.node_selector)
        self._objects = KubeObjects(self._kube, self._placed)
        self._site: Site = (
            KubeRaySite(kube, self._placed, first_answers, kept.gateway, self._nodes.there)
            if kept.upgrades is None
            else KubeRayUpgradeSite(kube, self._placed, first_answers, kept.upgrades, canary, self._nodes.there)
        )

    @property
    def site(self) -> Site:
        """Side by side behind a front, or one RayService that moves over, where upgrades are said."""
        return self._site

    def told_at(self, names: Collection[str]) -> Places:
        """The pods of these deployments' Ray clusters: each shows the engines that run there, and what Serve counts."""
        clusters: dict[str, str] = {}
        for service in self._objects.services().values():
            seen = read(service)
            for cluster, runs in ((seen.active, seen.active_runs), (seen.pending, seen.pending_runs)):
                if cluster is not None and runs in names:
                    clusters[cluster.name] = str(runs)
        urls: dict[str, tuple[str, ...]] = {}
        for pod in self._pods():
            name = clusters.get(pod["metadata"].get("labels", {}).get("ray.io/cluster", ""))
            if name is not None and (address := pod.get("status", {}).get("podIP")):
                urls[name] = (*urls.get(name, ()), f"http://{host_of(address)}:{METRICS_PORT}/metrics")
        return Places(agents=tuple(url for each in urls.values() for url in each), direct=urls)

    def fingerprint(self) -> Fingerprint:
        """Nodes, where somebody may look at them, and the version of Ray that the pods were given."""
        given = {one["spec"]["rayClusterConfig"].get("rayVersion") for one in self._objects.services().values()}
        known = given - {None}
        return Fingerprint(self._nodes.seen(), {"ray": known.pop()} if len(known) == 1 else {})

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        """What Ray Serve LLM cannot run."""
        return UNLAUNCHED if isinstance(deployment, TwoPools) else refused(deployment, request)

    def launched(self, name: str, deployment: Deployment, request: TuneRequest, measured: Launched | None) -> Launched:
        """The application that was measured, under its new name; else the one that would be tried."""
        if measured is not None and isinstance(measured.payload, RayApplication):
            return as_measured(measured, name)
        return planned(name, one_group(deployment), request)

    def prepare(self) -> None:
        """Nothing: what starts is a document, and pods load what they run."""

    def close(self) -> None:
        """Nothing is held."""

    def _pods(self) -> list[Object]:
        try:
            return self._kube.list(POD, self._kept.namespace)
        except KubeError as error:
            raise ParlayError(f"nobody can say where the pods show their metrics: {error}") from None


def host_of(address: str) -> str:
    """An IP address as a URL has it."""
    return f"[{address}]" if ":" in address else address


def first_answers(url: str, name: str) -> bool:
    """Ask what serves there for its models, and for some tokens of each replica that may answer."""
    models = served_models(url, timeout_s=WARM_S)
    return bool(models) and warm_up(url, models[0], 1, timeout_s=WARM_S)
