"""Which GPUs nodes say they have, and which nodes count."""

from __future__ import annotations

import pytest

from deploy.rollout.kuberay.nodes import cordoned, gpu_of, node_seen, nodes_seen
from deploy.rollout.kuberay.placed import beside
from deploy.rollout.kuberay.room import devices_of, no_room
from deploy.specs.rayservice import Platform
from deploy.specs.site_values import Site
from tests.fakes import make_request
from tests.kube_fake import FakeKube
from tests.kube_sites import PLACED, a_node, a_served
from tuner.app.controller.kube import NODE, KubeError
from tuner.app.controller.kube_nodes import KubeNodes
from tuner.app.controller.kuberay_place import KubeRayPlace, KubeSite
from tuner.ask.profile import load_profile
from tuner.retune.policy import CanaryPolicy
from tuner.retune.seen import NodeSeen

REQUEST = make_request()
PRODUCTS = {
    "NVIDIA-H100-80GB-HBM3": "h100_sxm",
    "NVIDIA-H100-PCIe": None,
    "NVIDIA-H100-NVL": None,
    "NVIDIA-H200": "h200_sxm",
    "NVIDIA-H200-NVL": None,
    "NVIDIA-A100-SXM4-80GB": "a100_sxm",
    "NVIDIA-A100-SXM4-40GB": "a100_40gb_sxm",
    "A100-SXM4-80GB": "a100_sxm",
    "NVIDIA-A100-80GB-PCIe": None,
    "NVIDIA-B200": "b200_sxm",
    "NVIDIA-B300-SXM6-AC": "b300_sxm",
    "NVIDIA-GB200": "gb200",
    "NVIDIA-GB300": "gb300",
    "NVIDIA-GH200-480GB": "gh200",
    "NVIDIA-L40S": "l40s",
    "NVIDIA-L40": "l40",
    "NVIDIA-L4": "l4",
    "NVIDIA-A10G": "a10g",
    "NVIDIA-A10": None,
    "NVIDIA-H20": "h20",
    "NVIDIA-H20-3e": None,  # another memory
    "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition": "rtx_pro_6000_server",
    "NVIDIA-RTX-PRO-6000-Blackwell-Workstation-Edition": None,
    "AMD_Instinct_MI300X_OAM": "mi300x",
    "AMD_Instinct_MI325X_OAM": "mi325x",
    "AMD_Instinct_MI308X": None,
    "Tesla-T4": None,
    "NVIDIA-H100-80GB-HBM3-SHARED": None,  # shared in time
    "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb": None,  # a slice
}


@pytest.mark.parametrize(("product", "gpu"), PRODUCTS.items())
def test_products_are_parlays_gpus_or_unknown(product, gpu):
    assert gpu_of(product) == gpu
    assert gpu is None or load_profile(gpu).name == gpu


def test_a_node_is_what_can_be_given_out_of_it():
    assert node_seen(a_node("n1", 8)) == NodeSeen("n1", "h100_sxm", 8, "570.86.15")
    sick = a_node("n1", 8)
    sick["status"]["allocatable"]["nvidia.com/gpu"] = "7"  # the label still says 8
    assert node_seen(sick).gpus == 7
    del sick["status"]["allocatable"]["nvidia.com/gpu"]
    assert node_seen(sick).gpus == 0


@pytest.mark.parametrize(
    ("labels", "driver"),
    [
        ({"nvidia.com/cuda.driver-version.full": "550.54.15"}, "550.54.15"),
        ({"nvidia.com/cuda.driver.major": "550", "nvidia.com/cuda.driver.minor": "54"}, "550.54"),
        (
            {
                "nvidia.com/cuda.driver.major": "5",
                "nvidia.com/cuda.driver.minor": "4",
                "nvidia.com/cuda.driver.rev": "3",
            },
            "5.4.3",
        ),
        ({}, None),
    ],
)
def test_the_driver(labels, driver):
    node = a_node("n1")
    node["metadata"]["labels"] = labels
    assert node_seen(node).driver == driver
    assert node_seen(node).gpu is None


def tainted(effect, key="dedicated", value="training"):
    return a_node("n1", taints=[{"key": key, "value": value, "effect": effect}])


def not_ready(status):
    node = a_node("n1")
    node["status"]["conditions"][-1]["status"] = status
    return node


CORDON = {"unschedulable": True, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}


@pytest.mark.parametrize(
    ("node", "there"),
    [
        (a_node("n1"), True),
        (not_ready("False"), False),
        (not_ready("Unknown"), False),
        ({"metadata": {"name": "n1"}}, False),
        (a_node("n1", 0), False),
        (a_node("n1", **CORDON), True),  # what serves there goes on
        (tainted("NoSchedule"), False),
        (tainted("NoExecute"), False),
        (tainted("PreferNoSchedule"), True),
        (tainted("NoSchedule", "nvidia.com/gpu", "present"), True),  # pods with GPUs tolerate it
        (tainted("NoExecute", "node.kubernetes.io/unreachable", ""), False),
    ],
)
def test_which_nodes_count(node, there):
    assert bool(nodes_seen([node])) is there


