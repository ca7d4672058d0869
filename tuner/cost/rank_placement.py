"""Which ranks an operation joins, and how many nodes lie under them.

Ranks of a replica are numbered as vLLM numbers them: tensor-parallel innermost, then prefill context, then pipeline.
They go onto the replica's nodes in that order (``tuner.ask.packing``), wherever a group or a stage begins.
"""

from __future__ import annotations

from functools import lru_cache

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.packing import footprint
from tuner.cost.collectives import CommGroup
from tuner.cost.volume import PassOperation


def group_of(cluster: Cluster, layout: ParallelLayout, operation: PassOperation) -> CommGroup:
    """The ranks of an operation and their nodes; of a stage's groups the one on the most nodes, which all wait for."""
    if operation.group == "ep":
        return expert_group(cluster, layout, operation.stage)
    if footprint(layout, cluster.gpus_per_node).on_one_node:
        return CommGroup(operation.ranks, 1)
    width, per_node = layout.tp * layout.pcp, cluster.gpus_per_node
    if operation.group == "pp":
        return even_group(2, 1 + _link_crosses(operation.stage * width, width, per_node))
    stride = {"pcp": layout.tp, "tp-rows": layout.tp // operation.ranks}.get(operation.group, 1)
    return even_group(operation.ranks, _most_nodes(operation.stage * width, width, operation.ranks, stride, per_node))


def expert_group(cluster: Cluster, layout: ParallelLayout, stage: int = 0) -> CommGroup:
    """The expert-parallel ranks of a stage, in all replicas, and their nodes."""
    width, per_node = layout.tp * layout.pcp, cluster.gpus_per_node
    one = footprint(layout, per_node)
    if one.on_one_node:
        return even_group(width * layout.dp, one.nodes_under(layout.dp))
    first, last = stage * width // per_node, ((stage + 1) * width - 1) // per_node
    own = min(last + 1, one.whole) - first  # whole nodes that the stage lies on; the last may be a shared one
    shared = -(-layout.dp // one.sharing) if last == one.whole else 0
    return even_group(width * layout.dp, own * layout.dp + shared)


def context_group(cluster: Cluster, layout: ParallelLayout) -> CommGroup:
    """The prefill-context-parallel ranks of the first stage, and their nodes."""
    width, per_node = layout.tp * layout.pcp, cluster.gpus_per_node
    if footprint(layout, per_node).on_one_node:
        return CommGroup(layout.pcp, 1)
    return even_group(layout.pcp, _most_nodes(0, width, layout.pcp, layout.tp, per_node))


def even_group(ranks: int, nodes: int) -> CommGroup:
    """``ranks`` on at least ``nodes`` nodes: a group is priced as spread evenly over its nodes."""
    spread = min(nodes, ranks)
    while ranks % spread:
        spread += 1
    return CommGroup(ranks, spread)


@lru_cache(maxsize=4096)
def _most_nodes(first: int, width: int, ranks: int, stride: int, per_node: int) -> int:
    """Nodes under one of the groups of ``ranks`` ranks, ``stride`` apart, that a stage's ranks form: the most."""
    begins = (block + k for block in range(first, first + width, stride * ranks) for k in range(stride))
    return max(len({rank // per_node for rank in range(at, at + stride * ranks, stride)}) for at in begins)


@lru_cache(maxsize=4096)
def _link_crosses(first: int, width: int, per_node: int) -> bool:
    """Does any rank of a stage, from ``first`` on, send to a rank of the next stage on another node?"""
    return any(rank // per_node != (rank + width) // per_node for rank in range(first, first + width))
