"""Which devices a trial gets beside others: replica by replica, and without disturbing what is measured."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import make_request
from tests.packers import can_hold
from tuner.ask.cluster import Cluster
from tuner.ask.deployment import parse_deployment
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import ClusterSpec, Isolation
from tuner.errors import FailureReason, LaunchFailed
from tuner.rehearse.cluster import SimulatedCluster
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.trial.devices import Node, Placement, Reservation, nodes_of, place
from tuner.trial.seams import LaunchOrder, Watch

Held = tuple[tuple[int, int], ...]


def nodes(count: int, devices: int) -> list[Node]:
    return [Node(devices)] * count


@pytest.mark.parametrize(
    ("deployment", "on", "held"),
    [
        ("tp=4,dp=2", nodes(2, 6), ((0, 4), (1, 4))),
        ("tp=4,dp=3", nodes(2, 6), None),
        ("tp=2,dp=5", nodes(2, 6), ((0, 6), (1, 4))),
        ("tp=8,executor=ray", nodes(2, 6), ((0, 6), (1, 2))),
        ("tp=8,dp=3,executor=ray", nodes(4, 6), ((0, 6), (1, 6), (2, 6), (3, 6))),
        ("tp=9,dp=2,executor=ray", nodes(3, 6), ((0, 6), (1, 6), (2, 6))),
        ("tp=4,dp=2,ep=true,executor=ray", nodes(2, 6), ((0, 4), (1, 4))),
        ("tp=4 -> tp=2,dp=4", nodes(2, 6), ((0, 6), (1, 6))),
        ("tp=4,dp=2 -> tp=4", nodes(2, 6), None),
    ],
)
def test_an_empty_cluster(deployment: str, on: list[Node], held: Held | None) -> None:
    found = place(parse_deployment(deployment), on, ())
    if held is None:
        assert found is None
    else:
        assert found is not None
        assert sorted(found.held) == sorted(held)


@pytest.mark.parametrize(
    ("deployment", "others", "isolation", "held"),
    [
        ("tp=4", [(((0, 2),), False)], Isolation.NODE, ((0, 4),)),  # the fullest that has room
        ("tp=4", [(((0, 2),), True)], Isolation.NODE, ((1, 4),)),  # nothing starts where a trial is measured
        ("tp=4", [(((0, 2),), True)], Isolation.NONE, ((0, 4),)),
        ("tp=4,dp=2", [(((0, 2),), False)], Isolation.NODE, ((0, 4), (1, 4))),
        ("tp=4,dp=2,ep=true,executor=ray", [(((0, 2),), False)], Isolation.NODE, None),  # on empty nodes alone
        ("tp=8,executor=ray", [(((0, 2),), False)], Isolation.NODE, None),  # no whole node beside room for two
        ("tp=4", [(((0, 6), (1, 2)), False)], Isolation.NODE, ((1, 4),)),
    ],
)
def test_beside_others(
    deployment: str, others: list[tuple[Held, bool]], isolation: Isolation, held: Held | None
) -> None:
    reserved = [Reservation(Placement(one), measuring) for one, measuring in others]
    if "tp=8" in deployment:
        reserved.append(Reservation(Placement(((1, 5),)), measuring=False))
    found = place(parse_deployment(deployment), nodes(2, 6), reserved, isolation)
    assert (found.held if found else None) == held


def test_rests_keep_off_the_nodes_of_others_that_use_the_network() -> None:
    three = nodes(3, 6)
    first = place(parse_deployment("tp=8,executor=ray"), three, ())
    assert first == Placement(((0, 6), (1, 2)))
    beside = [Reservation(first, measuring=False)]
    assert place(parse_deployment("tp=8,executor=ray"), three, beside) is None
    assert place(parse_deployment("tp=8,executor=ray"), three, beside, Isolation.NONE) == Placement(((2, 6), (1, 2)))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 4),
    devices=st.integers(1, 8),
    asked=st.lists(
        st.builds(
            ParallelLayout, tp=st.integers(1, 12), dp=st.integers(1, 4), ep=st.booleans(), executor=st.just("ray")
        ),
        max_size=6,
    ),
    measuring=st.booleans(),
    isolation=st.sampled_from(Isolation),
)
def test_no_device_is_given_twice(
    count: int, devices: int, asked: list[ParallelLayout], measuring: bool, isolation: Isolation
) -> None:
    on, held = nodes(count, devices), list[Reservation]()
    for layout in asked:
        found = place(layout, on, held, isolation)
        if found is None:
            continue
        assert found.devices == layout.devices
        counts = [taken for _, taken in found.held]
        assert can_hold(counts, devices, layout.devices_per_replica, layout.dp)
        held.append(Reservation(found, measuring))
    used = Counter[int]()
    for reservation in held:
        used.update(dict(reservation.placement.held))
    assert all(taken <= devices for taken in used.values())
    if isolation is Isolation.NODE and measuring:
        assert sum(len(reservation.placement.nodes) for reservation in held) == len(used)  # nobody's neighbour


def test_pools_may_live_in_different_node_groups() -> None:
    groups = (ClusterSpec(gpu="l40s", gpus_per_node=4), ClusterSpec(gpu="h100_sxm", gpus_per_node=8))
    found = place(parse_deployment("tp=4,gpu=h100_sxm -> tp=2,dp=2,gpu=l40s"), nodes_of(groups), ())
    assert found == Placement(((1, 4), (0, 4)))
    assert place(parse_deployment("tp=8,gpu=l40s"), nodes_of(groups), ()) is None
    assert place(parse_deployment("tp=1"), nodes_of(groups), ()) is None  # of no group


def test_a_simulated_cluster_holds_what_nodes_hold() -> None:
    request = make_request({"cluster": {"gpu": "h100_sxm", "nodes": 2, "gpus_per_node": 6}})
    world = SimulatedCluster(Cluster.from_spec(request.groups[0]))
    launcher = SimulatedLauncher(world)

    def launch(number: int, text: str, leased: Placement | None = None) -> Placement:
        order = LaunchOrder("test", number, f"app-{number}", parse_deployment(text), request, None, leased)  # type: ignore[arg-type]
        return launcher.launch(order, Watch()).placement

    assert launch(1, "tp=4,dp=2") == Placement(((0, 4), (1, 4)))
    with pytest.raises(LaunchFailed, match="needs 4 devices, 4 of 12 are free on 2 nodes") as refused:
        launch(2, "tp=4")
    assert refused.value.reason is FailureReason.PLACEMENT_IMPOSSIBLE
    assert launch(3, "tp=1", Placement(((1, 1),))) == Placement(((1, 1),))  # where its lease says
    with pytest.raises(LaunchFailed):
        launch(4, "tp=2", Placement(((1, 2),)))
    world.lose_nodes(1)
    assert world.running == ()
    assert launch(5, "tp=2") == Placement(((0, 2),))
    with pytest.raises(LaunchFailed):
        launch(6, "tp=2", Placement(((1, 2),)))  # its node is gone
