"""NCCL's own tuning model: what its library believes that each algorithm and protocol takes, by which it chooses.

Constants and formulas of NCCL 2.30 (src/graph/tuning.cc; figures in microseconds and 10^9 bytes per
second): time = latency + bytes / algorithm bandwidth. Used as it stands for forced ``nccl-*`` algorithms and between
nodes, where nothing was measured. The channel count, which NCCL finds by searching the machine, is taken as 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuner.cost.collectives.cost import Array, Cost, cost_of, ring_steps
from tuner.errors import BadInput

PROTOCOLS = ("ll", "ll128", "simple")
TUNED_OPERATIONS = ("allreduce", "allgather", "reducescatter", "broadcast")
CHANNELS = 16
GENERATIONS = ("ampere", "hopper", "blackwell")

_BASE_US = {"tree": (6.8, 14.0, 8.4), "ring": (6.6, 14.0, 8.4)}
_HARDWARE_US = {
    "nvlink": {"tree": (0.6, 1.25, 4.0), "ring": (0.6, 1.9, 3.4)},
    "pcie": {"tree": (1.0, 1.9, 4.0), "ring": (1.0, 2.5, 5.7)},
    "network": {"tree": (5.0, 8.5, 14.0), "ring": (2.7, 4.0, 14.0)},
}
_NVLS_US, _NVLS_TREE_US, _NVLS_TREE_NETWORK_US = 25.0, 25.0, 20.9
_LL_ONE_NODE_GB_PER_S = {"ampere": 87.7, "hopper": 141.0, "blackwell": 282.0}
_LL_NODES_GB_PER_S = {False: (39.0, 20.4), True: (22.5, 19.0)}
_RING_LL128_GB_PER_S = {"ampere": (20.0, 20.0, 20.0), "hopper": (36.7, 36.7, 36.7), "blackwell": (40.0, 40.0, 40.0)}
_TREE_LL128_GB_PER_S = {"ampere": (20.0, 20.0, 20.0), "hopper": (36.7, 36.7, 29.0), "blackwell": (55.6, 31.67, 20.0)}
_TREE_GB_PER_S = {"ampere": (24.0, 23.6, 17.8), "hopper": (38.7, 41.4, 36.0), "blackwell": (70.0, 42.8, 24.0)}
_NVLS_TREE_GB_PER_S = {"hopper": (0.0, 57.7, 45.5), "blackwell": (0.0, 96.0, 80.0)}
_NVLS_EFFICIENCY = {"hopper": 0.85, "blackwell": 0.74}
NVLINK_GB_PER_S = {"ampere": 20.0, "hopper": 20.6, "blackwell": 40.1}
# Share of the tree's bandwidth by message size: 64 B, 128 B, ... 256 MiB (tuning.cc, treeCorrectionFactor).
_TREE_SHARE = {
    "ll": (1, 1, 1, 1, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1),
    "ll128": (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9, 1, 1),
    "simple": (
        *(0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5),
        *(0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9),
    ),
}


@dataclass(frozen=True, slots=True)
class TunedGroup:
    """What NCCL's model knows of a communicator.

    ``link`` is ``nvlink`` or ``pcie``; ``bus_gb_per_s`` is the bandwidth per direction of all channels together, the
    least of the node's and the network's; ``network_us`` is the transport's own latency; ``amd_hosts`` says
    whose CPUs, ``has_near_nics`` whether NICs share a PCIe switch with their GPUs, without which LL128 stays off.
    """

    ranks: int
    nodes: int
    generation: str
    link: str
    bus_gb_per_s: float
    network_us: float = 0.0
    amd_hosts: bool = False
    has_near_nics: bool = True

    @property
    def column(self) -> int:
        """Column of the constants for one node, two nodes, and more."""
        return min(self.nodes, 3) - 1


def generation_of(compute_capability: float | None) -> str:
    """The row of NCCL's constants for a GPU: by compute capability, the oldest kept row for anything below 9.0."""
    if compute_capability is None or compute_capability < 9.0:
        return "ampere"
    return "hopper" if compute_capability < 10.0 else "blackwell"


def available(operation: str, group: TunedGroup) -> tuple[str, ...]:
    """The algorithms that NCCL would consider: LL128 with NVLink only, trees for all-reduce, NVLS by generation."""
    if operation not in TUNED_OPERATIONS:
        raise BadInput("operation", operation, f"NCCL's tuning model has {', '.join(TUNED_OPERATIONS)}")
    has_ll128 = group.link == "nvlink" and (group.nodes == 1 or group.has_near_nics)
    protocols = [name for name in PROTOCOLS if name != "ll128" or has_ll128]
    names = [f"nccl-ring-{protocol}" for protocol in protocols]
    if operation == "allreduce":
        names += [f"nccl-tree-{protocol}" for protocol in protocols]
        if group.link == "nvlink" and group.generation in _NVLS_EFFICIENCY:
            if group.nodes == 1 and group.ranks > 2:
                names.append("nccl-nvls")
            if group.nodes > 1 and group.ranks > group.nodes:
                names.append("nccl-nvlstree")
    return tuple(names)


