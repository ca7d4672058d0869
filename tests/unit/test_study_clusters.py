"""A RayCluster for one study: made when it is queued, removed when it has ended or stopped, within a limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import crd
from tests.controller_app import RUNS, Killed, KilledAt, World
from tests.fakes import copy_of_empty_store, document
from tests.layout_requests import IMPOSSIBLE, NAMESPACE, SMALL, condition
from tests.study_clusters import TRIALS, ask, get_ready, message, settle, work_there
from tuner.app.controller.kube import LAYOUT_REQUEST, RAY_CLUSTER, KubeError
from tuner.app.controller.room import Room
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Wish
from tuner.study.store import Store

OTHER = {"request": document({**SMALL, "slo": [{"metric": "ttft", "percentile": 99, "ms": 400}]})}
WRITES = 14  # of a controller in ``run``


@pytest.fixture
def world(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield World(store, tmp_path, runs=replace(RUNS, trials=TRIALS))
    store.close()


# From the study's beginning to its end


@pytest.mark.slow
def test_it_is_made_for_the_study_and_removed_after_it(world):
    key = ask(world)
    assert world.look(key) == "Queued"
    (cluster,) = world.clusters()
    assert crd.problems({k: v for k, v in cluster.items() if k != "status"}) == []
    found = world.request(key)
    assert cluster["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]
    assert cluster["metadata"]["annotations"]["parlay.dev/study"] == found["status"]["study"]
    assert found["status"]["rayCluster"] == cluster["metadata"]["name"]
    assert condition(found, "Studying") == ("True", "RayClusterStarting")
    get_ready(world)
    world.look(key)
    assert condition(world.request(key), "Studying") == ("True", "Queued")
    assert world.settle(key) == "Queued"  # no other worker takes it
    assert work_there(world.store, cluster["metadata"]["name"], world.folder) == 1
    assert settle(world, key) == "RolledOut"
    assert world.clusters() == []
    assert "rayCluster" not in world.request(key)["status"]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"slo": IMPOSSIBLE}])
def test_whatever_is_decided_it_goes(world, changes):
    key = ask(world, changes=changes)
    assert settle(world, key) in ("RolledOut", "Infeasible")
    assert world.clusters() == []


@pytest.mark.slow
def test_of_a_study_that_is_paused_it_goes_and_comes_back(world):
    key = ask(world)
    world.look(key)
    name = world.request(key)["status"]["study"]
    world.store.orders.ask(name, Wish.PAUSE)
    assert world.look(key) == "Paused"
    assert world.clusters() == []
    world.store.orders.resume(name)
    world.look(key)
    assert len(world.clusters()) == 1
    world.store.orders.ask(name, Wish.CANCEL)
    world.look(key)
    assert world.clusters() == []


def test_another_request_has_another_and_the_first_goes(world):
    key = ask(world)
    world.look(key)
    (first,) = world.clusters()
    world.edit(key, OTHER)
    world.look(key)
    world.look(key)
    (second,) = world.clusters()
    assert second["metadata"]["name"] != first["metadata"]["name"]


def test_what_was_removed_by_somebody_is_made_again(world):
    key = ask(world)
    world.look(key)
    (cluster,) = world.clusters()
    world.kube.delete(RAY_CLUSTER, NAMESPACE, cluster["metadata"]["name"])
    world.look(key)
    assert [one["metadata"]["name"] for one in world.clusters()] == [cluster["metadata"]["name"]]


def test_deleted_it_leaves_no_cluster(world):
    key = ask(world)
    world.look(key)
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look(key)
    assert (world.request(key), world.clusters()) == (None, [])
    assert [verb for verb, kind in world.kube.calls if kind == "rayclusters" and verb == "delete"] == ["delete"]


def test_a_study_whose_worker_went_with_the_cluster_ends_all_the_same(world):
    """Nobody else would ever claim it, and the deletion would wait for ten minutes."""
    key = ask(world)
    world.look(key)
    (cluster,) = world.clusters()
    name = world.request(key)["status"]["study"]
    worker = "elsewhere/1/2/3"
    world.store.orders.claim(worker, ("ray",), lambda *_: False, cluster=cluster["metadata"]["name"])
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look(key)
    assert 590.0 < world.again_s <= 601.0  # after ten minutes it goes all the same
    world.kube.delete(RAY_CLUSTER, NAMESPACE, cluster["metadata"]["name"])
    world.look(key)
    assert world.store.listing.state(name) is StudyState.RUNNING
    assert world.again_s == 5.0
    assert world.clusters() == []
    world.store.orders.release(name, worker, StudyState.QUEUED, lambda *_: False)  # its last sign of life is long ago
    world.look(key)
    assert world.store.listing.state(name) is StudyState.CANCELLED
    assert world.request(key) is None


# Limits


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"trials": {"rayCluster": {"create": {"maxGpus": 4}}}}, "TooManyGpus", "maxGpus: 4"),
        ({"changes": {"cluster.nodes": 3}}, "TooManyGpus", "together may have 16"),
        ({"launcher": "simulated"}, "InvalidSpec", "launcher ray"),
        ({"target": {"rayVersion": "2.61.0"}}, "InvalidSpec", "2.60.0"),
        ({"trials": {"rayCluster": {}}}, "InvalidSpec", "either name or create"),
        ({"trials": {"rayCluster": {"name": "trials", "create": {}}}}, "InvalidSpec", "either name or create"),
    ],
)
def test_what_is_too_much_is_refused_with_words(world, spec, reason, words):
    key = ask(world, **spec)
    assert world.look(key) == "Refused"
    assert condition(world.request(key), "Accepted") == ("False", reason)
    assert words in message(world.request(key), "Accepted")
    assert (world.store.study_names(), world.clusters()) == ([], [])


def test_a_controller_that_makes_none_says_so(world):
    world.runs = RUNS
    key = ask(world)
    assert world.look(key) == "Refused"
    assert condition(world.request(key), "Accepted") == ("False", "NoSuchRayCluster")


def test_together_they_have_no_more_than_the_limit(world):
    keys = [ask(world, f"llama-{number}") for number in range(3)]
    for key in keys:
        world.look(key)
    assert len(world.clusters()) == 2  # of 8 GPUs each
    found = world.request(keys[2])
    assert condition(found, "Studying") == ("True", "WaitingForGpus")
    assert "8 GPUs" in message(found, "Studying")
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, keys[0].name)
    world.look(keys[0])
    world.look(keys[2])
    assert condition(world.request(keys[2]), "Studying") == ("True", "RayClusterStarting")


def test_what_is_just_being_made_counts():
    made = {"metadata": {"namespace": "a", "name": "b", "annotations": {"parlay.dev/gpus": "4"}, "ownerReferences": []}}
    there = [made]
    room = Room(8, lambda: there)
    assert room.left() == 8  # somebody else's
    made["metadata"]["ownerReferences"] = [{"apiVersion": "parlay.dev/v1alpha1"}]
    assert room.left() == 4
    assert room.take("new", 4)
    assert not room.take("newer", 1)
    room.let("new")
    assert room.left() == 4


@pytest.mark.parametrize("tried_again", [True, False])
def test_what_may_have_been_made_counts_for_others_and_for_a_time(world, tried_again, monkeypatch):
    now = [0.0]
    room = Room(16, world.clusters, lambda: now[0])
    monkeypatch.setattr("tests.controller_app.Room", lambda *_: room)
    apply, away = world.kube.apply, [KubeError(503, "", "away")]

    def once_away(kind, *words):
        if kind == RAY_CLUSTER and away:
            raise away.pop()
        return apply(kind, *words)

    monkeypatch.setattr(world.kube, "apply", once_away)
    first, second = ask(world, "llama-1", changes={"cluster.nodes": 2}), ask(world, "llama-2")
    with pytest.raises(KubeError):
        world.look(first)
    assert room.left() == 0
    world.look(second)
    assert condition(world.request(second), "Studying") == ("True", "WaitingForGpus")
    assert world.again_s == 60.0
    if tried_again:
        world.look(first)
        assert condition(world.request(first), "Studying") == ("True", "RayClusterStarting")
        return
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, first.name)
    world.look(first)
    world.look(second)
    assert world.clusters() == []
    now[0] += 301.0  # of what never came the room is there again
    world.look(second)
    assert condition(world.request(second), "Studying") == ("True", "RayClusterStarting")


def test_one_of_its_name_that_somebody_made_is_left_alone(world):
    key = ask(world)
    world.look(key)
    (cluster,) = world.clusters()
    world.kube.edit(RAY_CLUSTER, NAMESPACE, cluster["metadata"]["name"], {"metadata": {"ownerReferences": []}})
    world.look(key)
    assert condition(world.request(key), "Studying") == ("False", "NotOwned")
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look(key)
    assert len(world.clusters()) == 1


def test_without_kuberay_it_is_said(world):
    world.kube.unknown.add(RAY_CLUSTER)
    key = ask(world)
    world.look(key)
    assert condition(world.request(key), "Studying") == ("False", "NotFound")


# Killed


def fail(world):
    """What a worker in the head does with a study that cannot be run."""
    for cluster in world.clusters():
        name = cluster["metadata"]["name"]
        order = world.store.orders.claim(f"{name}/1/2/3", ("ray",), lambda *_: False, cluster=name)
        if order is not None:
            failed = (order.study, f"{name}/1/2/3", StudyState.FAILED)
            world.store.orders.release(*failed, lambda *_: True, "it cannot be")


def run(world, key, at, before):
    """From the request to its end, and another on the way; the controller is killed at one of its writes."""
    dying = KilledAt(world.kube, at, before)

    def look():
        try:
            world.look(key, dying, dying.dying)
        except Killed:
            world.look_again(key)

    look()
    world.edit(key, OTHER)
    look()
    look()
    get_ready(world)
    fail(world)
    look()
    return dying.writes


@pytest.mark.slow
def test_undisturbed_it_makes_these_writes(world):
    assert run(world, ask(world), -1, before=True) == WRITES


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("at", range(1, WRITES + 1))
def test_killed_at_any_write_no_cluster_is_left(world, at, before):
    key = ask(world)
    run(world, key, at, before)
    for _ in range(3):
        world.look_again(key)
        fail(world)
    assert world.look_again(key) == "Failed"
    assert world.clusters() == []
    states = sorted(world.store.listing.state(name) for name in world.store.study_names())
    assert states == [StudyState.CANCELLED, StudyState.FAILED]
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look_again(key)
    assert world.request(key) is None
