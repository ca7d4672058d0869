"""Devices that several studies use: which of a cluster's nodes others hold, as one study counts them.

Pure. Studies may describe one cluster differently, so a node has a name that all of them give it: its GPU and its place
among the nodes of that GPU. What a study does not plan for is not its business.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.ask.request import ClusterSpec
from tuner.trial.devices import Node, Placement, Reservation

Parts = tuple[tuple[str, int, int], ...]
"""What is held: (a node's name, devices on it, devices that it has for whoever holds them)."""


@dataclass(frozen=True, slots=True)
class SharedCluster:
    """A cluster that launchers elsewhere use too, by a name that all of them know it by.

    ``deals``: it deals out devices itself, as Ray does, so that two launches get different ones. Where it does not, as
    on a machine whose processes each see all of its GPUs, one launch keeps all others off its nodes.
    """

    id: str
    deals: bool


def this_machine() -> SharedCluster:
    """The devices of this machine, for launchers that start engines on it by themselves."""
    return SharedCluster(f"machine/{socket.gethostname()}"[:200], deals=False)


@dataclass(frozen=True, slots=True)
class ForeignHold:
    """What a trial of another study holds; ``alone``: nothing else may be on its nodes."""

    parts: Parts
    alone: bool


def node_names(groups: Sequence[ClusterSpec], cluster: SharedCluster) -> tuple[str, ...]:
    """The names of a request's nodes, in the order of ``nodes_of``; a machine's devices are its own whatever they are
    called."""
    seen: Counter[str] = Counter()
    names = []
    for group in groups:
        kind = group.gpu if cluster.deals else ""
        for _ in range(group.nodes):
            names.append(f"{kind}#{seen[kind]}")
            seen[kind] += 1
    return tuple(names)


def kinds_of(parts: Parts) -> frozenset[str]:
    """The kinds of nodes in it."""
    return frozenset(name.rpartition("#")[0] for name, _, _ in parts)


def parts_of(placement: Placement, nodes: Sequence[Node], names: Sequence[str]) -> Parts:
    """A placement as others see it."""
    return tuple((names[node], count, nodes[node].devices) for node, count in placement.held)


def reserved(foreign: Sequence[ForeignHold], nodes: Sequence[Node], names: Sequence[str]) -> list[Reservation]:
    """What others hold of a study's nodes. Of a node that has more devices than the study plans for, the rest is
    taken to be theirs first."""
    place, size = {name: i for i, name in enumerate(names)}, [node.devices for node in nodes]
    for hold in foreign:
        for name, _, devices in hold.parts:
            if name in place:
                size[place[name]] = max(size[place[name]], devices)
    spare = [size[i] - node.devices for i, node in enumerate(nodes)]
    found = []
    for hold in foreign:
        held = []
        for name, count, _ in hold.parts:
            if (i := place.get(name)) is None:
                continue
            aside = min(spare[i], count)
            spare[i] -= aside
            held.append((i, nodes[i].devices if hold.alone else count - aside))
        if held:
            found.append(Reservation(Placement(tuple(held)), measuring=True, mine=False))
    return found
