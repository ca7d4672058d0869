"""How requests are let in: who asks comes before what is asked, and nobody takes more than is meant for one."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from fastapi.routing import APIRoute

from tests.fakes import copy_of_empty_store
from tests.service_app import STUDY, client_of
from tuner.app.service.access import scope_of
from tuner.app.service.options import ServeOptions
from tuner.app.service.rates import Rates, neighbourhood
from tuner.errors import BadInput
from tuner.study.accounts import Scope
from tuner.study.database import Database
from tuner.study.lifecycle import StudyState
from tuner.study.quotas import Quota
from tuner.study.store import Store


@pytest.fixture
def store(tmp_path):
    opened = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield opened
    opened.close()


@pytest.fixture
def serve(store, tmp_path):
    return partial(client_of, store, tmp_path, open_to_all=False)


def bearer(store, scope=Scope.TUNE, name="ci"):
    token, secret = store.accounts.create(name, scope)
    return token, {"Authorization": f"Bearer {secret}"}


# Before the body


def asked(app, pieces, headers=(), path="/v1/studies", method="POST"):
    """The answer of an application to a request whose body comes in pieces: status, headers, how many were taken.

    A piece that is a number is so many seconds in which nothing comes.
    """
    sent, taken = [], 0

    async def receive():
        nonlocal taken
        if taken == len(pieces):
            await asyncio.sleep(60)
        piece = pieces[taken]
        taken += 1
        if isinstance(piece, float):
            await asyncio.sleep(piece)
            return await receive()
        return {"type": "http.request", "body": piece, "more_body": taken < len(pieces)}

    async def send(message):
        sent.append(message)

    first = [(b"host", b"x"), (b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "root_path": "", "raw_path": path.encode(), "query_string": b"", "scheme": "http",
        "client": ("192.0.2.1", 5), "server": ("x", 80), "headers": [*first, *headers],
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))
    return sent[0]["status"], dict(sent[0]["headers"]), taken


def raw(headers):
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


@pytest.mark.parametrize(("scope", "status"), [(None, 401), (Scope.READ, 403)])
def test_of_a_caller_who_is_refused_nothing_more_is_read(serve, store, scope, status):
    headers = {} if scope is None else bearer(store, scope)[1]
    found, answered, taken = asked(serve().app, [b"x" * 10**6] * 50, raw(headers))
    assert (found, taken) == (status, 0)
    assert answered[b"connection"] == b"close"  # nobody waits for the rest


@pytest.mark.slow
def test_a_body_has_to_come_in_time(serve, store):
    headers = raw(bearer(store)[1])
    body = json.dumps(STUDY).encode()
    assert asked(serve().app, [body[:50], 0.01, body[50:]], headers)[0] == 201
    for pieces in ([5.0], [b"{", 5.0, b"}"], [b" ", 0.1] * 50 + [b"{}"]):
        found, answered, _ = asked(serve(body_s=0.3).app, pieces, headers)
        assert (found, answered[b"connection"]) == (408, b"close")


def test_a_body_that_is_too_long_is_read_no_further(serve, store):
    found, answered, taken = asked(serve(body_bytes=1000).app, [b" " * 400] * 50, raw(bearer(store)[1]))
    assert (found, answered[b"connection"], taken) == (413, b"close", 3)


def test_every_route_has_a_scope_but_those_that_say_nothing_of_anybody(serve):
    routes = [route for route in serve().app.routes if isinstance(route, APIRoute)]
    free = {route.path for route in routes if scope_of(route) is None}
    assert free == {"/healthz", "/readyz", "/metrics", "/v1/version", "/", "/assets/{name}"}
    changing = {method for route in routes if scope_of(route) is Scope.READ for method in route.methods}
    assert changing <= {"GET", "POST"}
    of_admins = {"/v1/audit", "/v1/studies/{name}", "/v1/studies/{name}/watch", "/v1/studies/{name}/watch/force"}
    assert {route.path for route in routes if scope_of(route) is Scope.ADMIN} == of_admins


def test_a_path_that_is_wrong_is_told_to_those_who_may_ask_alone(serve, store):
    client = serve()
    assert client.get("/v1/studies/s/trials/no/log").status_code == 401
    assert client.get("/v1/studies/s/trials/no/log", headers=bearer(store)[1]).status_code == 422


# Too often


def test_refusals_are_counted_and_become_too_many(serve, store):
    client, good = serve(failures_per_s=0.001, failures_burst=3), bearer(store)[1]
    wrong = {"Authorization": "Bearer parlay_nothing"}
    seen = [client.get("/v1/studies", headers=wrong).status_code for _ in range(3)]
    assert seen == [401] * 3
    answer = client.get("/v1/studies", headers=wrong)
    assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
    assert int(answer.headers["retry-after"]) > 1
    assert client.get("/v1/nothing").status_code == 429  # of whoever asks from there without a token
    assert client.get("/v1/studies", headers=good).status_code == 200  # it may be a proxy's address
    assert client.get("/healthz").status_code == 200


def test_what_a_token_may_not_or_does_not_find_counts_as_its_own(serve, store):
    client = serve(failures_per_s=0.001, failures_burst=2)
    one, two = bearer(store, Scope.READ, "one")[1], bearer(store, Scope.READ, "two")[1]
    assert client.get("/v1/studies/none", headers=one).status_code == 404
    assert client.delete("/v1/studies/none", headers=one).status_code == 403
    assert client.get("/v1/studies/none", headers=one).status_code == 429
    assert client.get("/v1/studies/none", headers=two).status_code == 404
    assert client.get("/v1/studies", headers=one).status_code == 200


def test_a_bucket_is_refilled_and_one_that_is_full_is_forgotten(monkeypatch):
    monkeypatch.setattr("tuner.app.service.rates.MOST_KEYS", 300)
    now = [0.0]
    rates = Rates(1.0, 2.0, lambda: now[0])
    assert [rates.wait_s("a") for _ in range(3)] == [0.0, 0.0, 1.0]
    now[0] = 1.5
    assert [rates.wait_s("a"), rates.wait_s("a")] == [0.0, pytest.approx(0.5)]
    for number in range(400):
        rates.wait_s(str(number))
        now[0] += 0.01
    assert len(rates._left) <= 300


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1%eth0", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_is_counted_as_its_network(host, counted):
    assert neighbourhood(host) == counted


# Quotas, where a study is asked for


def test_who_has_spent_the_quota_is_told_how_much_and_until_when(serve, store, monkeypatch):
    client = serve()
    token, headers = bearer(store)
    real = {**STUDY, "launcher": "ray"}
    assert client.post("/v1/studies", json=real | {"name": "first"}, headers=headers).status_code == 201
    client.post("/v1/studies/first/cancel", headers=headers)
    store.quotas.set(Quota(token.id, 40.0, 30.0, None))
    monkeypatch.setattr(type(store.spending), "launches_of", lambda *_: ((1000.0, 25.0), (2000.0, 20.0)))
    frees_at = 1000.0 + 30 * 86_400
    for answer in (
        client.post("/v1/studies", json=real | {"name": "second"}, headers=headers),
        client.post("/v1/studies/first/resume", headers=headers),
    ):
        found = answer.json()
        assert (answer.status_code, found["type"]) == (429, "urn:parlay:problem:quota")
        assert (found["gpu_hours"], found["allowed_gpu_hours"], found["window_days"]) == (45.0, 40.0, 30.0)
        assert found["frees_at"] == frees_at
        assert found["detail"].startswith(
            "45 of 40 GPU-hours in 30 days are spent; it may launch again from 1970-01-31"
        )
        assert (found["where"], found["given"]) == ("quota: gpu_hours", "45")
        assert "retry-after" not in answer.headers
    assert [entry.action for entry in store.audit.page(limit=2)] == ["refuse", "refuse"]
    standing = client.get("/v1/account", headers=headers).json()
    assert (standing["account"], standing["gpu_hours"], standing["frees_at"]) == (token.id, 45.0, frees_at)
    assert client.post("/v1/studies", json=STUDY | {"name": "free"}, headers=headers).status_code == 201  # simulated


def test_a_token_has_as_many_studies_as_its_quota_says_resumed_ones_too(serve, store):
    client = serve(open_studies=5)
    token, headers = bearer(store)
    store.quotas.set(Quota(token.id, None, 30.0, 1))
    assert client.post("/v1/studies", json=STUDY | {"name": "one"}, headers=headers).status_code == 201
    client.post("/v1/studies/one/pause", headers=headers)
    assert client.post("/v1/studies", json=STUDY | {"name": "two"}, headers=headers).status_code == 201
    answer = client.post("/v1/studies/one/resume", headers=headers)
    assert (answer.status_code, answer.json()["where"]) == (429, "quota: studies")


@pytest.mark.slow
@pytest.mark.parametrize("open_studies", [1, 5])
def test_what_no_room_would_mend_is_a_conflict_however_much_room_there_is(serve, store, open_studies):
    client = serve(open_studies=open_studies)
    _, headers = bearer(store)
    submit, resume = partial(client.post, "/v1/studies", headers=headers), "/v1/studies/one/resume"
    assert submit(json=STUDY | {"name": "one"}, headers=headers | {"Idempotency-Key": "k"}).status_code == 201
    assert submit(json=STUDY | {"name": "one"}, headers=headers | {"Idempotency-Key": "k"}).status_code == 201
    answer = submit(json=STUDY | {"name": "one"})
    assert (answer.status_code, answer.json()["where"]) == (409, "name")
    for state in (StudyState.QUEUED, StudyState.RUNNING, StudyState.DECIDED):
        if state is not StudyState.QUEUED:
            store.change_state("one", state)
        if state is StudyState.DECIDED:
            submit(json=STUDY | {"name": "two"})
        answer = client.post(resume, headers=headers)
        assert (answer.status_code, answer.json()["where"], answer.json()["given"]) == (
            409,
            "state of study one",
            state,
        )
    assert [entry.action for entry in store.audit.page()] == ["create", "create"]


@pytest.mark.slow
def test_of_many_who_ask_at_once_as_many_get_a_study_as_there_is_room_for(serve, store):
    _, headers = bearer(store)
    names = [f"s{number}" for number in range(12)]
    with serve(open_studies=3) as client, ThreadPoolExecutor(12) as threads:  # one loop for all, as a server has
        ask = partial(client.post, "/v1/studies", headers=headers)
        found = list(threads.map(lambda name: ask(json=STUDY | {"name": name}), names))
    assert sorted(answer.status_code for answer in found) == [201] * 3 + [429] * 9


# The audit


def test_the_audit_is_read_by_an_admin_a_page_at_a_time(serve, store):
    client = serve()
    _, headers = bearer(store, Scope.ADMIN, "root")
    for number in range(5):
        store.audit.note("oidc:ada", "create", f"s{number}", "queued")
    assert client.get("/v1/audit", headers=bearer(store, Scope.TUNE)[1]).status_code == 403
    found, cursor = [], {}
    while True:
        page = client.get("/v1/audit", params={"limit": 2, **cursor}, headers=headers).json()
        found += [entry["target"] for entry in page["entries"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert found == ["s4", "s3", "s2", "s1", "s0"]
    assert client.get("/v1/audit", params={"since": 1e10}, headers=headers).json()["entries"] == []
    assert client.get("/v1/audit", params={"cursor": "x"}, headers=headers).status_code == 422


# Metrics


def test_metrics_want_a_token_where_they_are_not_open(serve, store):
    assert serve().get("/metrics").status_code == 200
    client = serve(metrics_open=False)
    assert client.get("/metrics").status_code == 401
    assert "parlay_store_up" in client.get("/metrics", headers=bearer(store, Scope.READ)[1]).text


@pytest.mark.parametrize(
    ("host", "word", "open_to_all"),
    [
        ("127.0.0.1", None, True),
        ("localhost", None, True),
        ("::1", None, True),
        ("0.0.0.0", None, False),
        ("::", None, False),
        ("parlay.example.com", None, False),
        ("0.0.0.0", "open", True),
        ("127.0.0.1", "token", False),
    ],
)
def test_metrics_are_open_on_a_loopback_address_unless_it_is_said(host, word, open_to_all):
    assert ServeOptions(host=host, metrics=word).metrics_open is open_to_all


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(BadInput, match="--metrics"):
        _ = ServeOptions(metrics="closed").metrics_open
    with pytest.raises(BadInput, match="--metrics"):
        _ = ServeOptions(metrics="token", no_auth=True).metrics_open
    for half in ({"oidc_issuer": "https://x"}, {"oidc_audience": "x"}):
        with pytest.raises(BadInput, match="both, or neither"):
            _ = ServeOptions(**half).issuer
    with pytest.raises(BadInput, match="--no-auth"):
        _ = ServeOptions(oidc_issuer="https://x", oidc_audience="x", no_auth=True).issuer
    assert ServeOptions().issuer is None
    assert ServeOptions(oidc_issuer="https://x", oidc_audience="x").issuer.url == "https://x"


# The file of the store


def test_a_sqlite_store_is_its_owners_alone(tmp_path):
    old = os.umask(0)
    try:
        store = Store(f"sqlite:///{tmp_path}/new.db")
        with store.exclusive():
            store.accounts.create("ci", Scope.READ)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(("new.db", "new.db-wal", "new.db-shm", "new.db.lock"), 0o600)


def test_one_that_exists_stays_as_its_owner_wants_it(tmp_path):
    path = tmp_path / "shared.db"
    Database(f"sqlite:///{path}").close()
    path.chmod(0o660)
    Database(f"sqlite:///{path}").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    Database("sqlite://").close()
