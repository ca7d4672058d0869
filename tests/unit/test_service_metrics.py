"""What Prometheus sees of the service: that it lives, how the queue stands, and what its store takes."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial

import pytest

from tests.fakes import copy_of_empty_store, make_request
from tests.service_app import STUDY, client_of
from tuner.app.service.metrics import ServiceMetrics
from tuner.app.service.watching import Watchers
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.app.tune.telemetry import Telemetry
from tuner.errors import StoreError
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle


@pytest.fixture
def store(tmp_path):
    opened = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield opened
    opened.close()


@pytest.fixture
def serve(store, tmp_path):
    return partial(client_of, store, tmp_path)


def test_it_says_that_it_lives_can_work_and_how_it_stands(serve):
    client = serve()
    client.post("/v1/studies", json=STUDY)
    assert client.get("/readyz").json() == {"status": "ok"}
    assert client.get("/v1/version").json()["api"] == "v1"
    text = client.get("/metrics").text
    assert 'parlay_studies{state="queued"} 1.0' in text
    assert 'parlay_api_requests_total{method="POST",route="/v1/studies",status="201"} 1.0' in text


@pytest.mark.slow
def test_workers_are_counted_by_what_they_do(serve, store, monkeypatch):
    assert [samples(serve())[f'parlay_workers{{state="{state}"}}'] for state in ("idle", "busy", "silent")] == [0, 0, 0]
    store.workers.beat("idle/1/1.a", ("simulated",), ())
    store.workers.beat("busy/1/1.a", ("simulated",), (), "s")
    store.workers.beat("gone/1/1.a", ("simulated",), ())
    monkeypatch.setattr("tuner.study.workers.is_gone", lambda worker, silent_s: worker.startswith("gone"))
    assert [samples(serve())[f'parlay_workers{{state="{state}"}}'] for state in ("idle", "busy", "silent")] == [1, 1, 1]


@pytest.mark.slow
def test_a_worker_shows_the_figures_of_its_last_study_and_no_other(serve, store, tmp_path):
    client, telemetry = serve(), Telemetry()
    for name in ("first", "second"):
        client.post("/v1/studies", json=STUDY | {"name": name})
    settings = WorkerSettings(("simulated",), None, tmp_path / "out")
    assert Worker(store, settings, CancelHandle(), telemetry).run(until_idle=True) == 2
    studies = {s.labels["study"]: s.name for metric in telemetry.registry.collect() for s in metric.samples}
    assert set(studies) == {"second"}
    assert telemetry.registry.get_sample_value("parlay_kept_candidates", {"study": "second"}) > 0


def samples(client):
    """What a scrape shows: by name and labels, as Prometheus writes them."""
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_scrape_shows_what_a_running_study_has_spent_and_how_much_of_its_budget_that_is(serve, store):
    client = serve()
    assert "parlay_study_launches" not in str(samples(client))
    client.post("/v1/studies", json=STUDY | {"name": "s"})
    store.orders.claim("here/1/1.a", ("simulated",), lambda *_: False)
    store.beat("s", "here/1/1.a", 60.0)
    found = samples(serve())
    assert found['parlay_study_seconds{study="s"}'] == 60.0
    assert found['parlay_study_budget_used_ratio{part="minutes",study="s"}'] == pytest.approx(1 / 60)
    assert found['parlay_worker_silence_seconds{study="s"}'] < 5
    assert found['parlay_launches_total{outcome="ended"}'] == 0.0


def test_a_store_that_does_not_answer_is_a_figure_and_not_a_failing_scrape(serve, store, monkeypatch):
    def broken():
        raise StoreError("gone")

    client = serve()
    monkeypatch.setattr(store.listing, "counts", broken)
    found = samples(client)
    assert found["parlay_store_up"] == 0.0
    assert not [name for name in found if name.startswith(("parlay_studies", "parlay_queue"))]
    assert client.get("/readyz").status_code == 503
    assert samples(client)['parlay_api_requests_total{method="GET",route="/readyz",status="503"}'] == 1.0


def test_transactions_of_the_store_are_counted_and_those_that_fail(serve, store, tmp_path):
    client = serve()
    before = samples(client)
    client.get("/v1/studies")
    (tmp_path / "store.db").unlink()
    with sqlite3.connect(tmp_path / "store.db") as empty:
        empty.execute("CREATE TABLE other (x)")
    store._db._engine.dispose()
    assert client.get("/v1/studies").status_code == 503
    after = samples(client)
    count = 'parlay_store_transaction_seconds_count{kind="read"}'
    assert after[count] >= before[count] + 2
    assert before['parlay_store_failures_total{kind="read"}'] == 0
    assert after['parlay_store_failures_total{kind="read"}'] >= 1


def test_a_name_that_is_taken_is_no_failure_of_the_store(serve, store):
    client = serve()
    assert [client.post("/v1/studies", json=STUDY | {"name": "s"}).status_code for _ in range(2)] == [201, 409]
    assert samples(client)['parlay_store_failures_total{kind="write"}'] == 0


def test_a_method_that_nobody_knows_makes_no_label_of_its_own(serve):
    client = serve()
    for method in ("BREW", "WHEN"):
        client.request(method, "/v1/studies")
    assert samples(client)['parlay_api_requests_total{method="other",route="/v1/studies",status="405"}'] == 2.0


@pytest.mark.slow
def test_who_listens_is_counted_and_how_late_he_hears_what_happens_while_he_does(store):
    metrics = ServiceMetrics(store)
    store.create_study("s", make_request(), {})
    for number in range(3):
        store.events.tell("s", "old", {"n": number})  # history says nothing of how late anybody is

    async def listen():
        watchers = Watchers(store, 5, metrics.events)
        heard, events = [], watchers.events("s", 0)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:

            async def hear():
                async for event in events:
                    heard.append(event)
                    if event is not None and event.kind == "last":
                        return

            task = group.create_task(hear())
            while len(heard) < 3:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert metrics.registry.get_sample_value("parlay_event_listeners") == 1.0
            store.events.tell("s", "last", {})
            await task
        await events.aclose()
        watchers.close()

    asyncio.run(listen())
    assert metrics.registry.get_sample_value("parlay_event_listeners") == 0.0
    assert metrics.registry.get_sample_value("parlay_event_lag_seconds_count") == 1.0
    assert 0 <= metrics.registry.get_sample_value("parlay_event_lag_seconds_sum") < 5
