"""Which ranks an operation joins, and how many nodes lie under them."""

from __future__ import annotations

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.cost.collectives import CommGroup
from tuner.cost.volume import PassOperation


def group_of(cluster: Cluster, layout: ParallelLayout, operation: PassOperation) -> CommGroup:
    """The ranks of an operation and their nodes (tensor-parallel ranks innermost, data-parallel last)."""
    width, ranks = layout.tp * layout.pcp, operation.ranks
    if operation.group == "pp":
        first, second = operation.stage * width, (operation.stage + 1) * width
        per_node = cluster.gpus_per_node
        return even_group(2, 1 if first // per_node == second // per_node else 2)
    if operation.group == "ep":  # replicas of a stage lie pp × width apart
        return even_group(ranks, cluster.nodes_spanned(layout.devices if layout.pp > 1 else ranks))
    stride = {"pcp": layout.tp, "tp-rows": layout.tp // ranks}.get(operation.group, 1)
    return even_group(ranks, cluster.nodes_spanned(ranks, stride))


def even_group(ranks: int, nodes: int) -> CommGroup:
    """``ranks`` on at least ``nodes`` nodes: a group is priced as spread evenly over its nodes."""
    spread = min(nodes, ranks)
    while ranks % spread:
        spread += 1
    return CommGroup(ranks, spread)
