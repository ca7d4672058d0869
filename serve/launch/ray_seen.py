"""The nodes of a cluster as Ray shows them to those who watch what serves there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from serve.launch.accelerators import PROFILES, accelerators
from serve.launch.ray_nodes import Resources
from tuner.retune.seen import NodeSeen


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node that is alive: Ray's id, its address, the port at which its agent shows metrics (0: none), resources."""

    id: str
    address: str
    metrics_port: int
    resources: Resources

    @property
    def devices(self) -> int:
        """GPUs, or cores where it has none."""
        return int(self.resources.get("GPU") or self.resources.get("CPU") or 0)


def nodes_seen(nodes: Iterable[RayNode]) -> tuple[NodeSeen, ...]:
    """The nodes with their devices, by address; several of one machine by Ray's id too, which a restart changes.

    Where some have GPUs, those without are left out, as they are of a request's cluster.
    """
    all_nodes = sorted(nodes, key=lambda node: (node.address, node.id))
    equipped = [node for node in all_nodes if node.resources.get("GPU")] or all_nodes
    shared = {node.address for node in all_nodes if sum(one.address == node.address for one in all_nodes) > 1}
    return tuple(
        NodeSeen(f"{node.address}/{node.id[:8]}" if node.address in shared else node.address, _gpu(node), node.devices)
        for node in equipped
    )


def _gpu(node: RayNode) -> str | None:
    """Parlay's name of its GPUs, ``cpu`` where cores are the devices; None of those that have no profile."""
    kinds = accelerators(node.resources)
    if not kinds and (not node.resources.get("GPU") or node.resources.get("GPU") == node.resources.get("CPU")):
        return "cpu"
    known = [PROFILES[kind] for kind in kinds if kind in PROFILES]
    return known[0] if len(known) == 1 else None
