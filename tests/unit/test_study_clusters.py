"""A RayCluster for one study: made when it is queued, removed when it has ended or stopped, within a limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from deploy.specs.rayservice import Platform
from deploy.specs.site_values import Site
from deploy.specs.study_cluster import gpus_of, read_trials, study_cluster
from tests import crd
from tests.controller_app import RUNS, Killed, KilledAt, World
from tests.fakes import copy_of_empty_store, document
from tests.layout_requests import IMPOSSIBLE, NAMESPACE, SMALL, condition
from tests.study_clusters import CREATE, TRIALS, ready_status, work_there
from tuner.app.controller.kube import LAYOUT_REQUEST, RAY_CLUSTER, KubeError
from tuner.app.controller.room import Room
from tuner.app.service.options import bracketed
from tuner.ask.request import ClusterSpec
from tuner.errors import BadInput
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Wish
from tuner.study.quotas import Quota
from tuner.study.store import Store

OTHER = {"request": document({**SMALL, "slo": [{"metric": "ttft", "percentile": 99, "ms": 400}]})}
WRITES = 14  # of a controller in ``run``


@pytest.fixture
def world(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield World(store, tmp_path, runs=replace(RUNS, trials=TRIALS))
    store.close()


def ask(world, name="llama", **spec):
    return world.ask(name, **{"launcher": None, "trials": CREATE, **spec})


def message(found, kind):
    return next(c["message"] for c in found["status"]["conditions"] if c["type"] == kind)


def get_ready(world):
    for cluster in world.clusters():
        world.kube.set_status(RAY_CLUSTER, NAMESPACE, cluster["metadata"]["name"], ready_status(cluster))


def settle(world, key):
    """Look and have the workers of the clusters work, until nothing changes."""
    before = None
    while before != (before := world.kube.list(LAYOUT_REQUEST, NAMESPACE)[1]):
        world.look_again(key)
        get_ready(world)
        world.look_again(key)
        for cluster in world.clusters():
            work_there(world.store, cluster["metadata"]["name"], world.folder)
        world.settle(key)
    return world.look_again(key)


# The manifest


def test_it_has_the_nodes_of_the_request_and_a_worker_beside_its_head():
    groups = (
        ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8, node_selector={"rack": "1"}),
        ClusterSpec(gpu="l40s", nodes=1, gpus_per_node=4),
    )
    site = Site.model_validate({"gang": {"scheduler": "volcano", "queue": "q"}, "rdma": {"resource": "rdma/hca"}})
    made = study_cluster("llama-x", groups, Platform.at(site, cache_claim="weights"), TRIALS, "/models/own")
    assert crd.problems(made) == []
    assert made["metadata"]["labels"]["volcano.sh/queue-name"] == "q"
    assert made["metadata"]["annotations"]["parlay.dev/gpus"] == "20"
    counts = [(one["replicas"], one["minReplicas"], one["maxReplicas"]) for one in made["spec"]["workerGroupSpecs"]]
    assert counts == [(2, 2, 2), (1, 1, 1)]
    first = made["spec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert first["nodeSelector"] == {"rack": "1"}
    assert first["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert first["containers"][0]["resources"]["limits"]["rdma/hca"] == "1"
    assert "8000" not in str(first["containers"][0]["readinessProbe"])  # nothing is served there yet
    head, worker = made["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert head["name"] == "ray-head"
    assert worker["image"] == TRIALS.image
    assert "--cluster=llama-x" in worker["args"]
    assert "--ray-devices=20" in worker["args"]
    store = next(one for one in worker["env"] if one["name"] == "PARLAY_STORE")
    assert store["valueFrom"]["secretKeyRef"] == {"name": "store", "key": "url"}
    shared = {"shared-memory", "ray"}
    for container in (head, worker):
        assert shared <= {mount["name"] for mount in container["volumeMounts"]}
    named = [volume["name"] for volume in made["spec"]["headGroupSpec"]["template"]["spec"]["volumes"]]
    assert len(named) == len(set(named))
    assert {mount["name"] for mount in worker["volumeMounts"]} <= set(named)


def test_its_workers_words_are_those_of_the_command():
    import typer

    from tuner.app.cli.commands import app

    made = study_cluster("x", (ClusterSpec(gpu="cpu", gpus_per_node=4),), Platform(), TRIALS, "org/model")
    command, *words = made["spec"]["headGroupSpec"]["template"]["spec"]["containers"][1]["args"]
    typer.main.get_command(app).commands[command].make_context(command, words)
    (group,) = made["spec"]["workerGroupSpecs"]
    cores = group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    assert group["rayStartParams"]["num-gpus"] == cores  # by which Ray's nodes are seen to be cores


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("10.0.0.1:6379", "10.0.0.1:6379"),
        ("fd00::1:6379", "[fd00::1]:6379"),
        ("[fd00::1]:6379", "[fd00::1]:6379"),
        ("head.ns.svc:6379", "head.ns.svc:6379"),
        ("ray://10.0.0.1:10001", "ray://10.0.0.1:10001"),
        ("auto", "auto"),
        (None, None),
    ],
)
def test_a_pods_own_address_may_be_ipv6(given, read):
    assert bracketed(given) == read


def test_a_worker_is_given_the_address_as_ray_reads_it():
    import typer

    from tuner.app.cli.commands import app

    command = typer.main.get_command(app).commands["worker"]
    context = command.make_context("worker", ["--ray-address=fd00::1:6379"])
    assert context.params["ray_address"] == "[fd00::1]:6379"


def test_nodes_without_gpus_count_too():
    groups = (ClusterSpec(gpu="cpu", nodes=3, gpus_per_node=4), ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8))
    assert gpus_of(groups) == 19
    made = study_cluster("x", groups[:1], Platform(), TRIALS, "org/model")
    assert made["metadata"]["annotations"]["parlay.dev/gpus"] == "3"


@pytest.mark.parametrize(
    ("changes", "named"), [({"maxGpus": 0}, "maxGpus"), ({"image": ""}, "image"), ({"gpus": 1}, "gpus")]
)
def test_a_file_that_cannot_work_is_refused_by_name(changes, named, tmp_path):
    path = tmp_path / "trials.yaml"
    path.write_text(yaml.safe_dump({**TRIALS.model_dump(by_alias=True), **changes}), encoding="utf-8")
    with pytest.raises(BadInput) as refused:
        read_trials(path)
    assert named in str(refused.value)
    path.write_text(yaml.safe_dump(TRIALS.model_dump(by_alias=True)), encoding="utf-8")
    assert read_trials(path) == TRIALS


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


# Held and deleted studies


def test_a_study_that_a_quota_paused_goes_on_when_it_is_free(world):
    key = world.ask()
    world.look(key)
    name, owner = world.request(key)["status"]["study"], "kubernetes/serving"
    world.store.quotas.set(Quota(owner, 0.0, 30.0, None))
    order = world.store.orders.claim("elsewhere/1/2/3", ("simulated",), lambda *_: False)
    world.store.orders.release(name, "elsewhere/1/2/3", StudyState.PAUSED, lambda *_: True, "the quota: all is spent")
    assert order is not None
    assert world.look(key) == "Paused"
    assert condition(world.request(key), "Studying") == ("False", "QuotaSpent")
    assert "goes on by itself" in message(world.request(key), "Studying")
    assert world.again_s == 60.0
    world.store.quotas.set(Quota(owner, 1.0, 30.0, None))
    assert world.look(key) == "Queued"
    assert world.again_s is None
    world.store.orders.ask(name, Wish.PAUSE)
    assert world.look(key) == "Paused"  # by a person: it stays so
    assert condition(world.request(key), "Studying") == ("False", "Paused")


@pytest.mark.slow
def test_a_study_that_somebody_deleted_is_not_run_again_unasked(world):
    key = world.ask()
    world.settle(key)
    name = world.request(key)["status"]["study"]
    world.store.delete_study(name)
    assert world.settle(key) == "Deleted"
    assert world.store.study_names() == []
    found = world.request(key)
    assert condition(found, "Failed") == ("True", "StudyDeleted")
    assert name in message(found, "Failed")
    assert world.service() is not None
    world.edit(key, OTHER)
    assert world.settle(key) == "RolledOut"
    assert len(world.store.study_names()) == 1


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
