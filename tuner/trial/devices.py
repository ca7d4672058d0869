"""Which devices a trial gets: packed by node, and kept from disturbing what is measured beside it.

Pure: nodes and reservations in, a placement or None out. Under isolation by node

- nothing starts on a node where a trial is being measured: loading weights takes its host's memory and PCIe bandwidth;
- no two trials that span nodes share one: they would share its NICs;
- a node that another driver of the study uses is left to it, since nobody knows here what it does at the moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.ask.deployment import Deployment, pools_of
from tuner.ask.layout import ParallelLayout
from tuner.ask.packing import footprint
from tuner.ask.request import ClusterSpec, Isolation


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its devices, and its group's GPU where the cluster has several groups."""

    devices: int
    gpu: str | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """What a trial holds: (index of the node, devices on it), each node once, in the order in which ranks take them."""

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
    deployment: Deployment,
    nodes: Sequence[Node],
    reservations: Sequence[Reservation],
    isolation: Isolation = Isolation.NODE,
) -> Placement | None:
    """Where a deployment goes now, replica by replica as ``tuner.ask.packing`` says, or None where there is no room.

    An engine group that fits one node goes onto the fullest that has room, as each replica and each rest of one does.
    """
    free = _free(nodes, reservations)
    isolated = isolation is Isolation.NODE
    closed = _closed(reservations) if isolated else frozenset()
    busy = _spanned(reservations) if isolated else frozenset()
    held: dict[int, int] = {}
    for layout in sorted(pools_of(deployment).values(), key=lambda pool: -pool.devices_per_replica):
        own = [i for i, node in enumerate(nodes) if node.gpu == layout.gpu]
        room = _Room(max((nodes[i].devices for i in own), default=1), {i: free[i] for i in own if i not in closed})
        parts = room.for_group(layout, busy)
        if parts is None:
            return None
        for node, devices in parts:
            free[node] -= devices
            held[node] = held.get(node, 0) + devices
    return Placement(tuple(held.items()))


@dataclass(slots=True)
class _Room:
    """Nodes of ``size`` devices, and how many of each are free; what is taken is free no more."""

    size: int
    free: dict[int, int]

    def for_group(self, layout: ParallelLayout, busy: frozenset[int]) -> list[tuple[int, int]] | None:
        """(node, devices) of each part of a group of engines; nodes under ``busy`` carry no more traffic between nodes.

        Ray Serve LLM deals ranks that share experts onto nodes device by device: on several, they get empty ones.
        """
        if layout.devices <= self.size:
            home = self._fullest(layout.devices, frozenset())
            return None if home is None else [(home, layout.devices)]
        one = footprint(layout, self.size)
        avoided = busy if layout.shares_experts or not one.on_one_node else frozenset()
        if layout.shares_experts:
            avoided |= {i for i, count in self.free.items() if count < self.size}
        parts: list[tuple[int, int]] = []
        for devices in [*[self.size] * one.whole, *[one.rest] * bool(one.rest)] * layout.dp:
            home = self._fullest(devices, avoided)
            if home is None:
                return None
            self.free[home] -= devices
            parts.append((home, devices))
        return parts

    def _fullest(self, devices: int, avoided: frozenset[int]) -> int | None:
        fitting = (i for i, count in self.free.items() if count >= devices and i not in avoided)
        return min(fitting, key=lambda i: (self.free[i], i), default=None)


def room_for(placement: Placement, nodes: Sequence[Node], reservations: Sequence[Reservation]) -> bool:
    """True where the devices of a placement are there, and free."""
    free = _free(nodes, reservations)
    return all(node < len(free) and count <= free[node] for node, count in placement.held)


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
