"""How many replicas nodes hold, and that plan, leases, pods and every command agree on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.specs.rayservice import Platform, plan_serving
from deploy.specs.shipment import Shipment
from deploy.specs.vllm_command import vllm_command
from serve.launch.engine import attention_dp, serve_app
from serve.launch.ray_launcher import RayServeLauncher
from tests.fakes import document
from tests.packers import can_hold, can_hold_parts
from tuner.app.simulate import SimulateOptions, simulate_answer
from tuner.ask.cluster import Cluster, requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.packing import Footprint, pools_unplaceable, unplaceable
from tuner.ask.request import ClusterSpec, TuneRequest
from tuner.ask.request_document import load_request, parse_request
from tuner.ask.rules import DropReason
from tuner.ask.space import load_space
from tuner.errors import BadInput
from tuner.plan.infeasible import infeasible
from tuner.plan.prune import Plan, plan
from tuner.rehearse.cluster import SimulatedCluster
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.trial.devices import nodes_of, place
from tuner.trial.launched import Launched, RayApplication

CASE = Path(__file__).parents[1] / "data" / "cases" / "replicas_do_not_pack_6gpu" / "request.yaml"
MODELS = ("meta-llama/Llama-3.1-8B", "mistralai/Mixtral-8x7B-v0.1", "deepseek-ai/DeepSeek-V3")
SIXES = {"gpu": "h100_sxm", "nodes": 3, "gpus_per_node": 6}
NODES, PER_NODE = st.integers(1, 4), st.integers(1, 8)


def spec(nodes: int, per_node: int, gpu: str = "h100_sxm") -> ClusterSpec:
    return ClusterSpec(gpu=gpu, nodes=nodes, gpus_per_node=per_node)


def planned(request: TuneRequest) -> Plan:
    return plan(request, load_model(request.model), requested_cluster(request), load_space(request.space), keep=10_000)


def test_two_nodes_of_six_hold_two_replicas_of_four() -> None:
    found = planned(load_request(CASE))
    assert str(found.ranked[0].layout) == "tp=4,pp=1,dp=2"
    assert all(candidate.layout.dp <= 2 for candidate in found.ranked)
    (dropped,) = (group for group in found.dropped if group.reason is DropReason.PLACEMENT)
    assert (dropped.count, dropped.example.dp) == (2, 3)  # under both executors
    assert dropped.figure == "3 replicas of 4 devices, each on one node: 2 × 6 devices hold 2"


def test_every_command_says_the_same_of_a_layout_that_cannot_be_placed(tmp_path: Path) -> None:
    request, layout = load_request(CASE), ParallelLayout.parse("tp=4,dp=3")
    (figure,) = (group.figure for group in planned(request).dropped if group.reason is DropReason.PLACEMENT)
    world = SimulatedCluster(Cluster.from_spec(request.groups[0]))
    assert SimulatedLauncher(world).refuses(layout, request) == figure
    with pytest.raises(BadInput) as refused:
        simulate_answer(request, SimulateOptions(layout))
    assert figure in str(refused.value)


def test_pools_that_only_add_up_are_refused() -> None:
    pools = {"prefill_layout": ParallelLayout.parse("tp=4,dp=2"), "decode_layout": ParallelLayout.parse("tp=4")}
    with pytest.raises(BadInput, match=r"--decode-layout: .*pools of 2 × 4 and 1 × 4 devices.* not on 2 × 6 devices"):
        simulate_answer(load_request(CASE), SimulateOptions(**pools))


@pytest.mark.parametrize(
    ("devices", "per_node", "nodes", "held"),
    [
        (4, 6, 2, 2),
        (3, 8, 3, 6),
        (6, 6, 3, 3),
        (8, 6, 1, 0),
        (8, 6, 4, 3),  # three whole nodes, three rests of 2 on the fourth
        (9, 6, 3, 2),  # two whole nodes, two rests of 3 on the third
        (10, 6, 5, 2),  # rests of 4 share no node: Ray would split a third over three nodes
        (10, 6, 6, 3),
        (16, 8, 5, 2),
        (20, 8, 7, 2),
        (20, 8, 8, 3),
    ],
)
def test_what_nodes_hold(devices: int, per_node: int, nodes: int, held: int) -> None:
    assert Footprint.of(devices, per_node).held_by(nodes) == held


@given(devices=st.integers(1, 40), per_node=st.integers(1, 9), nodes=st.integers(0, 30), replicas=st.integers(0, 40))
def test_the_fewest_nodes_and_the_most_replicas_are_one_fact(
    devices: int, per_node: int, nodes: int, replicas: int
) -> None:
    one = Footprint.of(devices, per_node)
    assert (one.nodes_under(replicas) <= nodes) == (replicas <= one.held_by(nodes))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(nodes=NODES, per_node=PER_NODE, devices=st.integers(1, 20), replicas=st.integers(1, 8))
def test_a_layout_can_be_placed_where_some_packing_holds_it(
    nodes: int, per_node: int, devices: int, replicas: int
) -> None:
    layout = ParallelLayout(tp=devices, dp=replicas, executor="ray")
    possible = can_hold([per_node] * nodes, per_node, devices, replicas)
    assert (unplaceable(layout, spec(nodes, per_node)) is None) is possible


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    nodes=NODES, per_node=PER_NODE, first=st.integers(1, 12), k=st.integers(1, 8), second=st.integers(1, 12),
    m=st.integers(1, 8),
)  # fmt: skip
@example(nodes=2, per_node=7, first=3, k=2, second=2, m=4)  # 3 + 2 + 2 on each: the larger first would fail
def test_two_pools_fit_where_some_packing_holds_both(
    nodes: int, per_node: int, first: int, k: int, second: int, m: int
) -> None:
    pools = [ParallelLayout(tp=first, dp=k, executor="ray"), ParallelLayout(tp=second, dp=m, executor="ray")]
    parts = [
        part
        for pool in pools
        for part in [per_node] * (pool.tp // per_node * pool.dp) + [pool.tp % per_node] * pool.dp
        if part
    ]
    possible = can_hold_parts([per_node] * nodes, parts)
    assert (pools_unplaceable(*pools, spec(nodes, per_node)) is None) is possible


@st.composite
def requests(draw: st.DrawFn) -> TuneRequest:
    """A model, a cluster of one or two node groups, and a space whose degrees need not suit them."""
    groups = [
        {"gpu": gpu, "nodes": draw(NODES), "gpus_per_node": draw(PER_NODE)}
        for gpu in ("h200_sxm", "b200_sxm")[: draw(st.integers(1, 2))]
    ]
    model = draw(st.sampled_from(MODELS))
    space: dict[str, Any] = {
        "tp": draw(st.lists(st.sampled_from([1, 2, 4, 8, 16]), min_size=1, max_size=4, unique=True)),
        "pp": draw(st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True)),
        "dp": draw(st.lists(st.integers(1, 8), min_size=1, max_size=4, unique=True)),
        "executor": ["mp", "ray"],
        "ep": [False, True] if "Llama" not in model else [False],
        "pcp": [1, 2] if "DeepSeek" in model else [1],
    }
    slo = {"slo.0.ms": 1e6, "slo.1.ms": 1e6}
    return parse_request(document({"model": model, "cluster": groups, "space": space, **slo}))


def ranked(request: TuneRequest) -> list[ParallelLayout]:
    try:
        return [candidate.layout for candidate in planned(request).ranked]
    except BadInput:  # nothing is legal
        return []


def group_of(request: TuneRequest, layout: ParallelLayout) -> ClusterSpec:
    (group,) = request.on(layout.gpu).groups
    return group


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(request=requests())
def test_every_layout_that_plan_ranks_can_be_placed(request: TuneRequest) -> None:
    for layout in ranked(request):
        group = group_of(request, layout)
        free, per_node = [group.gpus_per_node] * group.nodes, group.gpus_per_node
        assert can_hold(free, per_node, layout.devices_per_replica, layout.dp), (str(layout), group)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(request=requests())
def test_an_empty_cluster_has_room_for_whatever_plan_ranks(request: TuneRequest) -> None:
    nodes = nodes_of(request.groups)
    for layout in ranked(request):
        placement = place(layout, nodes, ())
        assert placement is not None, str(layout)
        assert placement.devices == layout.devices
        assert all(count <= nodes[i].devices and nodes[i].gpu == layout.gpu for i, count in placement.held)
        counts, per_node = [count for _, count in placement.held], group_of(request, layout).gpus_per_node
        assert can_hold(counts, per_node, layout.devices_per_replica, layout.dp), (str(layout), placement)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(request=requests())
def test_the_pods_of_whatever_plan_ranks_fit_the_nodes_and_hold_it(request: TuneRequest) -> None:
    for layout in ranked(request):
        group = group_of(request, layout)
        app = serve_app("app", layout, request, model_source="m")
        launched = Launched("ray-serve", {"ray": "2.60.0"}, "m", RayApplication(app))
        workers = plan_serving(Shipment("app", layout, request, launched), Platform(), "").workers
        pods = [group.devices for group in workers for _ in range(group.replicas)]
        assert can_hold_parts([group.gpus_per_node] * group.nodes, pods), (str(layout), pods)
        per_pod = min(group.gpus_per_node, layout.devices_per_replica) if not attention_dp(layout) else max(pods)
        assert can_hold(pods, per_pod, layout.devices_per_replica, layout.dp), (str(layout), pods)


def test_a_command_line_names_the_nodes_that_hold_it() -> None:
    layout, request = ParallelLayout.parse("tp=4,dp=3,executor=ray"), parse_request(document({"cluster": SIXES}))
    app = serve_app("app", layout, request, model_source="m")
    launched = Launched("ray-serve", {"ray": "2.60.0"}, "m", RayApplication(app))
    text = vllm_command(Shipment("app", layout, request, launched))
    assert "Needs 12 devices, 6 a node: run it on a Ray cluster that joins 3 nodes." in text


@pytest.mark.slow
@pytest.mark.parametrize("per_node", [3, 5, 6, 8])
def test_what_it_would_take_can_be_placed(per_node: int) -> None:
    cluster = {"gpu": "h100_sxm", "nodes": 2, "gpus_per_node": per_node}
    space = {"tp": [2, 4], "dp": [1, 2, 3], "executor": ["mp"], "front": ["ray_direct"]}
    changes = {"cluster": cluster, "space": space, "workload.arrival.requests_per_s": 400.0, "slo.0.ms": 2000.0}
    changes |= {"workload.prompt_tokens": 4096, "workload.output_tokens": 8}  # engines limit the rate, not their path
    request = parse_request(document(changes))
    found = infeasible(request, load_model(request.model), load_space(space)).would_take
    assert any(change.kind == "nodes" for change in found)
    for change in found:
        layout = ParallelLayout.parse(change.layout)
        nodes = int(change.value) if change.kind == "nodes" else 2
        each = int(change.value) if change.kind == "gpus_per_node" else per_node
        assert can_hold([each] * nodes, each, layout.devices_per_replica, layout.dp), change.text


@pytest.mark.parametrize(
    ("layout", "per_node", "refused"),
    [
        ("tp=4,dp=2,ep=true,executor=ray", 6, True),  # the second rank would get two devices of either node
        ("tp=4,dp=2,ep=true,executor=ray", 8, False),
        ("tp=2,dp=3,ep=true,executor=ray", 6, False),
        ("tp=4,dp=4,ep=true,executor=ray", 8, False),
        ("tp=8,pp=2,dp=2,ep=true,executor=ray", 8, False),
        ("tp=4,dp=2,executor=ray", 6, False),  # a placement group each
    ],
)
def test_ranks_that_share_experts_lie_whole_or_are_not_launched(
    layout: str, per_node: int, refused: bool, tmp_path: Path
) -> None:
    request = parse_request(document({"model": MODELS[1], "cluster": spec(4, per_node).model_dump()}))
    launcher = RayServeLauncher(None, None, state_dir=tmp_path)
    why = launcher.refuses(ParallelLayout.parse(layout), request)
    assert (why is not None) is refused
    if why is not None:
        assert why == "Ray Serve LLM would split ranks of 4 devices over nodes of 6"
