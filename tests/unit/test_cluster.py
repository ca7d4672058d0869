"""A cluster is one kind of node or several groups; a layout lives in one group, and costs what its group asks."""

import pytest

from tests.fakes import make_request
from tuner.ask.cluster import Cluster, Fleet, requested_cluster, usd_per_hour, usd_per_million_tokens
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.space import load_space
from tuner.errors import BadInput
from tuner.plan.prune import plan

MIXED = [
    {"gpu": "h100_sxm", "nodes": 1, "gpus_per_node": 8, "usd_per_gpu_hour": 4.0},
    {"gpu": "l40s", "nodes": 2, "gpus_per_node": 4, "usd_per_gpu_hour": 1.0, "node_selector": {"pool": "l40s"}},
]
SPACE = {"tp": [1, 2], "dp": [1, 2]}


def layout(text):
    return ParallelLayout.parse(text)


def test_one_group_is_a_cluster_and_names_no_gpu():
    listed = make_request({"cluster": MIXED[:1]})
    assert listed.cluster == make_request({"cluster": MIXED[0]}).cluster
    cluster = requested_cluster(listed)
    assert isinstance(cluster, Cluster)
    assert (cluster.gpu, cluster.groups, cluster.usd_per_gpu_hour) == (None, (cluster,), 4.0)


def test_groups_are_found_by_the_gpu_of_a_layout():
    request = make_request({"cluster": MIXED})
    fleet = requested_cluster(request)
    assert isinstance(fleet, Fleet)
    assert fleet.devices == 16
    assert fleet.group(layout("tp=1,gpu=l40s")).gpus_per_node == 4
    assert request.on("l40s").cluster == request.groups[1]
    for refused in (lambda: fleet.group(layout("tp=1")), lambda: request.on("a100_sxm")):
        with pytest.raises(BadInput, match=r"h100_sxm.*l40s"):
            refused()


@pytest.mark.parametrize(("name", "usd"), [("tp=2,pp=1,dp=2,gpu=h100_sxm", 16.0), ("tp=2,pp=1,dp=2,gpu=l40s", 4.0)])
def test_a_layout_costs_what_its_group_asks(name, usd):
    assert usd_per_hour(make_request({"cluster": MIXED}), layout(name)) == usd


def test_a_price_that_the_request_leaves_out_is_the_profiles():
    free = make_request({"cluster": [{**MIXED[0], "usd_per_gpu_hour": None}, {"gpu": "cpu", "gpus_per_node": 2}]})
    assert usd_per_hour(free, layout("tp=2,gpu=h100_sxm")) == 6.0
    assert usd_per_hour(free, layout("tp=2,gpu=cpu")) is None
    assert isinstance(requested_cluster(free), Fleet)
    with pytest.raises(BadInput, match=r"cluster\.1\.usd_per_gpu_hour"):
        requested_cluster(free.model_copy(update={"objective": make_request({"objective": "min_cost"}).objective}))


def test_a_million_tokens():
    assert usd_per_million_tokens(3.6, 1000.0) == pytest.approx(1.0)


def test_each_gpu_in_one_group():
    with pytest.raises(BadInput, match="each GPU in one node group"):
        make_request({"cluster": [MIXED[0], MIXED[0]]})


def ranked(cluster, objective):
    request = make_request({"cluster": cluster, "objective": objective, "space": SPACE})
    return plan(request, load_model(request.model), requested_cluster(request), load_space(SPACE))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["min_cost", "min_gpus", "min_latency", "max_goodput"])
def test_groups_are_merged_in_one_ranking_and_priced_as_if_alone(objective):
    both = ranked(MIXED, objective)
    alone = {group["gpu"]: ranked(group, objective) for group in MIXED}
    assert both.candidates == sum(plan.candidates for plan in alone.values())
    found = {(c.layout.gpu, str(c.layout).partition(",gpu")[0]): c for c in both.ranked}
    for gpu, plan_of in alone.items():
        own = [name for of, name in found if of == gpu]
        assert own == [str(c.layout) for c in plan_of.ranked]  # the order within a group stays
        assert [found[gpu, str(c.layout)].prediction for c in plan_of.ranked] == [c.prediction for c in plan_of.ranked]


@pytest.mark.slow
def test_the_cheapest_group_that_meets_the_slo_comes_first():
    best = ranked(MIXED, "min_cost").ranked[0]
    assert best.layout.gpu == "l40s"
    assert best.usd_per_hour == best.layout.devices * 1.0
    dear = [MIXED[0], {**MIXED[1], "usd_per_gpu_hour": 9.0}]
    assert ranked(dear, "min_cost").ranked[0].layout.gpu == "h100_sxm"
