"""The nodes of a cluster as Ray shows them to those who watch what serves there."""

from __future__ import annotations

from collections import Counter
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
    """The nodes with their devices, by address; of several with one address the second is ``ADDRESS#2``, and so on, so
    that a node that is started again is the same, and one that joins changes no other's name.

    Where some have GPUs, those without are left out, as they are of a request's cluster.
    """
    every = sorted(nodes, key=lambda node: (node.address, -node.devices, node.id))
    equipped = [node for node in every if node.resources.get("GPU")] or every
    count: Counter[str] = Counter()
    found = []
    for node in equipped:
        count[node.address] += 1
        name = node.address if count[node.address] == 1 else f"{node.address}#{count[node.address]}"
        found.append(NodeSeen(name, _gpu(node), node.devices))
    return tuple(found)


def _gpu(node: RayNode) -> str | None:
    """Parlay's name of its GPUs, ``cpu`` where cores are the devices; None of those that have no profile."""
    kinds = accelerators(node.resources)
    if not kinds and (not node.resources.get("GPU") or node.resources.get("GPU") == node.resources.get("CPU")):
        return "cpu"
    known = [PROFILES[kind] for kind in kinds if kind in PROFILES]
    return known[0] if len(known) == 1 else None
