"""From a LayoutRequest to a RayService, look by look, and killed before and behind every single write."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from deploy.controller.names import FINALIZER, Key
from deploy.specs.rayservice import Platform
from deploy.specs.site_values import Site
from tests import crd
from tests.controller_app import RUNS, Killed, KilledAt, World
from tests.fakes import copy_of_empty_store, document
from tests.layout_requests import IMPOSSIBLE, NAMESPACE, SMALL, condition, phase
from tests.service_app import work
from tuner.app.controller import studies
from tuner.app.controller.kube import CONFIG_MAP, LAYOUT_REQUEST, RAY_SERVICE, KubeError
from tuner.app.controller.studies import manifest_of
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Wish
from tuner.study.quotas import Quota
from tuner.study.store import Store

pytestmark = pytest.mark.slow  # studies of a simulated cluster
WRITES = 13  # of a controller in ``run``


@pytest.fixture
def world(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield World(store, tmp_path)
    store.close()


def other_slo(ms=400):
    return document({**SMALL, "slo": [{"metric": "ttft", "percentile": 99, "ms": ms}]})


# To the decision


def test_what_is_asked_becomes_a_study(world):
    key = world.ask()
    assert world.look(key) == "Queued"
    found = world.request(key)
    assert FINALIZER in found["metadata"]["finalizers"]
    (name,) = world.store.study_names()
    assert found["status"]["study"] == name
    assert found["status"]["observedGeneration"] == 1
    assert condition(found, "Accepted") == ("True", "Valid")
    assert condition(found, "Studying") == ("True", "Queued")
    assert condition(found, "RolledOut") == ("False", "AwaitingDecision")
    order = world.store.orders.order(name)
    assert (order.terms.owner, order.terms.launcher, order.terms.seed) == ("kubernetes/serving", "simulated", 0)


def test_the_winner_is_rolled_out(world):
    key = world.ask()
    assert world.settle(key) == "RolledOut"
    found, service = world.request(key), world.service()
    assert service["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]
    assert service["metadata"]["annotations"]["parlay.dev/study"] == found["status"]["study"]
    assert "no engine ever ran this" in service["metadata"]["annotations"]["parlay/origin"]
    assert found["status"]["deployed"]["rayService"] == "llama"
    assert found["status"]["decision"]["layout"] == service["metadata"]["annotations"]["parlay/layout"]
    assert found["status"]["best"]["layout"]
    assert found["status"]["spent"]["launches"] >= 1
    assert condition(found, "Decided") == ("True", "Winner")
    assert condition(found, "Infeasible") == ("False", "Winner")
    assert condition(found, "RolledOut") == ("True", "Serving")
    assert crd.problems({k: v for k, v in service.items() if k != "status"}) == []
    assert ("Normal", "Serving") in world.events()


def test_a_look_at_what_is_done_changes_nothing(world):
    key = world.ask()
    world.settle(key)
    before = world.kube.list(LAYOUT_REQUEST, NAMESPACE)[1]
    world.kube.calls.clear()
    world.look(key)
    assert world.kube.list(LAYOUT_REQUEST, NAMESPACE)[1] == before
    assert not [call for call in world.kube.calls if call[0] not in ("get", "list")]


def test_by_hand_the_manifest_waits_in_a_config_map(world):
    key = world.ask(deploy="manual")
    assert world.settle(key) == "Decided"
    assert world.service() is None
    assert condition(world.request(key), "RolledOut") == ("False", "Manual")
    manifest = yaml.safe_load(world.config_map()["data"]["rayservice.yaml"])
    assert manifest["metadata"]["name"] == "llama"
    assert manifest["metadata"]["namespace"] == NAMESPACE
    assert crd.problems(manifest) == []
    world.edit(key, {"deploy": "auto"})
    assert world.settle(key) == "RolledOut"
    assert len(world.store.study_names()) == 1
    assert world.service()["spec"] == manifest["spec"]


def test_what_it_names_is_no_old_study(world):
    """Taken away for its age, it would be run again, and what serves be replaced; what it named before may go."""
    key = world.ask()
    world.settle(key)
    first = world.request(key)["status"]["study"]
    assert world.store.archive.pinned() == (first,)
    assert world.store.archive.older(-1.0, 9) == ()
    world.edit(key, {"request": other_slo()})
    world.settle(key)
    assert world.store.archive.pinned() == (world.request(key)["status"]["study"],)
    assert world.store.archive.older(-1.0, 9) == (first,)
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look_again(key)
    assert world.request(key) is None
    assert world.store.archive.pinned() == ()


def test_none_meets_the_slo(world):
    key = world.ask(changes={"slo": IMPOSSIBLE})
    assert world.settle(key) == "Infeasible"
    found = world.request(key)
    assert condition(found, "Infeasible") == ("True", "NoLayoutMeetsSlo")
    assert condition(found, "RolledOut") == ("False", "NoWinner")
    assert world.service() is None
    assert found["status"]["decision"]["why"]
    assert ("Warning", "NoLayoutMeetsSlo") in world.events()


@pytest.mark.parametrize(
    ("changes", "spec", "reason", "words"),
    [
        ({"cluster.gpu": "h1000"}, {}, "InvalidRequest", "h100_sxm"),
        ({"cluster": {"gpu": "h100_sxm"}}, {}, "InvalidRequest", "gpus_per_node"),
        ({}, {"launcher": "local"}, "NoSuchLauncher", "simulated, ray"),
        ({}, {"trials": {"rayCluster": {"name": "mine"}}}, "NoSuchRayCluster", "RayCluster trials"),
        ({}, {"launcher": "ray", "simulatedSeed": 1}, "InvalidSpec", "launcher simulated"),
        ({}, {"target": {"rayVersion": "newest"}}, "InvalidSpec", "rayVersion"),
        ({}, {"deploi": "auto"}, "InvalidSpec", "deploi"),
    ],
)
def test_what_cannot_be_is_refused_with_words(world, changes, spec, reason, words):
    key = world.ask(changes=changes, **spec)
    world.settle(key)
    found = world.request(key)
    if reason == "InvalidRequest" and not world.store.study_names():
        assert phase(found) == "Refused"
    if condition(found, "Failed") == ("True", "StudyFailed"):  # what only the worker can know
        assert words in str(found["status"]["conditions"])
        return
    assert condition(found, "Accepted") == ("False", reason)
    assert words in str(found["status"]["conditions"])
    assert world.store.study_names() == []


# Changed, cancelled, deleted


def test_another_slo_is_decided_anew_while_the_old_winner_serves(world):
    key = world.ask()
    world.settle(key)
    before = world.service()
    world.edit(key, {"request": other_slo()})
    assert world.look(key) == "Queued"
    assert world.service() == before
    assert condition(world.request(key), "RolledOut") == ("False", "AwaitingDecision")
    assert world.settle(key) == "RolledOut"
    found = world.request(key)
    assert found["status"]["observedGeneration"] == 2
    assert found["status"]["study"] == world.service()["metadata"]["annotations"]["parlay.dev/study"]
    assert len(world.store.study_names()) == 2


def test_back_to_what_was_asked_before_is_the_decision_of_then(world):
    key = world.ask()
    world.settle(key)
    first = world.request(key)["status"]["study"]
    world.edit(key, {"request": other_slo()})
    world.look(key)
    world.edit(key, {"request": document(SMALL)})
    assert world.settle(key) == "RolledOut"
    assert world.request(key)["status"]["study"] == first
    states = {name: world.store.listing.state(name) for name in world.store.study_names()}
    assert sorted(states.values()) == [StudyState.CANCELLED, StudyState.DECIDED]


def test_a_study_that_was_cancelled_for_another_is_taken_up_when_it_is_asked_for_again(world):
    key = world.ask()
    world.look(key)
    first = world.request(key)["status"]["study"]
    world.edit(key, {"request": other_slo()})
    world.look(key)
    assert world.store.listing.state(first) is StudyState.CANCELLED
    world.edit(key, {"request": document(SMALL)})
    assert world.look(key) == "Queued"
    assert world.store.listing.state(first) is StudyState.QUEUED
    assert world.settle(key) == "RolledOut"


def studying(world, key):
    return condition(world.request(key), "Studying")


def test_no_more_studies_than_the_quota_of_the_namespace_wait_or_run(world):
    world.store.quotas.set(Quota("kubernetes/serving", None, 30.0, 1))
    one, two = world.ask("one"), world.ask("two")
    assert world.look(one) == "Queued"
    assert world.look(two) == "Pending"
    assert condition(world.request(two), "Accepted") == ("True", "Valid")
    assert studying(world, two) == ("False", "QuotaSpent")
    assert world.again_s == 60.0
    assert world.settle(one) == "RolledOut"
    assert world.look(two) == "Queued"
    assert world.again_s is None


def test_what_a_quota_of_studies_has_one_of_may_be_asked_otherwise(world):
    world.store.quotas.set(Quota("kubernetes/serving", None, 30.0, 1))
    key = world.ask()
    world.look(key)
    first = world.request(key)["status"]["study"]
    world.edit(key, {"request": other_slo()})
    assert world.look(key) == "Queued"
    assert world.store.listing.state(first) is StudyState.CANCELLED


def test_a_cancelled_study_is_not_taken_up_again_beyond_the_quota(world):
    key = world.ask()
    world.look(key)
    world.edit(key, {"request": other_slo()})
    world.look(key)
    world.look(world.ask("two"))
    world.store.quotas.set(Quota("kubernetes/serving", None, 30.0, 1))
    world.edit(key, {"request": document(SMALL)})
    world.look(key)
    assert studying(world, key) == ("False", "QuotaSpent")
    assert world.again_s == 60.0
    world.store.quotas.set(Quota("kubernetes/serving", None, 30.0, 2))
    assert world.look(key) == "Queued"


def test_a_study_that_somebody_cancelled_stays_so(world):
    key = world.ask()
    world.look(key)
    name = world.request(key)["status"]["study"]
    world.store.orders.ask(name, Wish.CANCEL)
    assert world.settle(key) == "Cancelled"
    assert condition(world.request(key), "Failed") == ("True", "StudyCancelled")
    world.store.orders.resume(name)
    assert world.settle(key) == "RolledOut"


def test_a_token_that_the_server_knows_no_more_is_no_refusal(world, tmp_path):
    key = world.ask()
    world.look(key)
    work(world.store, tmp_path)
    apply, refusals = world.kube.apply, []

    def unauthorized(*_):
        refusals.append(1)
        raise KubeError(401, "Unauthorized", "Unauthorized")

    world.kube.apply = unauthorized
    with pytest.raises(KubeError):  # whoever looks does so again soon
        world.look(key)
    world.kube.apply = apply
    assert refusals
    assert world.settle(key) == "RolledOut"


def test_deleted_it_ends_its_studies_first(world):
    key = world.ask()
    world.look(key)
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    assert world.request(key) is not None
    world.look(key)
    assert world.request(key) is None
    assert [world.store.listing.state(name) for name in world.store.study_names()] == [StudyState.CANCELLED]


def test_deleted_while_a_worker_runs_its_study_it_waits_for_that(world):
    key = world.ask()
    world.look(key)
    name = world.request(key)["status"]["study"]
    world.store.orders.claim("elsewhere/1/2/3", ("simulated",), lambda *_: False)
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look(key)
    assert phase(world.request(key)) == "Ending"
    assert world.store.orders.order(name).wish is Wish.CANCEL
    world.store.orders.release(name, "elsewhere/1/2/3", StudyState.CANCELLED, lambda *_: True)
    world.look(key)
    assert world.request(key) is None


def test_what_it_owned_goes_with_it(world):
    key = world.ask()
    world.settle(key)
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look(key)
    assert (world.request(key), world.service(), world.config_map()) == (None, None, None)


def test_an_invalid_change_leaves_what_serves(world):
    key = world.ask()
    world.settle(key)
    world.edit(key, {"request": {"slo": [{"metric": "ttft", "percentile": 400, "ms": 1}]}})
    assert world.settle(key) == "Refused"
    assert world.service() is not None


# Others


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


# Killed


def run(world: World, key: Key, at: float, before: bool) -> int:
    """All that happens to one LayoutRequest, its controller killed at one of the writes; how many writes there were."""
    dying = KilledAt(world.kube, at, before)

    def look() -> None:
        try:
            world.look(key, dying, dying.dying)
        except Killed:
            world.look_again(key)

    look()
    world.edit(key, {"request": other_slo()})
    look()
    work(world.store, world.folder)
    look()
    world.kube.delete(RAY_SERVICE, NAMESPACE, key.name)
    look()
    return dying.writes


def test_undisturbed_it_makes_these_writes(world):
    assert run(world, world.ask(), -1, before=True) == WRITES


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("at", range(1, WRITES + 1))
def test_killed_at_any_write_it_comes_to_the_same(world, at, before):
    key = world.ask()
    run(world, key, at, before)
    assert world.settle(key) == "RolledOut"
    states = sorted(world.store.listing.state(name) for name in world.store.study_names())
    assert states == [StudyState.CANCELLED, StudyState.DECIDED]
    assert len(world.kube.list(RAY_SERVICE, NAMESPACE)[0]) == 1
    told = world.events()
    assert told.count(("Normal", "Winner")) == 1
    assert told.count(("Normal", "Queued")) <= 2
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look_again(key)
    assert world.kube.list(RAY_SERVICE, NAMESPACE)[0] == []
