"""Which devices a trial gets: packed by node, and kept from disturbing what is measured beside it.

Pure: nodes and reservations in, a placement or None out. Under isolation by node

- nothing starts on a node where a trial is being measured: loading weights takes its host's memory and PCIe bandwidth;
- no two trials that span nodes share one: they would share its NICs;
- a node that another driver of the study uses is left to it, since nobody knows here what it does at the moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.ask.request import ClusterSpec, Isolation


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its devices, and its group's GPU where the cluster has several groups."""

    devices: int
    gpu: str | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """What a trial holds: (index of the node, devices on it), in the order of its ranks."""

    held: tuple[tuple[int, int], ...]

    @property
    def nodes(self) -> frozenset[int]:
        """The nodes under it."""
        return frozenset(node for node, _ in self.held)

    @property
    def devices(self) -> int:
        """Devices in all."""
        return sum(count for _, count in self.held)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A placement in use. ``measuring`` is False while it starts; ``mine`` where this driver runs it."""

    placement: Placement
    measuring: bool
    mine: bool = True


def nodes_of(groups: Sequence[ClusterSpec]) -> tuple[Node, ...]:
    """The nodes of a request's groups, in their order."""
    several = len(groups) > 1
    return tuple(Node(g.gpus_per_node, g.gpu if several else None) for g in groups for _ in range(g.nodes))


def place(
    devices: int,
    gpu: str | None,
    nodes: Sequence[Node],
    reservations: Sequence[Reservation],
    isolation: Isolation = Isolation.NODE,
) -> Placement | None:
    """Where ``devices`` devices of one group go now, or None where there is no room for them.

    What fits one node goes onto the fullest that has room. What does not, takes whole nodes, and for the rest of its
    ranks the fullest node that has room: that is how ``Cluster.nodes_spanned`` counts.
    """
    free = _free(nodes, reservations)
    isolated = isolation is Isolation.NODE
    closed = _closed(reservations) if isolated else frozenset()
    usable = [i for i, node in enumerate(nodes) if node.gpu == gpu and i not in closed and free[i] > 0]
    if not usable:
        return None
    size = max(nodes[i].devices for i in usable)
    if devices <= size:
        home = min((i for i in usable if free[i] >= devices), key=lambda i: (free[i], i), default=None)
        return None if home is None else Placement(((home, devices),))
    whole, rest = divmod(devices, size)
    empty = [i for i in usable if free[i] == size][:whole]
    if len(empty) < whole:
        return None
    held = [(i, size) for i in empty]
    if rest:
        busy = _spanned(reservations) if isolated else frozenset()
        fitting = [i for i in usable if i not in empty and i not in busy and free[i] >= rest]
        if not fitting:
            return None
        held.append((min(fitting, key=lambda i: (free[i], i)), rest))
    return Placement(tuple(held))


def _free(nodes: Sequence[Node], reservations: Sequence[Reservation]) -> list[int]:
    free = [node.devices for node in nodes]
    for reservation in reservations:
        for node, count in reservation.placement.held:
            free[node] -= count
    return free


def _closed(reservations: Sequence[Reservation]) -> frozenset[int]:
    """Nodes on which nothing may start now."""
    return frozenset(n for r in reservations if r.measuring or not r.mine for n in r.placement.nodes)


def _spanned(reservations: Sequence[Reservation]) -> frozenset[int]:
    """Nodes under trials that use the fabric."""
    return frozenset(n for r in reservations if len(r.placement.nodes) > 1 for n in r.placement.nodes)
