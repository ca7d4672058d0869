"""What KubeRay says of a RayService, as Readiness, shares and what is ordered next."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from deploy.rollout.kuberay.courses import Course, back, ending, routing, starting, steadied
from deploy.rollout.kuberay.foreign import foreign
from deploy.rollout.kuberay.front import NO_CANARY, Gateway, front, shares_of
from deploy.rollout.kuberay.kept import MOST, config_map, documents_of, with_another
from deploy.rollout.kuberay.placed import beside, object_of
from deploy.rollout.kuberay.reading import ClusterRead, ServiceRead, read
from deploy.rollout.kuberay.upgrades import Upgrades
from deploy.rollout.kuberay.upgrading import base, course_of, ordered
from deploy.rollout.kuberay.words import BEFORE, DEPLOYMENT, RETURNING, serve_service
from tests import crd
from tests.fakes import make_request
from tests.kube_sites import GATEWAY, PLACED, a_served, cluster_said, service_said
from tuner.errors import ParlayError
from tuner.retune.site import Readiness

REQUEST, INCREMENTAL = make_request(), Upgrades("istio", "http://gateway.example", 100, 10)


def service(status=None, *, generation=2, observed=2, suspend=False, leaving=False, **notes):
    named = {"deployment": DEPLOYMENT, "before": BEFORE, "returning": RETURNING}
    annotations = {named[key]: value for key, value in notes.items()}
    meta = {"name": "llama", "generation": generation, "annotations": annotations}
    meta |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}
    found = {"metadata": meta, "spec": {"suspend": suspend}}
    return found | ({} if status is None else {"status": status(found) | {"observedGeneration": observed}})


def states(found):
    return {name: one.readiness.value for name, one in read(found).deployments().items()}


def both(active=("old", "RUNNING"), pending=("new", "RUNNING"), percents=(None, None, None), **conditions):
    """A status with two clusters; ``percents`` are traffic of both, and the capacity of the pending one."""
    has, gets, capacity = percents
    one = {} if has is None else {"targetCapacity": 100, "trafficRoutedPercent": has}
    other = {} if gets is None else {"targetCapacity": capacity, "trafficRoutedPercent": gets}
    return lambda found: service_said(
        found, cluster_said("a", *active, **one), cluster_said("b", *pending, **other), **conditions
    )


def only(app="old", status="RUNNING", **conditions):
    return lambda found: service_said(found, cluster_said("a", app, status), **conditions)


UP = {"deployment": "new", "before": "old"}
BACK = {"deployment": "old", "before": "new", "returning": "true"}
READINGS = {
    "nobody looked at it": (service(deployment="new"), {"new": "starting"}, {}),
    "its first cluster comes up": (
        service(lambda f: service_said(f, pending=cluster_said("a", "new", "DEPLOYING")), deployment="new"),
        {"new": "starting"},
        {},
    ),
    "its first cluster runs and does not serve yet": (
        service(lambda f: service_said(f, pending=cluster_said("a", "new")), deployment="new"),
        {"new": "starting"},
        {},
    ),
    "it serves": (service(only("new"), deployment="new"), {"new": "ready"}, {"new": 1.0}),
    "no proxy serves": (service(only("new", Ready=False), deployment="new"), {"new": "starting"}, {"new": 1.0}),
    "its replicas died": (service(only("new", "UNHEALTHY"), deployment="new"), {"new": "failed"}, {"new": 1.0}),
    "another was applied, and nobody looked": (
        service(only("old"), observed=1, **UP),
        {"new": "starting", "old": "ready"},
        {"old": 1.0},
    ),
    "a new cluster comes up": (
        service(both(pending=("new", "DEPLOYING")), **UP),
        {"new": "starting", "old": "ready"},
        {"old": 1.0},
    ),
    "applications of the active cluster are not told": (
        service(lambda f: service_said(f, {"rayClusterName": "a"}, cluster_said("b", "new", "DEPLOYING")), **UP),
        {"new": "starting", "old": "ready"},
        {"old": 1.0},
    ),
    "it cannot be deployed": (
        service(both(pending=("new", "DEPLOY_FAILED")), **UP),
        {"new": "failed", "old": "ready"},
        {"old": 1.0},
    ),
    "it runs without capacity": (
        service(both(percents=(100, 0, 0)), **UP),
        {"new": "starting", "old": "ready"},
        {"old": 1.0},
    ),
    "a canary": (
        service(both(percents=(90, 10, 20)), **UP),
        {"new": "ready", "old": "ready"},
        {"old": 0.9, "new": 0.1},
    ),
    "all traffic has moved": (
        service(both(percents=(0, 100, 100)), **UP),
        {"new": "ready", "old": "leaving"},
        {"new": 1.0},
    ),
    "the new one has taken over": (service(only("new"), **UP), {"new": "ready"}, {"new": 1.0}),
    "on the way back": (
        service(both(percents=(95, 5, 10), RollbackInProgress=True), **BACK),
        {"old": "ready", "new": "leaving"},
        {"old": 0.95, "new": 0.05},
    ),
    "back was ordered, and nobody looked": (
        service(both(percents=(90, 10, 10)), observed=1, **BACK),
        {"old": "ready", "new": "leaving"},
        {"old": 0.9, "new": 0.1},
    ),
    "back by a third cluster": (
        service(both(pending=("old", "DEPLOYING"), percents=(100, 0, 0)), **BACK),
        {"old": "ready"},
        {"old": 1.0},
    ),
    "suspended, and still there": (service(only("new"), suspend=True, deployment="new"), {"new": "leaving"}, {}),
    "suspended": (service(lambda f: service_said(f), suspend=True, deployment="new"), {}, {}),
    "being deleted": (service(only("new"), leaving=True, deployment="new"), {"new": "leaving"}, {"new": 1.0}),
}


@pytest.mark.parametrize(("found", "readiness", "shares"), READINGS.values(), ids=READINGS.keys())
def test_what_a_status_means(found, readiness, shares):
    assert states(found) == readiness
    assert read(found).shares() == pytest.approx(shares)


@pytest.mark.parametrize("reason", ["ValidationFailed", "InitializingTimeout"])
def test_what_kuberay_gave_up_has_failed_and_says_why(reason):
    found = service(lambda f: service_said(f), deployment="new")
    condition = next(one for one in found["status"]["conditions"] if one["type"] == "Ready")
    condition |= {"reason": reason, "message": "no such field"}
    seen = read(found).deployments()["new"]
    assert (seen.readiness, seen.why) == (Readiness.FAILED, f"{reason}: no such field")


def test_before_conditions_there_was_a_word():
    """KubeRay up to 1.2."""
    status = {"activeServiceStatus": cluster_said("a", "new"), "serviceStatus": "Running"}
    assert states(service(lambda _: dict(status), deployment="new")) == {"new": "ready"}
    status["serviceStatus"] = "WaitForServeDeploymentReady"
    assert states(service(lambda _: dict(status), deployment="new")) == {"new": "starting"}


def test_the_names_of_services_are_kuberays():
    assert serve_service("llama") == "llama-serve-svc"
    assert serve_service("a" * 46) == "a" * 40 + "-serve-svc"
    assert serve_service("x" * 5 + "7" + "a" * 39)[0] == "r"  # what is left would begin with a digit
    assert len(serve_service("a" * 80)) == 50


# What is ordered next


def seen(percents=(100, 0, 10), moved_s=1000.0, **changes):
    has, gets, capacity = percents
    active = ClusterRead("a", {"old": ("RUNNING", "")}, 100, has)
    pending = ClusterRead("b", {"new": ("RUNNING", "")}, capacity, gets, moved_s)
    return replace(ServiceRead("new", "old", True, True, active, pending), **changes)


BEGUN = Course("new", "old", surge_percent=10)


def test_a_canarys_first_step_is_taken_at_once_and_the_next_much_later():
    course = routing(seen(), BEGUN, {"old": 0.9, "new": 0.1}, 1300.0, INCREMENTAL)
    assert (course.surge_percent, course.step_percent, course.interval_s) == (10, 10, 300)
    again = routing(seen(), course, {"old": 0.9, "new": 0.1}, 1400.0, INCREMENTAL)
    assert again == course
    assert steadied(seen(), course) == course
    assert steadied(seen((90, 10, 20)), course).step_percent == 0


def test_a_share_grows_from_what_there_is():
    course = routing(seen((90, 10, 10)), BEGUN, {"old": 0.7, "new": 0.3}, 1300.0, INCREMENTAL)
    assert (course.surge_percent, course.step_percent) == (30, 20)


def test_a_share_never_shrinks_but_to_nothing():
    course = routing(seen((50, 50, 50)), BEGUN, {"old": 0.9, "new": 0.1}, 1300.0, INCREMENTAL)
    assert course.step_percent == 0
    course = routing(seen((50, 50, 50)), BEGUN, {"old": 1.0}, 1300.0, INCREMENTAL)
    assert (course.deployment, course.returning, course.step_percent) == ("old", True, 100)
    assert routing(seen(), BEGUN, {"old": 1.0}, 1300.0, INCREMENTAL) == replace(BEGUN)


def test_all_of_it_moves_at_the_pace_of_the_operator():
    course = routing(seen(), BEGUN, {"new": 1.0}, 1300.0, replace(INCREMENTAL, surge_percent=25, interval_s=60))
    assert (course.surge_percent, course.step_percent, course.interval_s) == (25, 25, 60)


@pytest.mark.parametrize(
    ("read_so", "now", "shares", "says"),
    [
        (seen(), BEGUN, {"old": 0.5, "third": 0.5}, "third"),
        (seen(pending=None, applied="old"), Course("old"), {"old": 0.5, "new": 0.5}, "new"),
        (seen(returning=True), back(BEGUN), {"old": 0.5, "new": 0.5}, "goes back"),
        (seen((None, None, None)), BEGUN, {"old": 0.5, "new": 0.5}, "does not say"),
    ],
)
def test_shares_that_cannot_be(read_so, now, shares, says):
    with pytest.raises(ParlayError, match=says):
        routing(read_so, now, shares, 1300.0, INCREMENTAL)


def test_a_third_has_to_wait():
    with pytest.raises(ParlayError, match="has to wait"):
        starting(seen(), "third", 10, INCREMENTAL)
    assert starting(seen(), "new", 10, INCREMENTAL) is None
    assert starting(seen(), "old", 10, INCREMENTAL) is None


def test_what_has_traffic_does_not_end():
    with pytest.raises(ParlayError, match="10 % of the traffic"):
        ending(seen((90, 10, 10)), BEGUN, "new")
    assert ending(seen(), BEGUN, "new") == back(BEGUN)
    assert ending(seen(returning=True), back(BEGUN), "new") is None
    assert ending(seen(), BEGUN, "old") is None  # KubeRay ends it
    assert ending(seen(), BEGUN, "third") is None


def test_there_is_no_way_back_from_the_first():
    with pytest.raises(ParlayError, match="nothing served before"):
        back(Course("new"))


def test_nothing_is_looked_at_before_it_is_taken_back():
    """Killed behind the order, and before KubeRay saw it."""
    unseen = seen(pending=None, current=False)
    assert ending(unseen, BEGUN, "new") == back(BEGUN)


courses = some.builds(
    Course,
    deployment=some.sampled_from(["a", "b"]),
    before=some.sampled_from([None, "c"]),
    returning=some.booleans(),
    surge_percent=some.integers(0, 100),
    step_percent=some.integers(0, 100),
    interval_s=some.integers(1, 10**6),
    share_percent=some.integers(0, 100),
    suspended=some.booleans(),
    closed=some.booleans(),
)
DOCUMENT = base(PLACED, a_served("a", "tp=2", REQUEST), REQUEST, INCREMENTAL)


@given(courses)
def test_a_course_is_read_back_from_what_was_applied(course):
    found = ordered(DOCUMENT, course, INCREMENTAL)
    assert course_of(found) == course
    assert foreign(found, found) is None


# What somebody else did


def owned(manager, fields, operation="Update", **more):
    return {"manager": manager, "operation": operation, "fieldsV1": fields, **more}


def test_fields_that_another_manager_has_are_told_with_who():
    applied = ordered(DOCUMENT, BEGUN, INCREMENTAL)
    found = json.loads(json.dumps(applied))
    found["metadata"]["managedFields"] = [
        owned("parlay", {"f:spec": {"f:serveConfigV2": {}}}, "Apply"),
        owned("kuberay-operator", {"f:status": {"f:serviceStatus": {}}}),
        owned("kuberay-operator", {"f:spec": {"f:serveConfigV2": {}}}, subresource="status"),
        owned("kueue", {"f:spec": {"f:suspend": {}}, "f:metadata": {"f:labels": {"f:theirs": {}}}}),
    ]
    assert foreign(found, applied) is None  # what they have is not ours
    options = {"f:upgradeStrategy": {"f:clusterUpgradeOptions": {"f:stepSizePercent": {}}}}
    found["metadata"]["managedFields"].append(owned("kubectl-edit", {"f:spec": options}))
    found["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]["stepSizePercent"] = 50
    said = foreign(found, applied)
    assert said == (
        "RayService llama was changed by hand: .spec.upgradeStrategy.clusterUpgradeOptions.stepSizePercent is "
        "kubectl-edit's too"
    )


def test_a_field_inside_a_list_is_told_at_the_list():
    applied = ordered(DOCUMENT, BEGUN, INCREMENTAL)
    found = json.loads(json.dumps(applied))
    group = {'k:{"groupName":"workers"}': {"f:replicas": {}}}
    fields = {"f:spec": {"f:rayClusterConfig": {"f:workerGroupSpecs": group}}}
    found["metadata"]["managedFields"] = [owned("argocd", fields, "Apply")]
    assert ".spec.rayClusterConfig.workerGroupSpecs is argocd's too" in foreign(found, applied)


def test_values_that_are_others_are_told_and_additions_are_not():
    applied = ordered(DOCUMENT, BEGUN, INCREMENTAL)
    found = json.loads(json.dumps(applied))
    found["metadata"]["labels"]["theirs"] = "1"
    found["spec"]["serveService"] = {}
    assert foreign(found, applied) is None
    del found["spec"]["serveConfigV2"]
    found["spec"]["rayClusterConfig"]["rayVersion"] = "2.0.0"
    assert ".spec.serveConfigV2 is not what was applied" in foreign(found, applied)
    assert ".spec.rayClusterConfig.rayVersion" in foreign(found, applied)


# What deals the traffic, and what is kept


def test_a_service_deals_to_one_or_to_none():
    with pytest.raises(ParlayError, match="no canary"):
        front(PLACED, None, {"a": 0.9, "b": 0.1})
    assert front(PLACED, None, {"a": 1.0, "b": 0.0})["spec"]["selector"]["parlay.dev/serving"] == "a"
    assert front(PLACED, None, {})["spec"]["selector"]["parlay.dev/serving"] == "nobody"
    assert "canary" in NO_CANARY


@given(
    some.dictionaries(some.sampled_from(["a", "B.2", "c" * 60]), some.sampled_from([0.0, 0.1, 0.5, 1.0]), max_size=3)
)
def test_shares_are_read_back_from_a_route(shares):
    found = front(PLACED, Gateway("public", "http://x"), shares)
    assert shares_of(found) == {name: share for name, share in shares.items() if share > 0}
    backends = found["spec"]["rules"][0].get("backendRefs", [])
    assert {one["name"] for one in backends} == {serve_service(object_of(name)) for name in shares_of(found)}


def test_the_latest_and_the_needed_are_kept():
    kept = {}
    for number in range(MOST + 4):
        kept = with_another(kept, f"d{number}", {"number": number}, frozenset({"d0", "d1"}))
    assert len(kept) == MOST
    assert list(kept)[:2] == ["d0", "d1"]
    assert list(kept)[-1] == f"d{MOST + 3}"
    assert documents_of(config_map(PLACED, kept)) == kept
    assert documents_of(None) == {}


@pytest.mark.slow
def test_what_lies_beside_is_valid_and_differs_by_name_alone():
    one, two = (beside(PLACED, a_served(name, "tp=2", REQUEST), REQUEST) for name in ("One!", "two"))
    for document in (one, two):
        assert crd.problems(document) == []
    assert one["metadata"]["name"] != two["metadata"]["name"]
    assert one["metadata"]["labels"]["parlay.dev/watched"] == two["metadata"]["labels"]["parlay.dev/watched"]
    name = one["metadata"]["name"]
    pods = one["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["metadata"]["labels"]
    assert pods["parlay.dev/serving"] == name
    assert front(PLACED, GATEWAY, {"One!": 1.0})["spec"]["rules"][0]["backendRefs"][0]["name"] == f"{name}-serve-svc"
