"""A store that cannot be reached for a while: it is waited for, and no study fails of it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import sqlalchemy as sa

from tests.postgres import new_database
from tests.service_process import essence, launched_twice, submit, undisturbed
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.errors import StoreError
from tuner.study.database import Database
from tuner.study.lifecycle import StudyState
from tuner.study.orders import MOST_DEATHS
from tuner.study.patience import Patience
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

AWAY = sa.exc.OperationalError("SELECT 1", {}, Exception("connection refused"))


def failing(times):
    left = iter(range(times))

    def get():
        if next(left, None) is not None:
            raise AWAY
        return "there"

    return get


def test_it_is_tried_again_until_patience_ends_and_then_once_each_time(monkeypatch):
    clock = count(0, 10.0)
    patience = Patience(25.0, clock=lambda: next(clock))
    monkeypatch.setattr(patience._hurried, "wait", lambda seconds: None)
    assert patience.having(failing(2), sa.exc.DBAPIError) == "there"
    tries = failing(9)
    for _ in range(2):
        with pytest.raises(sa.exc.OperationalError):
            patience.having(tries, sa.exc.DBAPIError)
    with pytest.raises(sa.exc.OperationalError):  # four tries in the first call, one in each of those after it
        patience.having(failing(1), sa.exc.DBAPIError)
    assert patience.having(failing(0), sa.exc.DBAPIError) == "there"
    assert patience.having(failing(2), sa.exc.DBAPIError) == "there"  # it was there in between


def test_whoever_is_in_a_hurry_does_not_wait():
    patience = Patience(1e6)
    patience.hurry()
    with pytest.raises(sa.exc.OperationalError):
        patience.having(failing(1), sa.exc.DBAPIError)


class Outage:
    """The store goes away at a deed of a study, for so long."""

    def __init__(self, monkeypatch, at, seconds):
        self.at, self.seconds, self.until, self.begins = at, seconds, 0.0, 0
        begun = Database._begun_to_write

        def begin(database):
            self.begins += 1
            if self.begins == self.at:
                self.until = time.monotonic() + self.seconds
            if time.monotonic() < self.until:
                raise AWAY
            return begun(database)

        monkeypatch.setattr(Database, "_begun_to_write", begin)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), 1, 3)["study-0"]


@pytest.mark.slow
@pytest.mark.parametrize("patience_s", [0.0, 30.0], ids=["gives back", "waits"])
@pytest.mark.parametrize("at", [8, 15, 30])
def test_a_study_whose_store_goes_away_ends_as_an_undisturbed_one(tmp_path, monkeypatch, expected, at, patience_s):
    store = Store(f"sqlite:///{tmp_path}/store.db", patience_s)
    submit(store, 1, 3)
    monkeypatch.setattr("tuner.app.service.worker.POLL_S", 0.05)
    outage = Outage(monkeypatch, at, 0.7)
    worker = Worker(store, WorkerSettings(("simulated",), None, tmp_path / "out"), CancelHandle())
    worker.run(until_idle=True)
    assert outage.begins > at
    found = store.snapshot("study-0")
    assert essence(store, "study-0") == expected
    assert launched_twice(found) == []
    assert store.orders.order("study-0").worker == ""
    assert (tmp_path / "out" / "study-0" / "decision.json").exists()
    states = [event.data for event in store.events.after("study-0", 0) if event.kind == "state"]
    assert not any("failed" in state for state in states)
    store.close()


def test_a_study_that_never_gets_on_is_not_tried_for_ever(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    submit(store, 1, 1)
    for number in range(MOST_DEATHS):
        assert store.orders.claim(f"w{number}", ("simulated",), lambda *_: True).study == "study-0"
        store.orders.try_again("study-0", f"w{number}", lambda *_: True, "the store is away")
    assert store.listing.state("study-0") is StudyState.FAILED
    assert "the store is away" in store.orders.order("study-0").problem
    store.close()


@pytest.mark.slow
def test_a_postgresql_that_lets_nobody_in_for_a_while(postgres):
    postgres.psql("CREATE DATABASE away")
    url = postgres.get_uri().replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", "/away?")
    store, impatient = Store(url, patience_s=30.0), Store(url)
    submit(store, 1, 1)
    postgres.psql("ALTER DATABASE away WITH ALLOW_CONNECTIONS false")
    postgres.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'away'")
    with pytest.raises(StoreError):
        impatient.listing.counts()
    back = threading.Timer(1.0, postgres.psql, ["ALTER DATABASE away WITH ALLOW_CONNECTIONS true"])
    back.start()
    began = time.monotonic()
    assert store.listing.state("study-0") is StudyState.QUEUED
    assert time.monotonic() - began > 0.5
    back.join()
    with store.exclusive():
        assert impatient.listing.state("study-0") is StudyState.QUEUED
    store.close()
    impatient.close()


@pytest.mark.slow
def test_many_that_keep_each_other_out_leave_connections_for_the_one_whose_turn_it_is(postgres):
    store = Store(new_database(postgres, "turns"))

    def one(number):
        with store.exclusive():
            return store.listing.counts()[StudyState.QUEUED]

    with ThreadPoolExecutor(30) as threads:
        assert list(threads.map(one, range(30))) == [0] * 30
    store.close()


@pytest.mark.slow
def test_who_has_the_turn_keeps_no_transaction_open(postgres):
    url = new_database(postgres, "idle")
    store, engine = Store(url), sa.create_engine(url)
    query = sa.text("SELECT state FROM pg_stat_activity WHERE datname = 'idle' AND pid <> pg_backend_pid()")
    with store.exclusive(), engine.connect() as db:
        assert "idle in transaction" not in set(db.scalars(query))
    engine.dispose()
    store.close()
