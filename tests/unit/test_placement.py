"""Whether an application fits on a cluster, and what a cluster is, from resources as Ray reports them."""

from __future__ import annotations

import pytest

from serve.launch.engine import serve_app
from serve.launch.ray_nodes import Resources, cluster_of_nodes, demand, fits, home_of, pinned, unpinned
from tests.unit.test_engine import request
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import ClusterSpec
from tuner.errors import BadInput
from tuner.trial.devices import Placement

CPU2: Resources = {"CPU": 2.0, "memory": 1e9}
H100X8: Resources = {"CPU": 64.0, "GPU": 8.0, "accelerator_type:H100": 1.0}


@pytest.mark.parametrize(
    ("gpu", "layout", "nodes", "possible"),
    [
        ("cpu", "tp=2", [CPU2], True),
        ("cpu", "dp=2", [CPU2], True),
        ("cpu", "tp=2,dp=2", [CPU2], False),
        ("cpu", "tp=2,dp=2", [CPU2, CPU2], True),
        ("h100_sxm", "tp=8,executor=ray", [H100X8], True),
        ("h100_sxm", "tp=8,executor=mp", [H100X8], True),
        ("h100_sxm", "tp=4,dp=3", [H100X8], False),
        ("h100_sxm", "tp=8", [{**H100X8, "GPU": 4.0}] * 2, False),  # a replica of 8 stays on one node
        ("h100_sxm", "tp=8,pp=2,executor=ray", [H100X8] * 2, True),
        ("h100_sxm", "tp=8,pp=2,executor=ray", [H100X8], False),
        ("h100_sxm", "tp=1", [CPU2], False),
    ],
)
def test_what_fits_where(gpu: str, layout: str, nodes: list[Resources], possible: bool) -> None:
    parsed = ParallelLayout.parse(layout)
    app = serve_app("app", parsed, request(gpu, nodes=2), model_source="m")
    bundles, _ = demand(app, parsed.dp)
    assert fits(nodes, bundles) is possible
    assert sum(bundle.get("CPU" if gpu == "cpu" else "GPU", 0) for bundle in bundles) == parsed.devices


@pytest.mark.parametrize(
    ("nodes", "cluster"),
    [
        ([CPU2], ClusterSpec(gpu="cpu", nodes=1, gpus_per_node=2)),
        ([CPU2, CPU2, {"memory": 1.0}], ClusterSpec(gpu="cpu", nodes=2, gpus_per_node=2)),
        ([{"CPU": 2.0, "GPU": 2.0}], ClusterSpec(gpu="cpu", nodes=1, gpus_per_node=2)),  # logical GPUs, one per core
        ([CPU2, H100X8, H100X8], ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8)),
    ],
)
def test_a_cluster_is_its_equal_nodes(nodes: list[Resources], cluster: ClusterSpec) -> None:
    assert cluster_of_nodes(nodes) == cluster


def test_nodes_of_different_accelerators_are_groups() -> None:
    found = cluster_of_nodes([H100X8, {"GPU": 4.0, "accelerator_type:L40S": 1.0}, H100X8])
    groups = (("h100_sxm", 2, 8), ("l40s", 1, 4))
    assert found == tuple(ClusterSpec(gpu=gpu, nodes=nodes, gpus_per_node=each) for gpu, nodes, each in groups)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([], "nodes of nothing"),
        ([CPU2, CPU2, {"CPU": 3.0}], "nodes of 2 × 2 cpu, 1 × 3 cpu'; .*{gpu: cpu, nodes: 2, gpus_per_node: 2}"),
        (
            [H100X8, {**H100X8, "GPU": 4.0}, H100X8],
            "nodes of 1 × 4 h100_sxm, 2 × 8 h100_sxm'; .*{gpu: h100_sxm, nodes: 2, gpus_per_node: 8}",
        ),
        ([{"GPU": 1.0, "accelerator_type:K80": 1.0}], "K80"),
        ([{"GPU": 1.0}], "accelerators"),
    ],
)
def test_a_cluster_that_is_not_one_kind_is_refused(nodes: list[Resources], words: str) -> None:
    with pytest.raises(BadInput, match=f"cluster: .*{words}"):
        cluster_of_nodes(nodes)


def at(address: str, node: Resources) -> Resources:
    return {**node, f"node:{address}": 1.0, "node:__internal_head__": 1.0}


L40SX4: Resources = {"CPU": 32.0, "GPU": 4.0, "accelerator_type:L40S": 1.0}
GROUPS = (ClusterSpec(gpu="l40s", nodes=1, gpus_per_node=4), ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8))
NODES = [at("10.0.0.3", H100X8), at("10.0.0.9", L40SX4), at("10.0.0.1", H100X8), at("10.0.0.2", CPU2)]


@pytest.mark.parametrize(
    ("held", "home"),
    [
        (((0, 4),), "node:10.0.0.9"),
        (((1, 2),), "node:10.0.0.1"),
        (((2, 8),), "node:10.0.0.3"),
        (((1, 8), (2, 8)), None),  # which replica goes where is Ray's to say
        (((3, 1),), None),
    ],
)
def test_a_placement_on_one_node_names_it(held: tuple[tuple[int, int], ...], home: str | None) -> None:
    assert home_of(NODES, Placement(held), GROUPS) == home
    assert home_of(NODES, None, GROUPS) is None
    assert home_of(NODES[:2], Placement(((1, 2),)), GROUPS) is None  # a node is gone


@pytest.mark.parametrize("layout", ["tp=4,executor=mp", "tp=4,executor=ray", "tp=2,dp=2,executor=ray"])
def test_a_pinned_application_fits_its_node_alone(layout: str) -> None:
    parsed = ParallelLayout.parse(layout)
    free = serve_app("app", parsed, request("h100_sxm", nodes=2), model_source="m")
    app = pinned(free, "node:10.0.0.1")
    bundles, _ = demand(app, parsed.dp)
    assert fits([at("10.0.0.1", H100X8)], bundles)
    assert not fits([at("10.0.0.3", H100X8)], bundles)
    assert fits([at("10.0.0.3", H100X8)], demand(free, parsed.dp)[0])
    assert unpinned(app) == unpinned(free) == free
