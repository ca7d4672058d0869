"""The service over HTTP: what it answers, what it refuses and with what words, and who may ask."""

from __future__ import annotations

import json
from functools import partial
from importlib.metadata import PackageNotFoundError

import pytest

from tests.fakes import copy_of_empty_store, document
from tests.service_app import STUDY, client_of, work
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.errors import Cause
from tuner.study.accounts import Scope
from tuner.study.lifecycle import StudyState
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

PROBLEM = "application/problem+json"
TRACE = {"process": "trace", "requests_per_s": 8}


@pytest.fixture
def store(tmp_path):
    opened = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield opened
    opened.close()


@pytest.fixture
def serve(store, tmp_path):
    return partial(client_of, store, tmp_path)


def told(answer):
    """The events of a stream: (number, kind, data)."""
    blocks = [block.splitlines() for block in answer.text.split("\n\n") if block.startswith("id: ")]
    return [(int(b[0][4:]), b[1][7:], json.loads(b[2][6:])) for b in blocks]


# Planning


def test_a_plan_is_that_of_the_command_line(serve):
    answer = serve().post("/v1/plans", json={"request": STUDY["request"]})
    assert answer.status_code == 200
    found = answer.json()
    assert found["ranked"][0]["meets_slo"]
    assert {"candidates", "dropped", "ranked", "seconds", "what_if", "infeasible"} <= set(found)


@pytest.mark.slow
def test_a_plan_without_a_way_says_why(serve):
    wanted = document({"slo": [{"metric": "ttft", "percentile": 99, "ms": 0.01}]})
    answer = serve().post("/v1/plans", json={"request": wanted})
    assert answer.status_code == 200
    assert answer.json()["infeasible"] is not None


@pytest.mark.slow
def test_a_simulation_is_that_of_the_command_line(serve):
    answer = serve().post("/v1/simulations", json={"request": STUDY["request"], "layout": "tp=1", "requests": 50})
    assert answer.status_code == 200
    assert answer.json()["attainment"] > 0


def test_what_can_be_named_is_told(serve):
    client = serve()
    names = client.get("/v1/names").json()
    assert "h100_sxm" in names["gpus"]
    assert "dense" in names["spaces"]
    assert client.get("/v1/profiles/h100_sxm").json()["name"]
    assert client.get("/v1/profiles/nothing").status_code == 404


def test_code_that_is_not_installed_serves_too(serve, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("tuner.trial.launched.version", absent)
    client = serve()
    assert client.get("/v1/version").json()["parlay"] == "unknown"
    assert client.get("/metrics").status_code == 200


# Errors


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"slo.0.ms": -1}, "request: slo.0.ms"),
        ({"cluster.gpus": 8}, "request: cluster.gpus"),
        ({"model": "/etc/passwd"}, "request: model"),
        ({"model": "../../etc"}, "request: model"),
        ({"cluster.gpu": "/etc/hosts"}, "request: cluster.gpu"),
        ({"cluster": "ray"}, "request: cluster"),
        ({"workload.arrival": TRACE | {"trace": "/etc/passwd"}}, "request: workload.arrival.trace"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/plans", "/v1/studies"])
def test_a_wrong_request_is_refused_at_its_place(serve, path, changes, where):
    answer = serve().post(path, json={"request": document(changes)})
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    assert answer.json()["where"] == where
    assert answer.json()["allowed"]


def test_a_file_beneath_an_opened_folder_may_be_named_and_a_link_out_of_it_may_not(serve, tmp_path):
    opened = tmp_path / "models"
    opened.mkdir()
    (opened / "out").symlink_to("/etc")
    client = serve(roots=[opened])
    outside = client.post("/v1/plans", json={"request": document({"model": str(opened / "out")})}).json()
    assert "a path beneath" in outside["allowed"]
    inside = client.post("/v1/plans", json={"request": document({"model": str(opened)})}).json()
    assert "holds a config.json" in inside["allowed"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "status"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"[" * 19_000, "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"x" * 20_001, "headers": {"content-type": "application/json"}}, 413),
        ({"json": {}}, 422),
        ({"json": {"request": 5}}, 422),
        ({"json": {"request": {}, "shell": "rm"}}, 422),
        ({"json": {"request": STUDY["request"], "name": "../../x"}}, 422),
        ({"json": {"request": STUDY["request"], "launcher": "local"}}, 422),
        ({"json": {"request": STUDY["request"], "simulated_seed": 1}}, 422),
    ],
)
def test_a_body_that_is_none_is_a_problem(serve, send, status):
    answer = serve(body_bytes=20_000).post("/v1/studies", **send)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)


