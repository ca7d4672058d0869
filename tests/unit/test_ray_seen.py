"""Nodes and metrics' addresses as Ray tells them."""

from __future__ import annotations

from serve.launch.ray_seen import RayNode, nodes_seen
from serve.measure.live_ray import places_of
from tuner.retune.seen import NodeSeen


def test_nodes_are_named_by_address_and_devices_by_profile() -> None:
    gpus = {"GPU": 8.0, "CPU": 96.0, "accelerator_type:H100": 1.0}
    nodes = [RayNode("b" * 20, "10.0.0.2", 1, gpus), RayNode("a" * 20, "10.0.0.1", 1, {"CPU": 4.0})]
    assert nodes_seen(nodes) == (NodeSeen("10.0.0.2", "h100_sxm", 8),)  # the head without GPUs is left out


def test_nodes_of_one_machine_are_told_apart() -> None:
    nodes = [RayNode(id * 20, "10.0.0.1", 1, {"CPU": 1.0}) for id in "ba"]
    assert nodes_seen(nodes) == (NodeSeen("10.0.0.1", "cpu", 1), NodeSeen("10.0.0.1#2", "cpu", 1))


def test_a_node_that_joins_changes_no_other_name():
    first, second = (RayNode(id * 20, "10.0.0.1", 1, {"CPU": 1.0}) for id in "ba")
    assert set(nodes_seen([first])) < set(nodes_seen([first, second]))


def test_an_unknown_gpu_has_no_name() -> None:
    assert nodes_seen([RayNode("a", "h", 1, {"GPU": 2.0, "CPU": 9.0, "accelerator_type:XX": 1.0})])[0].gpu is None


def test_replicas_are_those_of_the_asked_applications() -> None:
    one = {"deployments": {"d": {"replicas": [{"replica_id": "r1"}, {"replica_id": "r2"}]}}}
    details = {"applications": {"live": one, "stranger": {"deployments": {"d": {"replicas": [{"replica_id": "x"}]}}}}}
    nodes = [RayNode("a", "fd00::1", 7, {}), RayNode("b", "10.0.0.1", 0, {})]
    places = places_of(nodes, details, ["live", "gone"])
    assert places.replicas == {"r1": "live", "r2": "live"}
    assert places.agents == ("http://[fd00::1]:7/metrics",)
    assert places.deployments == ("live",)
