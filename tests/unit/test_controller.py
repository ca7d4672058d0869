"""From a LayoutRequest to a RayService, look by look: to the decision, and changed, cancelled or deleted."""

from __future__ import annotations

import pytest
import yaml

from deploy.controller.names import FINALIZER
from tests import crd
from tests.controller_app import World
from tests.fakes import copy_of_empty_store, document
from tests.layout_requests import IMPOSSIBLE, NAMESPACE, SMALL, condition, other_slo, phase
from tests.service_app import work
from tuner.app.controller.kube import LAYOUT_REQUEST, KubeError
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Wish
from tuner.study.quotas import Quota
from tuner.study.store import Store

pytestmark = pytest.mark.slow  # studies of a simulated cluster


@pytest.fixture
def world(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield World(store, tmp_path)
    store.close()


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
