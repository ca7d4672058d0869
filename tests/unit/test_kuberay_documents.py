"""What is applied at each step, as golden files: whole RayServices, and what a step changes of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from deploy.rollout.kuberay.courses import Course, back, ending, routing, starting, steadied
from deploy.rollout.kuberay.front import front
from deploy.rollout.kuberay.kept import config_map
from deploy.rollout.kuberay.placed import Placed, beside
from deploy.rollout.kuberay.reading import ClusterRead, ServiceRead
from deploy.rollout.kuberay.upgrades import Upgrades
from deploy.rollout.kuberay.upgrading import base, ordered
from deploy.specs.rayservice import Platform
from tests import crd
from tests.fakes import make_request
from tests.kube_sites import GATEWAY, a_served

GOLDEN = Path(__file__).parents[1] / "golden" / "kuberay"
REQUEST, INCREMENTAL = make_request(), Upgrades("istio", "http://gateway.example", 50, 30)
OWNER = {"apiVersion": "parlay.dev/v1alpha1", "kind": "LayoutRequest", "name": "llama", "uid": "u1", "controller": True}
PLACED = Placed("s", "serving", "llama", Platform(ray_version="2.60.0"), {"ownerReferences": [OWNER]})
OLD, NEW = a_served("llama.1", "tp=2", REQUEST), a_served("llama.2", "tp=4,dp=2", REQUEST)


def active(traffic=None):
    return ClusterRead("llama-a", {"llama.1": ("RUNNING", "")}, 100, traffic)


def seen(traffic=0, capacity=10):
    pending = ClusterRead("llama-b", {"llama.2": ("RUNNING", "")}, capacity, traffic, 1000.0)
    return ServiceRead("llama.2", "llama.1", True, True, active(100 - traffic), pending)


def steps(upgrades):
    """What a rollout orders, step by step."""
    alone = ServiceRead("llama.1", None, True, True, active(), None)
    begun = starting(alone, "llama.2", 10, upgrades)
    found = {"first": starting(None, "llama.1", 10, upgrades), "starting": begun}
    if upgrades.gateway_class is not None:
        canary = routing(seen(), begun, {"llama.1": 0.9, "llama.2": 0.1}, 1240.0, upgrades)
        held = steadied(seen(10), canary)
        promoted = routing(seen(10), held, {"llama.2": 1.0}, 1300.0, upgrades)
        found |= {"canary": canary, "canary, held": held, "promoting": promoted}
        found |= {"returning": routing(seen(10), held, {"llama.1": 1.0}, 1300.0, upgrades)}
    found |= {"removing the new one": back(begun)}
    closed = routing(alone, Course("llama.1"), {}, 1300.0, upgrades)
    return found | {"in place, closed": closed, "in place, ended": ending(alone, closed, "llama.1")}


def changes(upgrades):
    """Of each step what differs from the deployment's document."""
    found = {}
    for step, course in steps(upgrades).items():
        live = OLD if course.deployment == OLD.name else NEW
        plain = base(PLACED, live, REQUEST, upgrades)
        document = ordered(plain, course, upgrades)
        assert crd.problems(document) == []
        notes = document["metadata"].pop("annotations")
        unlike = {key: notes[key] for key in sorted(notes) if plain["metadata"]["annotations"].get(key) != notes[key]}
        spec = {key: value for key, value in document["spec"].items() if plain["spec"].get(key) != value}
        found[step] = {"deployment": live.name, "annotations": unlike, "spec": spec}
    return found


DOCUMENTS = {
    "beside": lambda: beside(PLACED, NEW, REQUEST),
    "incremental": lambda: base(PLACED, NEW, REQUEST, INCREMENTAL),
    "new-cluster": lambda: base(PLACED, NEW, REQUEST, Upgrades()),
    "incremental-steps": lambda: changes(INCREMENTAL),
    "new-cluster-steps": lambda: changes(Upgrades()),
    "route": lambda: front(PLACED, GATEWAY, {"llama.1": 0.9, "llama.2": 0.1}),
    "route-to-nobody": lambda: front(PLACED, GATEWAY, {}),
    "service": lambda: front(PLACED, None, {"llama.2": 1.0}),
    "kept": lambda: config_map(PLACED, {"llama.1": {"kind": "RayService"}, "llama.2": {"kind": "RayService"}}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_applied(name):
    path = GOLDEN / f"{name}.yaml"
    made = yaml.safe_dump(DOCUMENTS[name](), sort_keys=False, width=110, allow_unicode=True)
    if os.environ.get("PARLAY_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8")


def test_a_small_share_has_some_weight():
    backends = front(PLACED, GATEWAY, {"llama.1": 0.9997, "llama.2": 0.0003})["spec"]["rules"][0]["backendRefs"]
    assert [one["weight"] for one in backends] == [1000, 1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["beside", "incremental", "new-cluster"])
def test_a_rayservice_is_valid(name):
    assert crd.problems(DOCUMENTS[name]()) == []
