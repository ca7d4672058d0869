"""The clusters of a service as its workers see them, and who holds what of them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.study.device_leases import DeviceLease
from tuner.study.workers import SeenCluster, WorkerRecord


class SeenClusterAnswer(Answer):
    """What one launcher of a worker runs on."""

    launcher: str = Field(description="ray, local or simulated.")
    cluster: str | None = Field(
        description="The name by which studies share it; null: each has its own, or there is none."
    )
    groups: list[dict[str, object]] | None = Field(description="Its node groups, as in a request; null: not known.")
    devices: int | None = Field(description="Devices in all; null: not known.")
    problem: str | None = Field(description="Why it sees no running cluster; null: it does, or needs none.")


class WorkerAnswer(Answer):
    """A worker."""

    id: str = Field(description="Its host, and which of its processes it is.")
    alive: bool = Field(description="Whether it may still be at work.")
    silent_s: float = Field(description="Seconds since its last sign of life.")
    started_at: float = Field(description="When it began, s since 1970.")
    launchers: list[str] = Field(description="What it may run studies on.")
    clusters: list[SeenClusterAnswer] = Field(description="What it sees, by launcher.")
    study: str | None = Field(description="What it runs; null: nothing.")


class HoldAnswer(Answer):
    """Devices that a trial holds, or waits for."""

    cluster: str = Field(description="The cluster's name.")
    study: str = Field(description="Whose trial it is.")
    devices: int = Field(description="How many.")
    nodes: dict[str, int] = Field(description="How many on each node, by GPU and number.")
    since: float = Field(description="Since when it holds or waits for them, s since 1970.")
    priority: int = Field(description="A higher one is served first.")


class ClusterAnswer(Answer):
    """The clusters as the workers see them."""

    workers: list[WorkerAnswer] = Field(description="Workers, the oldest first.")
    held: list[HoldAnswer] = Field(description="What trials hold of clusters that studies share.")
    waiting: list[HoldAnswer] = Field(description="Who waits for devices there, as they stand in line.")


def cluster_answer(workers: Sequence[WorkerRecord], leases: Sequence[DeviceLease]) -> ClusterAnswer:
    """The answer."""
    return ClusterAnswer(
        workers=[_worker(one) for one in workers],
        held=[_hold(one) for one in leases if one.token is not None],
        waiting=[_hold(one) for one in leases if one.token is None],
    )


def _worker(worker: WorkerRecord) -> WorkerAnswer:
    return WorkerAnswer(
        id=worker.id,
        alive=worker.alive,
        silent_s=worker.silent_s,
        started_at=worker.started_at,
        launchers=list(worker.launchers),
        clusters=[_seen(one) for one in worker.clusters],
        study=worker.study,
    )


def _seen(seen: SeenCluster) -> SeenClusterAnswer:
    groups = None if seen.groups is None else [dict(group) for group in seen.groups]
    devices = None if groups is None else sum(int(one.get("nodes", 1)) * int(one["gpus_per_node"]) for one in groups)
    return SeenClusterAnswer(
        launcher=seen.launcher, cluster=seen.cluster, groups=groups, devices=devices, problem=seen.problem
    )


def _hold(lease: DeviceLease) -> HoldAnswer:
    return HoldAnswer(
        cluster=lease.cluster,
        study=lease.study,
        devices=lease.devices,
        nodes={name: count for name, count, _ in lease.parts},
        since=lease.since,
        priority=lease.priority,
    )