def tuned_cost(operation: str, algorithm: str, group: TunedGroup, message_bytes: Array) -> Cost:
    """Latency of one algorithm in NCCL's model, in microseconds; ``BadInput`` lists those that the group can use."""
    allowed = available(operation, group)
    if algorithm not in allowed:
        raise BadInput("algorithm", algorithm, f"for {operation} on this group: {', '.join(allowed)}")
    if group.ranks == 1:
        return cost_of(0.0, np.zeros_like(message_bytes))
    if algorithm.startswith("nccl-nvls"):
        return _nvls(algorithm, operation, group, message_bytes)
    _, kind, protocol = algorithm.split("-")
    if kind == "tree":
        return _tree(protocol, group, message_bytes)
    return _ring(operation, protocol, group, message_bytes)


def _ring(operation: str, protocol: str, group: TunedGroup, message_bytes: Array) -> Cost:
    """Base + steps inside nodes + steps between; Simple pays 1.4 times the latency once its slices fill up."""
    column = PROTOCOLS.index(protocol)
    intra_us = _HARDWARE_US[group.link]["ring"][column]
    network = "tree" if group.nodes == group.ranks else "ring"
    inter_us = _network_us(network, protocol, group)
    if group.nodes > 1:
        overhead_us = (2.0 if group.amd_hosts else 1.0) * (3.0 if protocol == "simple" else 1.0)
        intra_us = max(intra_us, overhead_us)
    steps, across = ring_steps(operation, group.ranks), ring_steps(operation, group.nodes)
    latency_us = _BASE_US["ring"][column] + (steps - across) * intra_us + across * inter_us
    bus = group.bus_gb_per_s
    if protocol == "ll":
        bus = min(_ll_limit(group), 0.5 * bus)
    elif protocol == "ll128":
        share = 0.7 if group.ranks < 2 * group.nodes else 0.92
        bus = min(share * bus, CHANNELS * _RING_LL128_GB_PER_S[group.generation][group.column])
    cost = cost_of(latency_us, message_bytes / (1000 * bus * group.ranks / max(steps, 1)))
    if operation == "allreduce" and protocol == "simple" and group.nodes > 1:
        plateau = message_bytes / (CHANNELS * group.ranks) >= 64
        return Cost(np.where(plateau, 1.4, 1.0) * cost.alpha_us, cost.beta_us)
    return cost


def _tree(protocol: str, group: TunedGroup, message_bytes: Array) -> Cost:
    """Base + up and down a chain in the node and a double binary tree between nodes; bandwidth corrected by size."""
    column = PROTOCOLS.index(protocol)
    hops_us = (-(-group.ranks // group.nodes) - 1) * _HARDWARE_US[group.link]["tree"][column]
    hops_us += int(math.log2(group.nodes)) * _network_us("tree", protocol, group)
    bus = min(0.92 * group.bus_gb_per_s, CHANNELS * _TREE_GB_PER_S[group.generation][group.column])
    if protocol == "ll":
        bus = min(bus / 3.8, _ll_limit(group))
    elif protocol == "ll128":
        share = 7 / 9 if group.nodes == 1 else 120 / 128
        bus = min(share * bus, CHANNELS * _TREE_LL128_GB_PER_S[group.generation][group.column])
    sizes = np.log2(np.maximum(message_bytes, 64.0) / 64)
    correction = np.interp(sizes, np.arange(len(_TREE_SHARE[protocol])), _TREE_SHARE[protocol])
    return cost_of(_BASE_US["tree"][column] + 2 * hops_us, message_bytes / (1000 * 0.5 * bus * correction))


def _nvls(algorithm: str, operation: str, group: TunedGroup, message_bytes: Array) -> Cost:
    """In-switch reduction: no base latency; between nodes (NVLSTree) a tree of the nodes' partial sums."""
    latency_us, bus = _NVLS_US, group.bus_gb_per_s * _NVLS_EFFICIENCY[group.generation]
    if algorithm == "nccl-nvlstree":
        latency_us = _NVLS_TREE_US + 2 * int(math.log2(group.nodes)) * (_NVLS_TREE_NETWORK_US + 2 * group.network_us)
        halved = group.bus_gb_per_s if group.nodes == 2 else group.bus_gb_per_s / 2
        bus = min(halved, CHANNELS * _NVLS_TREE_GB_PER_S[group.generation][group.column])
    return cost_of(latency_us, message_bytes / (1000 * bus * group.ranks / ring_steps(operation, group.ranks)))


def _network_us(kind: str, protocol: str, group: TunedGroup) -> float:
    """One network hop: NCCL's constant plus the transport's latency, which Simple pays twice (the flush)."""
    column = PROTOCOLS.index(protocol)
    return _HARDWARE_US["network"][kind][column] + group.network_us * (2 if protocol == "simple" else 1)


def _ll_limit(group: TunedGroup) -> float:
    """Most that LL reaches: set by the GPU inside one node and by the CPU's vendor between nodes."""
    if group.nodes == 1:
        return _LL_ONE_NODE_GB_PER_S[group.generation]
    return _LL_NODES_GB_PER_S[group.amd_hosts][group.column - 1]
