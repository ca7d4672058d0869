"""KubeRay as a place that serves, where it replaces Ray clusters itself: one RayService that moves over.

For where devices do not suffice for two whole deployments, and the operator has incremental upgrades; without these, a
new cluster gets all traffic at once, and a rollout that wants a canary is held. KubeRay moves on while nobody looks, so
that ``see`` also orders it to stop at the share that was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from deploy.rollout.kuberay.courses import Course, ending, percent_of, routing, starting, steadied
from deploy.rollout.kuberay.foreign import foreign
from deploy.rollout.kuberay.placed import Placed
from deploy.rollout.kuberay.reading import ServiceRead, read
from deploy.rollout.kuberay.room import no_room
from deploy.rollout.kuberay.upgrades import Upgrades
from deploy.rollout.kuberay.upgrading import base, course_of, ordered
from deploy.rollout.kuberay.words import address, belongs
from tuner.app.controller.kube import RAY_SERVICE, Kube, Object
from tuner.app.controller.kube_objects import KubeObjects, Services, not_ours
from tuner.app.controller.kuberay_site import Ask, Nodes
from tuner.app.controller.retried import Retried
from tuner.ask.request import TuneRequest
from tuner.errors import ParlayError
from tuner.retune.live import LiveDeployment
from tuner.retune.policy import CanaryPolicy, HoldPolicy
from tuner.retune.site import Readiness, SiteSeen


class KubeRayUpgradeSite:
    """Implements ``Site`` as far as KubeRay lets it: of two deployments at most, of which the second comes in for the
    first; a share of traffic grows, and goes back to nothing, but never to less."""

    def __init__(
        self,
        kube: Kube,
        placed: Placed,
        ask: Ask,
        upgrades: Upgrades,
        canary: CanaryPolicy,
        nodes: Nodes = lambda: None,
        services: Services | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._placed, self._ask, self._upgrades, self._nodes, self._clock = placed, ask, upgrades, nodes, clock
        self._canary_percent = percent_of(canary.share)
        self._objects = KubeObjects(Retried(kube), placed, services)

    @property
    def name(self) -> str:
        """As ``Site.name``."""
        return "kuberay"

    @property
    def url(self) -> str | None:
        """As ``Site.url``: the Gateway's, where there is one."""
        return self._upgrades.gateway_url or address(self._placed.service, self._placed.namespace)

    def see(self) -> SiteSeen:
        """As ``Site.see``."""
        found = self._objects.all_services().get(self._placed.service)
        if found is None:
            return SiteSeen()
        if not belongs(found, self._placed.watched):
            return SiteSeen(foreign=not_ours(self._placed.service, self._placed))
        seen, now = read(found), _course(found)
        changed = self._foreign(found, now)
        if changed is None:
            self._order(now, steadied(seen, now))
        return SiteSeen(seen.deployments(), seen.shares(), changed)

    def no_room_for(self, live: LiveDeployment, request: TuneRequest) -> str | None:
        """As ``Site.no_room_for``."""
        found = self._found()
        serves = found is not None and bool(read(found).shares())
        if serves and (why := self._upgrades.no_canary()) is not None:
            return why
        if (nodes := self._nodes()) is None:
            return None
        document = base(self._placed, live, request, self._upgrades)
        others = [found] if found is not None and serves else []
        percent = max(self._canary_percent, self._upgrades.surge_percent) if others else 100
        return no_room(document, others, nodes, self._placed.platform.gpu_resource, percent)

    def start(self, live: LiveDeployment, request: TuneRequest) -> None:
        """As ``Site.start``: with the document that it had before, where it had one."""
        self._objects.require_ours(RAY_SERVICE, self._placed.service)
        found = self._found()
        seen = None if found is None else read(found)
        course = starting(seen, live.name, self._canary_percent, self._upgrades)
        if course is None:
            return
        if live.name not in self._objects.kept():
            document = base(self._placed, live, request, self._upgrades)
            self._objects.keep(live.name, document, frozenset({live.name, course.before or live.name}))
        self._order(None if found is None else _course(found), course)

    def warm(self, name: str) -> bool:
        """As ``Site.warm``: past the Gateway, at the cluster's own Service."""
        found = self._found()
        if found is None:
            return False
        seen = read(found)
        one = seen.deployments().get(name)
        if one is None or one.readiness is not Readiness.READY:
            return False
        return self._ask(address(self._at(seen, name), self._placed.namespace), name)

    def route(self, shares: Mapping[str, float]) -> None:
        """As ``Site.route``, as far as KubeRay lets it; traffic moves within the interval that was ordered."""
        found = self._found()
        if found is None:
            raise ParlayError(f"there is no RayService {self._placed.service}: nothing can have traffic")
        now = _course(found)
        self._order(now, routing(read(found), now, shares, self._clock(), self._upgrades))

    def hold(self, bounds: HoldPolicy | None) -> None:
        """Nothing holds requests here: the Gateway refuses what nobody serves."""

    def stop(self, name: str) -> None:
        """As ``Site.stop``: the last one is suspended."""
        found = self._found()
        if found is not None:
            now = _course(found)
            self._order(now, ending(read(found), now, name) or now)

    def _at(self, seen: ServiceRead, name: str) -> str:
        if seen.pending is not None and name == seen.pending_runs:
            return seen.pending.name
        return seen.active.name if seen.active is not None and seen.incremental else self._placed.service

    def _found(self) -> Object | None:
        return self._objects.services().get(self._placed.service)

    def _order(self, now: Course | None, course: Course) -> None:
        if course == now:
            return
        document = self._objects.kept().get(course.deployment)
        if document is None:
            raise ParlayError(f"the document of {course.deployment} is not kept any more: it cannot be applied")
        wanted = ordered(document, course, self._upgrades)
        found = self._objects.apply(RAY_SERVICE, wanted)
        if _options(wanted) and not _options(found):
            raise ParlayError("this KubeRay's RayServices have no incremental upgrades: its definition leaves them out")

    def _foreign(self, found: Object, now: Course) -> str | None:
        document = self._objects.kept().get(now.deployment)
        if document is None:
            return f"RayService {self._placed.service}: the document of {now.deployment} is not kept any more"
        return foreign(found, ordered(document, now, self._upgrades))


def _course(found: Object) -> Course:
    course = course_of(found)
    if course is None:
        raise ParlayError(f"RayService {found['metadata']['name']} does not say which deployment it holds")
    return course


def _options(document: Object) -> Any:
    return (document["spec"].get("upgradeStrategy") or {}).get("clusterUpgradeOptions")
