"""The service under what somebody sends who means it no good."""

from __future__ import annotations

import base64

import pytest

from tests.fakes import copy_of_empty_store, document, make_request
from tests.service_app import client_of
from tuner.study.store import Store

JSON = {"content-type": "application/json"}


@pytest.fixture
def store(tmp_path):
    opened = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield opened
    opened.close()


@pytest.fixture
def client(store, tmp_path):
    return client_of(store, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(60)  # it took minutes
@pytest.mark.parametrize("deep", ["[" * 50_000, "{" * 50_000, "- " * 40_000, "a: " + "[" * 33])
def test_nesting_takes_no_time(client, deep):
    answer = client.post("/v1/requests", json={"text": deep})
    assert (answer.status_code, answer.json()["where"]) == (422, "text")


@pytest.mark.parametrize(
    "text", ["a: !!bool x", "a: !!int ''", "a: !!float ''", "a: !!timestamp x", "a: *b", "!!set {a}"]
)
def test_yaml_is_what_json_knows(client, text):
    assert client.post("/v1/requests", json={"text": text}).status_code == 422


@pytest.mark.parametrize(("text", "key"), [("1: 2", "1"), ("null: 1", "null"), ("true: 1", "true")])
def test_keys_are_text(client, text, key):
    assert list(client.post("/v1/requests", json={"text": text}).json()["document"]) == [key]


@pytest.mark.parametrize("value", [r'"\ud800"', "NaN", "Infinity", "-Infinity", '{"\\udfff": 1}'])
@pytest.mark.parametrize(
    ("path", "key"), [("/v1/plans", "request"), ("/v1/studies", "request"), ("/v1/requests", "document")]
)
def test_what_no_json_says_is_refused(client, path, key, value):
    answer = client.post(path, content=f'{{"{key}": {{"model": {value}}}}}', headers=JSON)
    assert answer.status_code == 422


def test_half_a_character_outside_of_the_request_is_refused(client):
    assert client.post("/v1/plans", content=r'{"\ud800": 1}', headers=JSON).status_code == 422


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example:8080"}, 421),
        ({"host": "127.0.0.1@evil.example"}, 421),
        ({"host": "[::1"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:9090"}, 403),
        ({"origin": "http://localhost:8080"}, 200),
        ({"host": "127.0.0.1:5"}, 200),
        ({"host": "[::1]:5"}, 200),
    ],
)
def test_a_service_without_tokens_is_asked_by_its_own_machine_alone(client, headers, status):
    answer = client.get("/v1/studies", headers=headers)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_fault_is_counted_and_carries_security_headers(client, store, monkeypatch):
    def broken(*_):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(store.listing, "page", broken)
    answer = client.get("/v1/studies")
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (500, "nosniff")
    assert "secret" not in answer.text
    assert 'parlay_api_requests_total{method="GET",route="/v1/studies",status="500"} 1.0' in client.get("/metrics").text


@pytest.mark.slow
@pytest.mark.parametrize(
    "space",
    [
        {axis: list(range(1, 300)) for axis in ("tp", "pp", "dp")},
        {axis: list(range(1, 2000)) for axis in ("max_num_batched_tokens", "max_num_seqs")},
    ],
)
@pytest.mark.parametrize("path", ["/v1/plans", "/v1/studies"])
def test_a_space_that_would_take_minutes_is_refused(client, path, space):
    answer = client.post(path, json={"request": document({"space": space})})
    assert (answer.status_code, answer.json().get("where")) == (422, "request: space")


def test_of_a_log_its_last_bytes_are_read(client, store, tmp_path):
    store.create_study("s", make_request(), {})
    folder = tmp_path / "out" / "s" / "logs" / "trial-000"
    folder.mkdir(parents=True)
    (folder / "engine.log").write_bytes(b"x" * 5_000_000 + b"\nlast\n")
    answer = client.get("/v1/studies/s/trials/0/log")
    assert answer.text.endswith("\nlast\n")
    assert len(answer.content) < 2_100_000
    assert client.get(f"/v1/studies/s/trials/{'9' * 400}/log").status_code == 422


def test_a_cursor_with_half_a_character_is_refused(client):
    cursor = base64.urlsafe_b64encode(rb'[1, "\ud800"]').decode()
    assert client.get("/v1/studies", params={"cursor": cursor}).status_code == 422


def test_a_simulation_is_no_larger_than_somebody_waits_for(client):
    wanted = {"request": document({"cluster.nodes": 10**6}), "layout": "tp=8,dp=100000"}
    assert client.post("/v1/simulations", json=wanted).json()["where"] == "layout"
    long = document({"workload.prompt_tokens.mean": 100_000, "engine": {"max_model_len": 120_000}})
    answer = client.post("/v1/simulations", json={"request": long, "layout": "tp=1", "requests": 20_000})
    assert (answer.status_code, answer.json()["where"]) == (422, "requests")
    assert client.post("/v1/simulations", json={**wanted, "rate_req_per_s": 1e9}).status_code == 422


def test_the_url_of_a_store_is_no_word_of_a_worker():
    from pathlib import Path

    from tuner.app.service.options import ServeOptions
    from tuner.app.service.run import _worker_words

    options = ServeOptions(out=Path("out"), store="postgresql+psycopg://me:secret@db/parlay")
    assert not [word for word in _worker_words(options, 0) if "secret" in word]


def test_what_was_asked_before_is_answered_at_the_limit_too(store, tmp_path):
    client = client_of(store, tmp_path, open_studies=1)
    key = {"Idempotency-Key": "ticket"}
    made = [client.post("/v1/studies", json={"request": document()}, headers=key).status_code for _ in range(2)]
    assert made == [201, 201]
    assert [entry.action for entry in store.audit.page()] == ["create"]
    assert client.post("/v1/studies", json={"request": document(), "name": "other"}).status_code == 429