def test_what_does_not_exist_is_a_problem(serve):
    client = serve()
    for path in ("/v1/nothing", "/v1/studies/none", "/v1/studies/none/events", "/v1/studies/none/decision"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM), path
    assert client.delete("/v1/plans").status_code == 405


def test_every_answer_carries_security_headers(serve):
    client = serve()
    for answer in (client.get("/healthz"), client.get("/v1/nothing"), client.post("/v1/plans", json={})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "access-control-allow-origin" not in answer.headers


# Who may ask


@pytest.mark.parametrize(
    ("scope", "reads", "tunes", "deletes"),
    [(None, 401, 401, 401), (Scope.READ, 404, 403, 403), (Scope.TUNE, 404, 201, 403), (Scope.ADMIN, 404, 201, 404)],
)
def test_a_token_allows_what_its_scope_says(serve, store, scope, reads, tunes, deletes):
    client = serve(open_to_all=False)
    if scope is not None:
        client.headers["Authorization"] = f"Bearer {store.accounts.create('test', scope)[1]}"
    assert client.get("/v1/studies/none").status_code == reads
    assert client.post("/v1/studies", json=STUDY).status_code == tunes
    assert client.delete("/v1/studies/none").status_code == deletes
    assert client.get("/healthz").status_code == 200


def test_a_wrong_token_is_told_so(serve, store):
    client = serve(open_to_all=False)
    token, secret = store.accounts.create("test", Scope.READ)
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get("/v1/studies", headers=headers).status_code == 200
    store.accounts.revoke(token.id)
    answer = client.get("/v1/studies", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "revoked" in answer.json()["detail"]


def test_who_asks_too_often_is_told_when_to_come_back(serve):
    client = serve(requests_per_s=0.5, burst=2)
    assert [client.get("/v1/studies").status_code for _ in range(3)] == [200, 200, 429]
    assert int(client.get("/v1/studies").headers["retry-after"]) >= 1


def test_what_was_asked_is_kept_with_who_did(serve, store):
    client = serve(open_to_all=False)
    token, secret = store.accounts.create("pipeline", Scope.TUNE)
    client.headers["Authorization"] = f"Bearer {secret}"
    name = client.post("/v1/studies", json=STUDY).json()["name"]
    client.post(f"/v1/studies/{name}/cancel")
    entries = [(entry.token, entry.action, entry.target, entry.outcome) for entry in store.audit.page()]
    assert entries == [(token.id, "cancel", name, "cancelled"), (token.id, "create", name, "queued")]


# Studies


@pytest.mark.slow
def test_a_study_from_the_request_to_its_decision(serve, store, tmp_path):
    client = serve()
    made = client.post("/v1/studies", json=STUDY | {"name": "first"})
    assert (made.status_code, made.headers["location"]) == (201, "/v1/studies/first")
    assert made.json()["state"] == "queued"
    assert work(store, tmp_path) == 1
    answer = client.get("/v1/studies/first/decision").json()
    assert (answer["ended"], answer["state"], answer["simulated"]) == (True, "decided", True)
    assert answer["winner"]["layout"]
    events = told(client.get("/v1/studies/first/events"))
    assert [number for number, *_ in events] == list(range(1, len(events) + 1))
    kinds = [kind for _, kind, _ in events]
    assert kinds[:3] == ["state", "state", "planned"]
    assert kinds[-1] == "state"
    assert events[-1][2] == {"state": "decided"}
    later = told(client.get("/v1/studies/first/events", headers={"Last-Event-ID": str(len(events) - 2)}))
    assert later == events[-2:]
    listed = client.get("/v1/studies", params={"state": "decided"}).json()["studies"]
    assert [(line["name"], line["trials"]) for line in listed] == [("first", len(answer["trials"]))]
    assert "<html" in client.get("/v1/studies/first/report").text
    spec = client.get("/v1/studies/first/specs/ray-serve")
    assert (spec.status_code, "simulated" in spec.json()["detail"]) == (409, True)
    assert client.get("/v1/studies/first/specs/nothing").status_code == 404
    assert client.delete("/v1/studies/first").status_code == 204
    assert client.get("/v1/studies/first").status_code == 404


def test_the_same_key_makes_one_study(serve, store):
    client, key = serve(), {"Idempotency-Key": "ticket-7"}
    first = client.post("/v1/studies", json=STUDY, headers=key)
    again = client.post("/v1/studies", json=STUDY, headers=key)
    assert first.json() == again.json()
    assert store.listing.counts()[StudyState.QUEUED] == 1
    other = client.post("/v1/studies", json=STUDY | {"priority": 5}, headers=key)
    assert (other.status_code, other.json()["where"]) == (409, "Idempotency-Key")
    assert client.post("/v1/studies", json=STUDY).status_code == 409


@pytest.mark.slow
def test_events_end_when_a_study_is_paused_and_go_on_behind_that_when_it_is_resumed(serve, store, tmp_path):
    client = serve()
    client.post("/v1/studies", json={**STUDY, "name": "s"})
    client.post("/v1/studies/s/pause")
    until = told(client.get("/v1/studies/s/events"))
    assert until[-1][2] == {"state": "paused"}
    client.post("/v1/studies/s/resume")
    work(store, tmp_path)
    later = told(client.get("/v1/studies/s/events", headers={"Last-Event-ID": str(until[-1][0])}))
    assert (later[0][2], later[-1][2]) == ({"state": "queued"}, {"state": "decided"})
    assert told(client.get("/v1/studies/s/events")) == until + later
    assert client.post("/v1/studies/s/resume").json()["given"] == "decided"


@pytest.mark.slow
def test_one_that_waits_is_paused_resumed_and_cancelled(serve, store, tmp_path):
    client = serve()
    client.post("/v1/studies", json=STUDY | {"name": "s"})
    assert client.post("/v1/studies/s/pause").json()["state"] == "paused"
    assert work(store, tmp_path) == 0
    assert client.post("/v1/studies/s/resume").json()["state"] == "queued"
    assert client.post("/v1/studies/s/resume").status_code == 409
    assert client.post("/v1/studies/s/cancel").json()["state"] == "cancelled"
    assert client.post("/v1/studies/s/cancel").status_code in (202, 409)


def test_a_token_has_so_many_studies_at_most(serve):
    client = serve(open_studies=1)
    assert client.post("/v1/studies", json=STUDY | {"name": "one"}).status_code == 201
    assert client.post("/v1/studies", json=STUDY | {"name": "two"}).status_code == 429


def test_what_cannot_be_run_has_failed_and_says_why(serve, store, tmp_path):
    client = serve(roots=[tmp_path])
    model = tmp_path / "model"
    model.mkdir()
    wanted = {**STUDY, "request": {**STUDY["request"], "model": str(model)}, "name": "s"}
    assert client.post("/v1/studies", json=wanted).status_code == 201
    assert work(store, tmp_path, [tmp_path]) == 1
    found = client.get("/v1/studies/s").json()
    assert found["state"] == "failed"
    assert "config.json" in found["order"]["problem"]


def test_a_worker_that_is_told_to_end_gives_back_what_it_has(serve, store, tmp_path):
    """And what a study was wished to do before it had begun, it does."""
    client = serve()
    client.post("/v1/studies", json=STUDY | {"name": "s"})
    order = store.orders.claim("dead", ("simulated",), lambda *_: True)
    client.post("/v1/studies/s/pause")
    assert store.study("s").state is StudyState.RUNNING
    assert order.wish is None
    stop = CancelHandle()
    worker = Worker(store, WorkerSettings(("simulated",), None, tmp_path / "out"), stop)
    store.orders.release("s", "dead", StudyState.QUEUED, lambda *_: True)
    stop.cancel(Cause.SHUTDOWN, "now")
    assert worker.run() == 0
    assert store.study("s").state is StudyState.PAUSED


@pytest.mark.slow
def test_pages_follow_one_another(serve, store):
    client = serve()
    for number in range(5):
        client.post("/v1/studies", json=STUDY | {"name": f"s{number}"})
    found, cursor = [], {}
    while True:
        page = client.get("/v1/studies", params={"limit": 2, **cursor}).json()
        found += [line["name"] for line in page["studies"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert found == ["s4", "s3", "s2", "s1", "s0"]
    assert client.get("/v1/studies", params={"cursor": "no"}).status_code == 422


@pytest.mark.slow
def test_the_description_holds_the_request_and_every_reference_in_it(serve):
    found = serve().get("/v1/openapi.json").json()
    assert "TuneRequest" in found["components"]["schemas"]
    for reference in set(json.dumps(found).split('"$ref": "')[1:]):
        name = reference.split('"')[0].removeprefix("#/components/schemas/")
        assert name in found["components"]["schemas"]