@pytest.mark.parametrize(
    ("toleration", "there"),
    [
        ({"key": "dedicated", "operator": "Equal", "value": "training", "effect": "NoSchedule"}, True),
        ({"key": "dedicated", "value": "training"}, True),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "dedicated", "value": "serving"}, False),
        ({"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_what_pods_tolerate(toleration, there):
    assert bool(nodes_seen([tainted("NoSchedule")], [toleration])) is there


TOLERATED = [{"key": "dedicated", "operator": "Exists"}]


@pytest.mark.parametrize(
    ("said", "nodes"),
    [({}, 0), ({"tolerations": TOLERATED}, 1), ({"gpuTypes": {"h100_sxm": {"tolerations": TOLERATED}}}, 1)],
)
def test_a_place_counts_the_nodes_that_the_site_has_its_pods_tolerate(said, nodes):
    kube = FakeKube()
    kube.create(NODE, "", tainted("NoSchedule"))
    kept = KubeSite(namespace="serving", service="llama", watched="s")
    place = KubeRayPlace(kube, kept, Platform.at(Site.model_validate(said)), CanaryPolicy())
    assert len(place.fingerprint().nodes) == nodes


@pytest.mark.parametrize(("selector", "names"), [({}, ["n1", "n2"]), ({"pool": "a"}, ["n1"]), ({"pool": "b"}, [])])
def test_a_place_counts_the_nodes_that_the_site_selects(selector, names):
    kube = FakeKube()
    kube.create(NODE, "", labelled("n1", pool="a"))
    kube.create(NODE, "", a_node("n2"))
    kept = KubeSite(namespace="serving", service="llama", watched="s")
    site = Site.model_validate({"nodeSelector": selector})
    place = KubeRayPlace(kube, kept, Platform.at(site), CanaryPolicy())
    assert [one.name for one in place.fingerprint().nodes] == names


def labelled(name, gpus=4, spec=None, **labels):
    node = a_node(name, gpus, **(spec or {}))
    return node | {"metadata": {"name": name, "labels": node["metadata"]["labels"] | labels}}


def test_cordoned_nodes_take_no_new_pods():
    kube = FakeKube()
    for node in (a_node("n1"), a_node("n2", **CORDON), not_ready("False") | {"metadata": {"name": "n3"}}):
        kube.create(NODE, "", node)
    nodes = KubeNodes(kube)
    assert [one.name for one in nodes.seen()] == ["n1", "n2"]
    assert [one["metadata"]["name"] for one in nodes.there()] == ["n1", "n2"]
    assert cordoned(kube.list(NODE, "")[0]) == {"n2"}


def test_who_may_not_look_sees_nothing_and_is_told_what_else_goes_wrong():
    kube = FakeKube()
    kube.unknown.add(NODE)
    with pytest.raises(KubeError):
        KubeNodes(kube).seen()

    def forbidden(*_):
        raise KubeError(403, "Forbidden", "nodes is forbidden")

    kube.list = forbidden
    assert KubeNodes(kube).seen() is None
    assert KubeNodes(kube).there() is None


# Room


def a_document(layout):
    return beside(PLACED, a_served("one", layout, REQUEST), REQUEST)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "others", "nodes", "says"),
    [
        ("tp=2", (), (4,), None),
        ("tp=2", ("tp=2",), (4,), None),
        ("tp=4", ("tp=2",), (4,), "needs 4 GPUs, and 2 of 4 are free"),
        ("tp=2", ("tp=2", "tp=2"), (4,), "needs 2 GPUs, and 0 of 4 are free"),
        ("tp=4", (), (2, 2), "has pods of 4 GPUs, and no node has more than 2"),
        ("tp=1,dp=4", (), (2, 2), None),
        ("tp=2", (), (), "needs 2 GPUs, and 0 of 0 are free"),
    ],
)
def test_whether_there_is_room(layout, others, nodes, says):
    found = no_room(
        a_document(layout), [a_document(one) for one in others], [a_node(f"n{i}", n) for i, n in enumerate(nodes)]
    )
    assert (found is None) if says is None else (says in found)


def selecting(layout, **selector):
    document = a_document(layout)
    for group in document["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        group["template"]["spec"]["nodeSelector"] = selector
    return document


A, B = labelled("a", pool="a"), labelled("b", pool="b")
SHUT = labelled("shut", spec=CORDON, pool="a")


@pytest.mark.parametrize(
    ("document", "others", "nodes", "says"),
    [
        (selecting("tp=2", pool="a"), (), (A, B), None),
        (selecting("tp=2", pool="c"), (), (A, B), "needs 2 GPUs, and 0 of 0 are free"),
        (selecting("tp=4,dp=2", pool="a"), (), (A, B), "needs 8 GPUs, and 4 of 4 are free"),
        (selecting("tp=4", pool="a"), ("b",), (A, B), None),
        (selecting("tp=4", pool="a"), ("a",), (A, B), "needs 4 GPUs, and 0 of 4 are free"),
        (a_document("tp=4"), ("a",), (A, B), None),
        (a_document("tp=4"), (), (SHUT,), "needs 4 GPUs, and 0 of 0 are free"),
        (a_document("tp=4"), ("a",), (SHUT, A), None),  # the other may be on the one that is cordoned
        (a_document("tp=4"), ("a", "a"), (SHUT, A), "needs 4 GPUs, and 0 of 4 are free"),
    ],
)
def test_room_is_on_the_nodes_that_pods_select(document, others, nodes, says):
    found = no_room(document, [selecting("tp=4", pool=pool) for pool in others], nodes)
    assert (found is None) if says is None else (says in found)


def test_devices_are_those_of_all_pods():
    assert devices_of(a_document("tp=2,dp=3"), "nvidia.com/gpu") == 6
