"""Nodes under the groups that operations join: those of the ranks as they are launched, one after the other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import ClusterSpec
from tuner.cost.rank_placement import context_group, even_group, expert_group, group_of
from tuner.cost.volume import PassOperation


def cluster(per_node: int) -> Cluster:
    return Cluster.from_spec(ClusterSpec(gpu="h100_sxm", nodes=64, gpus_per_node=per_node))


def nodes_of_replicas(layout: ParallelLayout, per_node: int) -> list[list[int]]:
    """The node of each rank of each replica: whole nodes, then the rest beside other rests, as many as fit."""
    replica, found, fresh, shared, room = layout.devices_per_replica, [], 0, -1, 0
    for _ in range(layout.dp):
        ranks = []
        for _ in range(replica // per_node):
            ranks += [fresh] * per_node
            fresh += 1
        if rest := replica % per_node:
            if room < rest:
                shared, room, fresh = fresh, per_node, fresh + 1
            ranks += [shared] * rest
            room -= rest
        found.append(ranks)
    return found


def operation(group: str, ranks: int, stage: int = 0) -> PassOperation:
    return PassOperation(stage, "allreduce", group, ranks, 1, 1.0, 2, "test")  # type: ignore[arg-type]


LAYOUTS = st.builds(
    ParallelLayout,
    tp=st.sampled_from([1, 2, 3, 4, 6, 8, 16]),
    pcp=st.integers(1, 3),
    pp=st.integers(1, 4),
    dp=st.integers(1, 5),
    ep=st.just(True),
    executor=st.just("ray"),
)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(layout=LAYOUTS, per_node=st.integers(1, 9), stage=st.integers(0, 3))
def test_groups_lie_on_the_nodes_of_their_ranks(layout: ParallelLayout, per_node: int, stage: int) -> None:
    stage %= layout.pp
    replicas, on = nodes_of_replicas(layout, per_node), cluster(per_node)
    t, width = layout.tp, layout.tp * layout.pcp
    first = replicas[0]
    own = first[stage * width : (stage + 1) * width]
    tensor = max(len(set(own[i : i + t])) for i in range(0, width, t))
    assert group_of(on, layout, operation("tp", t, stage)) == even_group(t, tensor)
    context = max(len(set(own[i::t])) for i in range(t))
    assert group_of(on, layout, operation("pcp", layout.pcp, stage)) == even_group(layout.pcp, context)
    if stage == 0:
        assert context_group(on, layout) == even_group(layout.pcp, context)
    experts = len({node for ranks in replicas for node in ranks[stage * width : (stage + 1) * width]})
    assert expert_group(on, layout, stage) == even_group(width * layout.dp, experts)
    if stage < layout.pp - 1:
        following = first[(stage + 1) * width : (stage + 2) * width]
        crosses = any(a != b for a, b in zip(own, following, strict=True))
        assert group_of(on, layout, operation("pp", 2, stage)).nodes == 1 + crosses


@pytest.mark.parametrize(
    ("text", "per_node", "nodes"),
    [
        ("tp=4,pp=1,dp=1", 6, [1]),
        ("tp=4,pp=2,dp=1", 8, [1, 1]),
        ("tp=4,pp=2,dp=1", 6, [1, 2]),  # the second stage has two devices of each node
        ("tp=4,pp=3,dp=1", 8, [1, 1, 1]),
        ("tp=8,pp=1,dp=1", 6, [2]),
        ("tp=6,pp=2,dp=1", 8, [1, 2]),
        ("tp=16,pp=2,dp=1", 8, [2, 2]),
    ],
)
def test_tensor_parallel_groups_of_each_stage(text: str, per_node: int, nodes: list[int]) -> None:
    layout = ParallelLayout.parse(text)
    found = [group_of(cluster(per_node), layout, operation("tp", layout.tp, stage)) for stage in range(layout.pp)]
    assert [group.nodes for group in found] == nodes


@pytest.mark.parametrize(
    ("text", "per_node", "crossing"),
    [
        ("tp=4,pp=2,dp=1", 8, 0), ("tp=8,pp=2,dp=1", 8, 1), ("tp=4,pp=4,dp=1", 8, 1), ("tp=1,pp=8,dp=1", 4, 1),
        ("tp=8,pp=4,dp=1", 8, 3), ("tp=16,pp=2,dp=1", 8, 1), ("tp=4,pp=2,dp=1", 6, 1),
    ],
)  # fmt: skip
def test_stage_links_between_nodes(text: str, per_node: int, crossing: int) -> None:
    layout = ParallelLayout.parse(text)
    links = [group_of(cluster(per_node), layout, operation("pp", 2, stage)).nodes for stage in range(layout.pp - 1)]
    assert sum(nodes == 2 for nodes in links) == crossing


@pytest.mark.parametrize(
    ("text", "per_node", "group"),
    [
        ("tp=3,pp=1,dp=5,ep=true", 8, (15, 3)),  # two ranks of 3 a node
        ("tp=8,pp=2,dp=2,ep=true", 8, (16, 2)),  # a stage's ranks are on its own nodes alone
        ("tp=4,pp=1,dp=2,ep=true", 6, (8, 2)),
    ],
)
def test_experts_of_a_stage(text: str, per_node: int, group: tuple[int, int]) -> None:
    found = expert_group(cluster(per_node), ParallelLayout.parse(text))
    assert (found.ranks, found.nodes) == group
