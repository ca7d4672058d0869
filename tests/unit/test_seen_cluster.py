"""The cluster as the workers of a service see it, and requests that ask for the one that is there."""

from __future__ import annotations

import pytest

from tests.fakes import copy_of_empty_store, document, make_request
from tests.service_app import client_of
from tuner.app.service.presence import Presence
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.ask.request import ClusterSpec
from tuner.errors import BadInput
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Terms
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

ASKED = document({"cluster": "ray", "space": {"tp": [1, 2]}, "budget.launches": 2})
EIGHT, FOUR = (ClusterSpec(gpu="h100_sxm", nodes=n, gpus_per_node=4) for n in (2, 1))


class Ray:
    """What answers at the address."""

    def __init__(self, *groups):
        self.groups = groups

    def __call__(self, address):
        if not self.groups:
            raise BadInput("address", address, "a Ray cluster that answers")
        return self.groups, "ray/head"


@pytest.fixture
def store(tmp_path):
    opened = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield opened
    opened.close()


@pytest.fixture
def client(store, tmp_path):
    return client_of(store, tmp_path)


def present(store, see, address="head:6379", launchers=("ray", "simulated")):
    return Presence(store.workers, launchers, address, see)


def test_what_workers_see_is_told(client, store):
    with present(store, Ray(EIGHT)), present(store, Ray(), launchers=("local",)):
        first, second = client.get("/v1/cluster").json()["workers"]
    ray, simulated = first["clusters"]
    assert (ray["cluster"], ray["devices"], ray["problem"]) == ("ray/head", 8, None)
    assert ray["groups"] == [{"gpu": "h100_sxm", "nodes": 2, "gpus_per_node": 4}]
    assert (simulated["cluster"], simulated["devices"]) == (None, None)
    assert first["alive"]
    assert second["clusters"][0]["cluster"].startswith("machine/")
    assert client.get("/v1/cluster").json() == {"workers": [], "held": [], "waiting": []}


@pytest.mark.parametrize(
    ("see", "address", "why"),
    [(Ray(), "head:6379", "a Ray cluster that answers"), (Ray(EIGHT), None, "without --ray-address")],
)
def test_where_no_worker_sees_ray_it_is_said_why(client, store, see, address, why):
    answers = [client.post("/v1/studies", json={"request": ASKED})]
    with present(store, see, address):
        answers += [
            client.post("/v1/plans", json={"request": ASKED}),
            client.post("/v1/studies", json={"request": ASKED}),
        ]
    assert [answer.status_code for answer in answers] == [422] * 3
    assert [answer.json()["where"] for answer in answers] == ["request: cluster"] * 3
    assert "--ray-address" in answers[0].json()["allowed"]
    assert why in answers[2].json()["allowed"]


@pytest.mark.slow
def test_a_plan_is_of_the_cluster_that_a_worker_sees(client, store):
    with present(store, Ray(EIGHT)):
        found = client.post("/v1/plans", json={"request": ASKED}).json()
        named = document({**{key: ASKED[key] for key in ("space",)}, "budget.launches": 2})
        named["cluster"] = EIGHT.model_dump(exclude_none=True)
        same = client.post("/v1/plans", json={"request": named}).json()
        assert client.post("/v1/requests", json={"document": ASKED}).json()["problem"] is None
    assert found["ranked"] == same["ranked"]


def test_a_study_is_kept_with_the_cluster_and_the_same_key_is_the_same_study(client, store):
    body = {"request": ASKED, "name": "s"}
    with present(store, Ray(EIGHT)):
        made = client.post("/v1/studies", json=body, headers={"Idempotency-Key": "k"}).json()
    assert made["request"]["cluster"]["nodes"] == 2
    with present(store, Ray(FOUR)):
        again = client.post("/v1/studies", json=body, headers={"Idempotency-Key": "k"})
        assert (again.status_code, again.json()["name"]) == (201, "s")
        other = {**body, "request": {**ASKED, "budget": {"launches": 3}}}
        assert client.post("/v1/studies", json=other, headers={"Idempotency-Key": "k"}).status_code == 409
        refused = client.post("/v1/studies", json={**body, "launcher": "simulated"})
        assert refused.json()["where"] == "request: cluster"


def submit(store):
    request = make_request({"cluster": EIGHT.model_dump(exclude_none=True), "space": {"tp": [1]}})
    return store.orders.submit("s", request, Terms("", "ray"), discovers=True)


def worker_of(store, tmp_path, see, address="head:6379"):
    return Worker(store, WorkerSettings(("ray",), address, tmp_path / "out"), CancelHandle(), see=see)


def test_a_study_that_finds_its_cluster_goes_to_a_worker_that_sees_one(store, tmp_path):
    submit(store)
    assert worker_of(store, tmp_path, Ray(EIGHT), None).run(until_idle=True) == 0
    assert worker_of(store, tmp_path, Ray()).run(until_idle=True) == 0
    assert store.listing.state("s") is StudyState.QUEUED


def test_its_worker_looks_again_before_it_begins(store, tmp_path, monkeypatch):
    submit(store)
    asked = []

    def run_study(order, *others, **more):
        asked.append(order.request.groups)
        raise BadInput("launch", "none", "here")

    class Bench:
        launcher = meter = clock = None

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("tuner.app.service.worker.run_study", run_study)
    monkeypatch.setattr("tuner.app.service.worker.bench", lambda *_: Bench())
    assert worker_of(store, tmp_path, Ray(FOUR)).run(until_idle=True) == 1
    assert asked == [(FOUR,)]
    (event,) = [event for event in store.events.after("s", 0) if event.kind == "cluster"]
    assert '"gpus_per_node": 4' in event.data


def test_one_whose_ray_is_gone_when_it_begins_waits_on(store, tmp_path):
    submit(store)
    ray = Ray(EIGHT)

    def once(address):
        found = ray(address)
        ray.groups = ()
        return found

    assert worker_of(store, tmp_path, once).run(until_idle=True) == 1
    assert (store.listing.state("s"), store.orders.order("s").worker) == (StudyState.QUEUED, "")


def test_a_worker_of_a_named_cluster_waits_for_its_nodes(store, tmp_path, monkeypatch):
    """And runs what is for that cluster alone."""
    monkeypatch.setattr("tuner.app.service.worker.NODES_S", 0.01)
    store.orders.submit("elsewhere", make_request(), Terms("", "ray"))
    store.orders.submit("here", make_request(), Terms("", "ray", cluster="here"))
    seen = []

    def see(address):
        seen.append(address)
        if len(seen) == 1:
            raise BadInput("cluster", "nothing", "nodes")
        return ((FOUR,) if len(seen) == 2 else (EIGHT,)), "ray/x"

    settings = WorkerSettings(("ray",), "head:6379", tmp_path / "out", cluster="here", devices=8)
    began = []
    monkeypatch.setattr(Worker, "_drive", lambda self, order, *_: began.append((order.study, len(seen))))
    assert Worker(store, settings, CancelHandle(), see=see).run(until_idle=True) == 1
    assert began == [("here", 3)]
    assert store.listing.state("elsewhere") is StudyState.QUEUED
