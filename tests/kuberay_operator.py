"""Not KubeRay's operator: what its ``rayservice_controller`` does with the clusters of a RayService, without any pod.

It keeps to what the operator's sources and the guide to incremental upgrades say: which change makes a new cluster,
how capacity and traffic move, when the new cluster takes over, and how a rollback goes (from 1.7; before, a third
cluster). Time is whatever the test says it is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deploy.rollout.kuberay.upgrades import same_cluster
from deploy.rollout.kuberay.words import DEPLOYMENT
from tests.kube_sites import NAMESPACE, cluster_said, service_said
from tuner.app.controller.kube import RAY_SERVICE, Object

INCREMENTAL = "NewClusterWithIncrementalUpgrade"
LOOK_S = 2.0  # ServiceDefaultRequeueDuration


@dataclass
class Cluster:
    """One Ray cluster; in percent, None outside of an incremental upgrade."""

    name: str
    service: Object
    born_s: float
    capacity: int | None = None
    traffic: int | None = None
    moved_s: float = 0.0

    @property
    def app(self) -> str:
        return str(self.service["metadata"]["annotations"][DEPLOYMENT])


@dataclass
class Operator:
    """Of one RayService. ``gate``: incremental upgrades are on; ``rolls_back``: it is 1.7 or later."""

    kube: Any
    name: str
    gate: bool = True
    rolls_back: bool = True
    start_s: float = 60.0
    now_s: float = 1_700_000_000.0
    broken: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    active: Cluster | None = None
    pending: Cluster | None = None
    made: int = 0
    rolling_back: bool = False

    def run(self, seconds: float) -> None:
        """For so long, a look every two seconds."""
        for _ in range(round(seconds / LOOK_S)):
            self.now_s += LOOK_S
            self.look()

    def look(self) -> None:
        """Once."""
        service = self.kube.get(RAY_SERVICE, NAMESPACE, self.name)
        if service is None or service["spec"].get("suspend"):
            self.active = self.pending = None
            self.rolling_back = False
        else:
            self._clusters(service)
            self._traffic(service)
        if service is not None and service.get("status") != (said := self._status(service)):
            self.kube.set_status(RAY_SERVICE, NAMESPACE, self.name, said)

    def state(self, cluster: Cluster) -> str:
        if cluster.app in self.broken:
            return "DEPLOY_FAILED"
        if cluster.app in self.dead:
            return "UNHEALTHY"
        return "RUNNING" if self.now_s - cluster.born_s >= self.start_s else "DEPLOYING"

    def incremental(self, service: Object) -> bool:
        return self.gate and service["spec"]["upgradeStrategy"]["type"] == INCREMENTAL

    def _clusters(self, service: Object) -> None:
        if self.active is None and self.pending is None:
            self.pending = self._made(service, 100 if self.incremental(service) else None)
            return
        if self.pending is None:
            assert self.active is not None
            if not same_cluster(self.active.service, service):
                if service["spec"]["upgradeStrategy"]["type"] in ("NewCluster", INCREMENTAL)[: 1 + self.gate]:
                    self.pending = self._made(service, 0 if self.incremental(service) else None)
            else:
                self.active.service = copy.deepcopy(service)
        elif not same_cluster(self.pending.service, service) and not self.rolling_back:
            if self.active is not None and self.rolls_back and same_cluster(self.active.service, service):
                self.rolling_back = True
            else:
                if self.active is not None and self.active.traffic is not None:
                    self.active.traffic = 100
                self.pending = self._made(service, 0 if self.incremental(service) else None)

    def _made(self, service: Object, capacity: int | None) -> Cluster:
        self.made += 1
        traffic = None if capacity is None else 0
        name = f"{self.name}-c{self.made}"
        return Cluster(name, copy.deepcopy(service), self.now_s, capacity, traffic, self.now_s)

    def _traffic(self, service: Object) -> None:
        pending, active = self.pending, self.active
        if pending is None:
            return
        options = service["spec"]["upgradeStrategy"].get("clusterUpgradeOptions") or {}
        if self.rolling_back:
            self._back(options)
        elif self.state(pending) != "RUNNING":
            return
        elif active is None or pending.traffic is None:
            self._promote()
        else:
            self._forth(active, pending, options)

    def _promote(self) -> None:
        self.active, self.pending = self.pending, None
        if self.active is not None and self.active.capacity is not None:
            self.active.capacity = self.active.traffic = 100

    def _forth(self, active: Cluster, pending: Cluster, options: Object) -> None:
        surge, step = options["maxSurgePercent"], options["stepSizePercent"]
        assert pending.traffic is not None
        assert pending.capacity is not None
        active.capacity = 100 if active.capacity is None else active.capacity
        active.traffic = 100 if active.traffic is None else active.traffic
        if pending.traffic == pending.capacity:
            if active.capacity + pending.capacity > 100:
                active.capacity = max(0, active.capacity - surge)
            else:
                pending.capacity = min(100, pending.capacity + surge)
        elif self.now_s - pending.moved_s >= options["intervalSeconds"] and step:
            pending.traffic = min(100, pending.traffic + step, pending.capacity)
            active.traffic, pending.moved_s = 100 - pending.traffic, self.now_s
        if active.capacity == 0 and pending.traffic == 100:
            self._promote()

    def _back(self, options: Object) -> None:
        active, pending = self.active, self.pending
        assert active is not None
        assert pending is not None
        if pending.traffic and self.now_s - pending.moved_s >= options["intervalSeconds"]:
            pending.traffic = max(0, pending.traffic - options["stepSizePercent"])
            active.traffic, pending.moved_s = 100 - pending.traffic, self.now_s
        if not pending.traffic:
            self.pending, self.rolling_back = None, False
            if active.capacity is not None:
                active.capacity = active.traffic = 100

    def _status(self, service: Object) -> Object:
        ready = self.active is not None and self.state(self.active) == "RUNNING"
        active = None if self.active is None else self._told(self.active)
        pending = None if self.pending is None else self._told(self.pending)
        back = {"RollbackInProgress": True} if self.rolling_back else {}
        return service_said(service, active, pending, Ready=ready, **back)

    def _told(self, cluster: Cluster) -> Object:
        more: Object = {}
        if cluster.traffic is not None:
            moved = datetime.fromtimestamp(cluster.moved_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            more = {"targetCapacity": cluster.capacity, "trafficRoutedPercent": cluster.traffic}
            more["lastTrafficMigratedTime"] = moved
        return cluster_said(cluster.name, cluster.app, self.state(cluster), "a stand-in says so", **more)
