"""NCCL's tuning model: the latencies that its constants give, and what it would choose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.cost.collectives.nccl_tuning import TunedGroup, available, generation_of, tuned_cost
from tuner.errors import BadInput

ONE_NODE = TunedGroup(8, 1, "hopper", "nvlink", 370.8)
TWO_NODES = TunedGroup(16, 2, "hopper", "nvlink", 368.0)


def latency_us(algorithm: str, group: TunedGroup, operation: str = "allreduce") -> float:
    return float(tuned_cost(operation, algorithm, group, np.array([0.0])).latency_us[0])


@pytest.mark.parametrize(
    ("algorithm", "ranks", "expected_us"),
    [
        ("nccl-ring-ll", 2, 7.8),
        ("nccl-ring-ll", 4, 10.2),
        ("nccl-ring-ll", 8, 15.0),
        ("nccl-tree-ll", 2, 8.0),
        ("nccl-tree-ll", 4, 10.4),
        ("nccl-tree-ll", 8, 15.2),
        ("nccl-ring-ll128", 8, 14.0 + 14 * 1.9),
        ("nccl-ring-simple", 8, 8.4 + 14 * 3.4),
        ("nccl-tree-simple", 8, 8.4 + 14 * 4.0),
        ("nccl-nvls", 8, 25.0),
    ],
)
def test_one_node_latencies(algorithm: str, ranks: int, expected_us: float) -> None:
    assert latency_us(algorithm, replace(ONE_NODE, ranks=ranks)) == pytest.approx(expected_us)


@pytest.mark.parametrize(
    ("algorithm", "group", "expected_us"),
    [
        ("nccl-ring-ll", TWO_NODES, 6.6 + 28 * 1.0 + 2 * 2.7),
        ("nccl-ring-ll", replace(TWO_NODES, amd_hosts=True), 6.6 + 28 * 2.0 + 2 * 2.7),
        ("nccl-ring-simple", TWO_NODES, 8.4 + 28 * 3.4 + 2 * 14.0),
        ("nccl-tree-ll", TWO_NODES, 6.8 + 2 * (7 * 0.6 + 5.0)),
        ("nccl-tree-ll", replace(TWO_NODES, ranks=64, nodes=8), 6.8 + 2 * (7 * 0.6 + 3 * 5.0)),
        ("nccl-tree-simple", replace(TWO_NODES, network_us=1.0), 8.4 + 2 * (7 * 4.0 + 16.0)),
        ("nccl-nvlstree", TWO_NODES, 25.0 + 2 * 20.9),
        ("nccl-ring-ll", replace(TWO_NODES, ranks=2), 6.6 + 2 * 5.0),
    ],
)
def test_latencies_between_nodes(algorithm: str, group: TunedGroup, expected_us: float) -> None:
    assert latency_us(algorithm, group) == pytest.approx(expected_us)


def test_bandwidths_of_protocols() -> None:
    size = np.array([float(1 << 30)])
    ring = {
        p: float(tuned_cost("allreduce", f"nccl-ring-{p}", ONE_NODE, size).beta_us[0])
        for p in ("ll", "ll128", "simple")
    }
    bus = 370.8
    assert ring["simple"] == pytest.approx(2 * 7 / 8 * 2**30 / (1e3 * bus))
    assert ring["ll128"] == pytest.approx(ring["simple"] / 0.92)
    assert ring["ll"] == pytest.approx(ring["simple"] * bus / 141.0)
    tree = float(tuned_cost("allreduce", "nccl-tree-simple", ONE_NODE, size).beta_us[0])
    assert tree == pytest.approx(2 * 2**30 / (1e3 * 0.92 * bus * 0.9))


def test_ring_simple_plateau_between_nodes() -> None:
    small, large = np.array([16 * 16 * 63.0]), np.array([16 * 16 * 64.0])
    before, after = (
        tuned_cost("allreduce", "nccl-ring-simple", TWO_NODES, size).alpha_us[0] for size in (small, large)
    )
    assert after == pytest.approx(1.4 * before)


@pytest.mark.parametrize(
    ("group", "present", "absent"),
    [
        (ONE_NODE, "nccl-nvls", "nccl-nvlstree"),
        (TWO_NODES, "nccl-nvlstree", "nccl-nvls"),
        (replace(ONE_NODE, generation="ampere"), "nccl-ring-ll128", "nccl-nvls"),
        (replace(ONE_NODE, link="pcie"), "nccl-ring-ll", "nccl-ring-ll128"),
        (replace(TWO_NODES, has_near_nics=False), "nccl-tree-ll", "nccl-tree-ll128"),
    ],
)
def test_what_a_group_can_use(group: TunedGroup, present: str, absent: str) -> None:
    names = available("allreduce", group)
    assert present in names
    assert absent not in names
    with pytest.raises(BadInput, match=present):
        tuned_cost("allreduce", absent, group, np.array([1.0]))


def test_small_messages_ring_in_a_node_and_tree_across_many() -> None:
    def quickest(group: TunedGroup, size: float) -> str:
        return min(
            available("allreduce", group),
            key=lambda name: float(tuned_cost("allreduce", name, group, np.array([size])).latency_us[0]),
        )

    assert quickest(ONE_NODE, 1024.0) == "nccl-ring-ll"
    assert quickest(replace(TWO_NODES, ranks=128, nodes=16), 1024.0) == "nccl-tree-ll"


@pytest.mark.parametrize(
    ("capability", "generation"), [(None, "ampere"), (8.9, "ampere"), (9.0, "hopper"), (10.3, "blackwell")]
)
def test_generation(capability: float | None, generation: str) -> None:
    assert generation_of(capability) == generation


@given(
    st.sampled_from(["ampere", "hopper", "blackwell"]),
    st.sampled_from([(2, 1), (8, 1), (16, 2), (32, 8), (4, 4)]),
    st.lists(st.floats(0, 1e10), min_size=2, max_size=8),
)
def test_time_rises_with_the_message(generation: str, shape: tuple[int, int], sizes: list[float]) -> None:
    group = TunedGroup(*shape, generation, "nvlink", 200.0)
    ordered = np.array(sorted(sizes))
    for algorithm in available("allreduce", group):
        times_us = tuned_cost("allreduce", algorithm, group, ordered).latency_us
        assert (np.diff(times_us) >= -1e-9 * times_us[1:]).all(), algorithm
