"""What others have to do with a LayoutRequest's objects: what is theirs stays theirs, and what they undo comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.specs.rayservice import Platform
from deploy.specs.site_values import Site
from tests.controller_app import RUNS, World
from tests.fakes import copy_of_empty_store
from tests.layout_requests import NAMESPACE, condition, other_slo
from tuner.app.controller import studies
from tuner.app.controller.kube import CONFIG_MAP, LAYOUT_REQUEST, RAY_SERVICE
from tuner.app.controller.studies import manifest_of
from tuner.study.orders import Wish
from tuner.study.store import Store

pytestmark = pytest.mark.slow  # studies of a simulated cluster


@pytest.fixture
def world(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield World(store, tmp_path)
    store.close()


def test_fields_that_another_manager_took_are_theirs(world):
    key = world.ask()
    world.settle(key)
    world.kube.edit(RAY_SERVICE, NAMESPACE, "llama", {"spec": {"serveConfigV2": "mine"}})
    assert world.settle(key) == "Held"
    assert world.service()["spec"]["serveConfigV2"] == "mine"
    found = world.request(key)
    assert condition(found, "RolledOut") == ("False", "FieldConflict")
    assert "kubectl-edit" in str(found["status"]["conditions"])
    assert ("Warning", "FieldConflict") in world.events()
    before = len(world.events())
    world.look(key)
    assert len(world.events()) == before


def test_fields_that_others_add_stay(world):
    key = world.ask()
    world.settle(key)
    world.kube.edit(RAY_SERVICE, NAMESPACE, "llama", {"spec": {"suspend": False}, "metadata": {"labels": {"a": "b"}}})
    world.edit(key, {"request": other_slo()})
    assert world.settle(key) == "RolledOut"
    assert world.service()["spec"]["suspend"] is False
    assert world.service()["metadata"]["labels"]["a"] == "b"


@pytest.mark.parametrize(("kind", "name"), [(RAY_SERVICE, "llama"), (CONFIG_MAP, "llama-rayservice")])
def test_what_others_made_under_its_name_is_left_alone(world, kind, name):
    theirs = {"metadata": {"name": name}, "kind": kind.plural, "data": {"a": "b"}}
    world.kube.create(kind, NAMESPACE, theirs)
    key = world.ask(deploy="auto" if kind is RAY_SERVICE else "manual")
    assert world.settle(key) == "Held"
    assert condition(world.request(key), "RolledOut") == ("False", "NotOwned")
    found = world.kube.get(kind, NAMESPACE, name)
    assert found["data"] == {"a": "b"}
    assert "ownerReferences" not in found["metadata"]
    world.kube.delete(kind, NAMESPACE, name)
    assert world.settle(key) in ("RolledOut", "Decided")


def test_what_was_deleted_comes_back(world):
    key = world.ask()
    world.settle(key)
    world.kube.delete(RAY_SERVICE, NAMESPACE, "llama")
    world.kube.delete(CONFIG_MAP, NAMESPACE, "llama-rayservice")
    assert world.settle(key) == "RolledOut"
    assert world.config_map() is not None


def test_another_release_of_parlay_replaces_no_pods_that_serve(world, monkeypatch):
    key = world.ask()
    world.settle(key)
    service, mapped = world.service(), world.config_map()

    def renders_otherwise(*words):
        return manifest_of(*words) | {"metadata": {"labels": {"new": "label"}, "annotations": {}}}

    monkeypatch.setattr(studies, "manifest_of", renders_otherwise)
    assert world.settle(key) == "RolledOut"
    assert (world.service(), world.config_map()) == (service, mapped)
    world.edit(key, {"target": {"image": "registry/vllm:2"}})
    assert world.settle(key) == "RolledOut"
    assert world.service()["metadata"]["labels"]["new"] == "label"
    assert "registry/vllm:2" in str(world.service()["spec"])


def test_what_the_site_says_of_pods_is_in_the_rayservice(world):
    """And when the site says something else, what serves is made anew: that is why it was said."""
    key = world.ask()
    world.settle(key)
    site = Site.model_validate({"gang": {"scheduler": "kueue", "queue": "serving"}, "priorityClassName": "high"})
    world.runs = replace(RUNS, platform=Platform.at(site, ray_version="2.60.0"))
    assert world.settle(key) == "RolledOut"
    service = world.service()
    assert service["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "serving"
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert head["priorityClassName"] == "high"
    assert len(world.store.study_names()) == 1


def test_a_rayservice_of_an_earlier_name_is_named(world):
    key = world.ask()
    world.settle(key)
    world.edit(key, {"target": {"name": "renamed"}})
    assert world.settle(key) == "RolledOut"
    assert world.service("renamed") is not None
    said = next(c for c in world.request(key)["status"]["conditions"] if c["type"] == "RolledOut")
    assert "RayService llama of an earlier name runs too" in said["message"]


def test_without_kuberay_it_is_said_and_done_later(world):
    world.kube.unknown.add(RAY_SERVICE)
    key = world.ask()
    assert world.settle(key) == "Held"
    assert condition(world.request(key), "RolledOut") == ("False", "KubeRayMissing")
    assert world.config_map() is not None
    world.kube.unknown.clear()
    assert world.settle(key) == "RolledOut"


def test_a_name_too_long_for_a_rayservice_is_shortened(world):
    key = world.ask("a" * 60 + ".x")
    assert world.settle(key) == "RolledOut"
    name = world.request(key)["status"]["deployed"]["rayService"]
    assert len(name) <= 40
    assert world.service(name) is not None


def test_two_of_one_name_after_each_other_have_studies_of_their_own(world):
    key = world.ask()
    world.settle(key)
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look(key)
    world.ask()
    assert world.settle(key) == "RolledOut"
    assert len(world.store.study_names()) == 2


def test_what_it_queued_itself_is_no_news(world):
    told = []
    watch = studies.StudyWatch(world.store, "kubernetes/", told.append)
    key = world.ask()
    world.look(key)
    watch.look()
    assert told == []
    (name,) = world.store.study_names()
    world.store.orders.ask(name, Wish.PAUSE)
    watch.look()
    watch.look()
    assert told == [{name}]
