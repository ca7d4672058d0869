"""What KubeRay says of a RayService: its Ray clusters, what runs on them, and how traffic is shared between them.

Of the status of ``ray.io/v1``: ``activeServiceStatus`` is the cluster that serves, ``pendingServiceStatus`` the one
that is to take its place. ``targetCapacity`` and ``trafficRoutedPercent`` are there under incremental upgrade alone
(KubeRay from 1.5), ``RollbackInProgress`` from 1.7 on, conditions at all from 1.3 on. An application of Ray Serve is
named like its deployment, so that a cluster whose applications are told says itself what it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from deploy.rollout.kuberay.words import BEFORE, CLOSED, DEPLOYMENT, RETURNING, Document, noted
from tuner.retune.site import DeploymentSeen, Readiness

_READY, _ROLLING_BACK = "Ready", "RollbackInProgress"
_HOPELESS = ("ValidationFailed", "InitializingTimeout", "RayServiceInitializingTimeout")
_READINESS = {
    "RUNNING": Readiness.READY,
    "DELETING": Readiness.LEAVING,
    "DEPLOY_FAILED": Readiness.FAILED,
    "UNHEALTHY": Readiness.FAILED,
}


@dataclass(frozen=True, slots=True)
class ClusterRead:
    """One Ray cluster: its applications as (status, message) by name, and in percent what it was told to hold and what
    of the traffic goes there; None outside of an incremental upgrade. ``moved_s`` is when traffic last moved (s since
    1970)."""

    name: str
    applications: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    capacity_percent: int | None = None
    traffic_percent: int | None = None
    moved_s: float | None = None


@dataclass(frozen=True, slots=True)
class ServiceRead:
    """A RayService. ``applied`` is the deployment whose document was applied last, ``before`` the one before it; None
    where it does not say. ``returning``: the one that was applied last served before, and is to serve again.
    ``closed``: no new requests are to come. ``current``: KubeRay has seen what was applied last. ``active`` and
    ``pending``: None where there is no such cluster. ``hopeless`` is why it will never serve."""

    applied: str | None
    before: str | None
    current: bool
    ready: bool
    active: ClusterRead | None
    pending: ClusterRead | None
    returning: bool = False
    suspended: bool = False
    closed: bool = False
    leaving: bool = False
    hopeless: str | None = None

    @property
    def active_runs(self) -> str | None:
        """The deployment on the active cluster."""
        if self.active is None:
            return None
        if (told := self._told(self.active)) is not None:
            return told
        if self.pending is not None:
            return self.applied if self.returning else self.before
        return self.applied if self.current or self.returning or self.before is None else self.before

    @property
    def pending_runs(self) -> str | None:
        """The deployment on the pending cluster."""
        if self.pending is None:
            return None
        if (told := self._told(self.pending)) is not None:
            return told
        return self.before if self.returning else self.applied

    @property
    def incremental(self) -> bool:
        """Whether KubeRay says how traffic is shared."""
        clusters = [one for one in (self.active, self.pending) if one is not None]
        return bool(clusters) and all(one.traffic_percent is not None for one in clusters)

    def percent_of(self, name: str) -> int:
        """What of the traffic goes to a deployment, in percent."""
        return round(100 * self.shares().get(name, 0.0))

    def shares(self) -> dict[str, float]:
        """The shares of traffic by deployment; empty where nothing serves."""
        serves, comes = self.active_runs, self.pending_runs
        if self.suspended or self.active is None or serves is None:
            return {}
        if self.pending is None or comes is None or comes == serves or not self.incremental:
            return {} if self.closed else {serves: 1.0}
        parts = {serves: self.active.traffic_percent or 0, comes: self.pending.traffic_percent or 0}
        total = sum(parts.values())
        return {name: part / total for name, part in parts.items() if part} if total else {}

    def deployments(self) -> dict[str, DeploymentSeen]:
        """How each deployment stands; those that are not there have no entry."""
        found: dict[str, DeploymentSeen] = {}
        comes, serves = self.pending_runs, self.active_runs
        if self.pending is not None and comes is not None:
            goes = self.returning and comes != self.applied
            found[comes] = DeploymentSeen(Readiness.LEAVING, "rolled back") if goes else self._coming(self.pending)
        if self.active is not None and serves is not None:
            found[serves] = self._serving(self.active, serves)
        if self.applied is not None and self.applied not in found and not self.suspended:
            found[self.applied] = self._unseen()
        if self.leaving:
            found = {name: DeploymentSeen(Readiness.LEAVING, "the RayService is being deleted") for name in found}
        return found

    def _coming(self, cluster: ClusterRead) -> DeploymentSeen:
        if self.hopeless is not None:
            return DeploymentSeen(Readiness.FAILED, self.hopeless)
        found = _of_applications(cluster)
        if found.readiness is Readiness.READY and self.active is None:
            return DeploymentSeen(Readiness.STARTING, f"KubeRay is about to let RayCluster {cluster.name} serve")
        if found.readiness is Readiness.READY and cluster.capacity_percent == 0:
            return DeploymentSeen(Readiness.STARTING, f"RayCluster {cluster.name} has no capacity yet")
        return found

    def _serving(self, cluster: ClusterRead, runs: str) -> DeploymentSeen:
        if self.suspended:
            return DeploymentSeen(Readiness.LEAVING, "suspended")
        found = _of_applications(cluster, unknown=Readiness.READY)
        if found.readiness is Readiness.READY and not self.ready:
            state = Readiness.FAILED if self.hopeless else Readiness.STARTING
            return DeploymentSeen(state, self.hopeless or "KubeRay knows no proxy that serves")
        if self.pending is not None and self.active_emptied and runs != self.applied:
            return DeploymentSeen(Readiness.LEAVING, "all traffic has moved; KubeRay ends it")
        return found

    @property
    def active_emptied(self) -> bool:
        """Whether no traffic goes to the active cluster any more."""
        return self.active is not None and self.active.traffic_percent == 0

    def _unseen(self) -> DeploymentSeen:
        if self.hopeless is not None:
            return DeploymentSeen(Readiness.FAILED, self.hopeless)
        if self.current:
            return DeploymentSeen(Readiness.STARTING, "KubeRay has made no Ray cluster for it yet")
        return DeploymentSeen(Readiness.STARTING, "KubeRay has not looked at it yet")

    def _told(self, cluster: ClusterRead) -> str | None:
        known = {self.applied, self.before} - {None}
        named = [name for name in cluster.applications if name in known]
        return named[0] if len(named) == 1 else None


def read(service: Document) -> ServiceRead:
    """A RayService as the API server has it."""
    status, meta = service.get("status") or {}, service["metadata"]
    said = {one.get("type"): one for one in status.get("conditions") or ()}
    is_true = {kind: one.get("status") == "True" for kind, one in said.items()}
    current = status.get("observedGeneration", 0) >= meta.get("generation", 0)
    ready = is_true.get(_READY, status.get("serviceStatus") == "Running")
    why = said.get(_READY, {})
    hopeless = why.get("reason") in _HOPELESS and not ready
    return ServiceRead(
        applied=noted(service, DEPLOYMENT),
        before=noted(service, BEFORE),
        current=current,
        ready=ready,
        active=_cluster(status.get("activeServiceStatus")),
        pending=_cluster(status.get("pendingServiceStatus")),
        returning=noted(service, RETURNING) == "true" or is_true.get(_ROLLING_BACK, False),
        suspended=bool(service["spec"].get("suspend")),
        closed=noted(service, CLOSED) == "true",
        leaving="deletionTimestamp" in meta,
        hopeless=f"{why.get('reason')}: {why.get('message', '')}" if hopeless else None,
    )


def _cluster(said: Any) -> ClusterRead | None:
    if not said or not said.get("rayClusterName"):
        return None
    applications = {
        name: (one.get("status", ""), one.get("message", ""))
        for name, one in (said.get("applicationStatuses") or {}).items()
    }
    moved = said.get("lastTrafficMigratedTime")
    moved_s = None if moved is None else datetime.fromisoformat(moved).timestamp()
    return ClusterRead(
        said["rayClusterName"], applications, said.get("targetCapacity"), said.get("trafficRoutedPercent"), moved_s
    )


def _of_applications(cluster: ClusterRead, unknown: Readiness = Readiness.STARTING) -> DeploymentSeen:
    """How what runs on a cluster stands: as its worst application does; ``unknown`` where none is told."""
    if not cluster.applications:
        return DeploymentSeen(unknown, f"RayCluster {cluster.name} tells of no application")
    order = (Readiness.FAILED, Readiness.LEAVING, Readiness.STARTING, Readiness.READY)
    states = {
        name: (_READINESS.get(status, Readiness.STARTING), f"{name}: {status} {message}".strip())
        for name, (status, message) in cluster.applications.items()
    }
    readiness, why = min(states.values(), key=lambda one: order.index(one[0]))
    return DeploymentSeen(readiness, "" if readiness is Readiness.READY else why)
