"""KubeRay as a place that serves: each deployment has a RayService of its own, and a front deals the traffic.

KubeRay brings Ray clusters up, keeps them up and takes them down; it never upgrades one of these, so that nothing
moves unless a rollout ordered it, whoever dies. Where devices do not suffice for two at once and the operator has
incremental upgrades, ``kuberay_upgrades`` moves one RayService over instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deploy.rollout.kuberay.foreign import foreign
from deploy.rollout.kuberay.front import NO_CANARY, Gateway, front, shares_of
from deploy.rollout.kuberay.placed import Placed, beside, object_of
from deploy.rollout.kuberay.reading import read
from deploy.rollout.kuberay.room import no_room
from deploy.rollout.kuberay.words import DEPLOYMENT, address, belongs, noted
from tuner.app.controller.kube import HTTP_ROUTE, RAY_SERVICE, SERVICE, Kube, Object
from tuner.app.controller.kube_objects import KubeObjects, Services, not_ours
from tuner.app.controller.retried import Retried
from tuner.ask.request import TuneRequest
from tuner.errors import ParlayError
from tuner.retune.live import LiveDeployment
from tuner.retune.policy import HoldPolicy
from tuner.retune.site import DeploymentSeen, Readiness, SiteSeen

Nodes = Callable[[], Sequence[Object] | None]  # those that take new pods; None: nobody may look at nodes
Ask = Callable[[str, str], bool]  # send first requests to an address, for a deployment: whether they were answered


class KubeRaySite:
    """Implements ``Site``. ``gateway`` deals the traffic, or a Service where there is none: then no canary is possible,
    and nothing comes in beside another. Any thread may use it, one at a time."""

    def __init__(
        self,
        kube: Kube,
        placed: Placed,
        ask: Ask,
        gateway: Gateway | None = None,
        nodes: Nodes = lambda: None,
        services: Services | None = None,
    ) -> None:
        self._placed, self._ask, self._gateway, self._nodes = placed, ask, gateway, nodes
        self._objects = KubeObjects(Retried(kube), placed, services)
        self._front = HTTP_ROUTE if gateway is not None else SERVICE

    @property
    def name(self) -> str:
        """As ``Site.name``."""
        return "kuberay"

    @property
    def url(self) -> str | None:
        """As ``Site.url``."""
        if self._gateway is not None:
            return self._gateway.url
        return f"http://{self._placed.service}.{self._placed.namespace}.svc:8000"

    def see(self) -> SiteSeen:
        """As ``Site.see``."""
        services = self._objects.services()
        dealt = self._objects.get(self._front, self._placed.service)
        deployments: dict[str, DeploymentSeen] = {}
        for one in services.values():
            deployments |= read(one).deployments()
        return SiteSeen(deployments, shares_of(_ours(dealt, self._placed)), self._foreign(services, dealt))

    def no_room_for(self, live: LiveDeployment, request: TuneRequest) -> str | None:
        """As ``Site.no_room_for``: as far as nodes may be looked at."""
        others = self._others(live.name)
        if others and self._gateway is None:
            return NO_CANARY
        nodes = self._nodes()
        if nodes is None:
            return None
        document = beside(self._placed, live, request)
        return no_room(document, others, nodes, self._placed.platform.gpu_resource)

    def start(self, live: LiveDeployment, request: TuneRequest) -> None:
        """As ``Site.start``: with the document that it had before, where it had one."""
        name = object_of(live.name)
        if name in self._objects.services():
            return
        self._objects.require_ours(RAY_SERVICE, name)
        document = self._objects.kept().get(live.name)
        if document is None:
            document = beside(self._placed, live, request)
            self._objects.keep(live.name, document, self._needed())
        self._objects.apply(RAY_SERVICE, document)

    def warm(self, name: str) -> bool:
        """As ``Site.warm``."""
        found = self._objects.services().get(object_of(name))
        one = None if found is None else read(found).deployments().get(name)  # what was suspended by hand runs nowhere
        if one is None or one.readiness is not Readiness.READY:
            return False
        return self._ask(address(object_of(name), self._placed.namespace), name)

    def route(self, shares: Mapping[str, float]) -> None:
        """As ``Site.route``."""
        there = self._objects.services()
        if lost := sorted(name for name, share in shares.items() if share > 0 and object_of(name) not in there):
            raise ParlayError(f"no traffic can go to {', '.join(lost)}: there is no such RayService")
        document = front(self._placed, self._gateway, shares)
        self._objects.require_ours(self._front, self._placed.service)
        self._objects.apply(self._front, document)

    def hold(self, bounds: HoldPolicy | None) -> None:
        """Nothing holds requests here: the Gateway refuses what nobody serves."""

    def stop(self, name: str) -> None:
        """As ``Site.stop``."""
        found = self._objects.services().get(object_of(name))
        if found is not None and "deletionTimestamp" not in found["metadata"]:
            self._objects.remove(RAY_SERVICE, found)

    def _others(self, name: str) -> list[Object]:
        return [one for one in self._objects.services().values() if noted(one, DEPLOYMENT) != name]

    def _needed(self) -> frozenset[str]:
        return frozenset(str(noted(one, DEPLOYMENT)) for one in self._objects.services().values())

    def _foreign(self, services: Mapping[str, Object], dealt: Object | None) -> str | None:
        kept: dict[str, dict[str, Any]] = self._objects.kept() if services else {}
        for one in services.values():
            applied = kept.get(str(noted(one, DEPLOYMENT)))
            found = "its document is not kept any more" if applied is None else foreign(one, applied)
            if found is not None:
                return found if applied is not None else f"RayService {one['metadata']['name']}: {found}"
        if dealt is None:
            return None
        if not belongs(dealt, self._placed.watched):
            return not_ours(self._placed.service, self._placed)
        return foreign(dealt, front(self._placed, self._gateway, shares_of(dealt)))


def _ours(found: Object | None, placed: Placed) -> Object | None:
    return found if found is not None and belongs(found, placed.watched) else None
