"""How many replicas equal nodes hold, and where each of them lies: said here alone.

A replica that fits a node stays on one: vLLM's mp executor knows no other, and a placement group of ours asks Ray for
one (STRICT_PACK), as vLLM itself does with data-parallel ranks (``CoreEngineActorManager.create_dp_placement_groups``:
so many a node as fit whole). A larger replica lies on as few nodes as it can: it takes whole nodes and, for the rest of
its ranks, a part of one more, which the rests of others may share. Ranks go onto nodes in their order
(``get_bundles_sorted_by_node`` of vLLM's Ray executor), so a tensor-parallel group may straddle two. Between nodes Ray
packs as best it can (PACK): it finds room for what is held here, if not always on so few nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tuner.ask.layout import ParallelLayout

_NEVER = -(10**9)  # of the second size, where so many of the first do not fit


class EqualNodes(Protocol):
    """Nodes of one kind."""

    @property
    def nodes(self) -> int:
        """How many."""

    @property
    def gpus_per_node(self) -> int:
        """Devices of each."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one replica takes: ``whole`` nodes, and ``rest`` devices of one more, whose node holds ``sharing`` rests.

    ``sharing`` is 0 where there is no rest.
    """

    whole: int
    rest: int
    sharing: int

    @classmethod
    def of(cls, devices: int, per_node: int) -> Footprint:
        """A replica of so many devices on nodes of ``per_node``."""
        whole, rest = divmod(devices, per_node)
        return cls(whole, rest, per_node // rest if rest else 0)

    @property
    def nodes(self) -> int:
        """Nodes under one replica."""
        return self.whole + bool(self.rest)

    @property
    def on_one_node(self) -> bool:
        """True where it stays on a node."""
        return self.nodes == 1

    def nodes_under(self, replicas: int) -> int:
        """The fewest nodes that hold so many."""
        return replicas * self.whole + (-(-replicas // self.sharing) if self.rest else 0)

    def held_by(self, nodes: int) -> int:
        """The most that so many nodes hold: rests fill nodes in groups of ``sharing`` replicas, the last one by one."""
        if not self.rest:
            return nodes // self.whole
        groups, left = divmod(nodes, self.sharing * self.whole + 1)
        return groups * self.sharing + (max(left - 1, 0) // self.whole if self.whole else 0)


def footprint(layout: ParallelLayout, per_node: int) -> Footprint:
    """What one replica of a layout takes of nodes of ``per_node`` devices."""
    return Footprint.of(layout.devices_per_replica, per_node)


def unplaceable(layout: ParallelLayout, on: EqualNodes) -> str | None:
    """Why the nodes cannot hold a layout's replicas, in figures; None where they can."""
    total = on.nodes * on.gpus_per_node
    if layout.devices > total:
        return f"needs {layout.devices} devices, the cluster has {total}"
    one = footprint(layout, on.gpus_per_node)
    held = one.held_by(on.nodes)
    if held >= layout.dp:
        return None
    lies = "one node" if one.on_one_node else f"{one.nodes} nodes"
    asked = f"{layout.dp} replicas of {layout.devices_per_replica} devices"
    return f"{asked}, each on {lies}: {on.nodes} × {on.gpus_per_node} devices hold {held}"


def pools_unplaceable(first: ParallelLayout, second: ParallelLayout, on: EqualNodes) -> str | None:
    """Why the nodes cannot hold two pools beside each other, in figures; None where they can."""
    pools = (first, second)
    total, needed = on.nodes * on.gpus_per_node, sum(pool.devices for pool in pools)
    if needed > total:
        return f"pools of {needed} devices, the cluster has {total}"
    takes = [footprint(pool, on.gpus_per_node) for pool in pools]
    left = on.nodes - sum(one.whole * pool.dp for one, pool in zip(takes, pools, strict=True))
    rests = [(one.rest, pool.dp) for one, pool in zip(takes, pools, strict=True) if one.rest]
    if left >= 0 and _hold(left, on.gpus_per_node, rests):
        return None
    asked = " and ".join(f"{pool.dp} × {pool.devices_per_replica}" for pool in pools)
    whole = "a replica that fits a node on one, others on as few as they can"
    return f"pools of {asked} devices, {whole}: not on {on.nodes} × {on.gpus_per_node} devices"


def _hold(nodes: int, per_node: int, parts: Sequence[tuple[int, int]]) -> bool:
    """Do nodes hold these parts, (devices, how many) of up to two sizes?

    Exact: node by node, the most of the second size that lie beside each number of the first.
    """
    (size, count), (other, others) = (*parts, (per_node, 0), (per_node, 0))[:2]
    most = np.full(count + 1, _NEVER)
    most[0] = 0
    for _ in range(nodes):
        dealt = most + per_node // other
        for held in range(1, min(per_node // size, count) + 1):
            np.maximum(dealt[held:], most[:-held] + (per_node - held * size) // other, out=dealt[held:])
        most = dealt
    return bool(most[count] >= others)
