"""Studies that ended long ago: archived or deleted by rule, put back as they were, and never one that is pinned."""

from __future__ import annotations

import json
import threading

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tests.fakes import copy_of_empty_store, make_request
from tests.service_app import STUDY, client_of, work
from tuner.app.cli.commands import app
from tuner.app.service import retention
from tuner.app.service.retention import Rule, tidy, tidying, unpack
from tuner.errors import BadInput, Cause
from tuner.study.audit import COMMAND_LINE, RETENTION
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Terms, Wish
from tuner.study.schema import EVENTS, LEDGER, STUDIES
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle
from tuner.trial.ledger import Outcome


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


def cancelled(store, name):
    store.orders.submit(name, make_request(), Terms("", "simulated", 0))
    store.orders.ask(name, Wish.CANCEL)


def aged(store, name, days):
    with sa.create_engine(store.url).begin() as db:
        for table, column, key in ((STUDIES, "created_at", "name"), (EVENTS, "at", "study")):
            older = {column: table.c[column] - 86_400 * days}
            db.execute(sa.update(table).where(table.c[key] == name).values(older))


def test_what_ended_long_ago_goes_and_nothing_else(store):
    for name in ("old", "pinned", "new"):
        cancelled(store, name)
    for name in ("waits", "paused"):
        store.orders.submit(name, make_request(), Terms("", "simulated", 0))
    store.orders.ask("paused", Wish.PAUSE)
    for name in ("old", "pinned", "waits", "paused"):
        aged(store, name, 40)
    store.archive.pin("pinned")
    store.archive.pin("pinned")
    assert store.archive.pinned() == ("pinned",)
    assert tidy(store, Rule(30, None, frozenset({"old"}))) == []  # its winner is deployed
    assert tidy(store, Rule(30, None)) == [("old", "deleted")]
    assert tidy(store, Rule(30, None)) == []
    (entry,) = store.audit.page()
    assert (entry.token, entry.action, entry.target) == (RETENTION, "delete", "old")
    assert set(store.study_names()) == {"pinned", "new", "waits", "paused"}
    store.archive.unpin("pinned")
    assert tidy(store, Rule(30, None)) == [("pinned", "deleted")]
    with pytest.raises(BadInput):
        store.archive.pin("old")


def test_one_that_is_resumed_while_the_rule_looks_stays(store, monkeypatch, tmp_path):
    cancelled(store, "s")
    aged(store, "s", 40)
    document = store.archive.document

    def resumed_meanwhile(name):
        store.orders.resume("s")
        return document(name)

    monkeypatch.setattr(store.archive, "document", resumed_meanwhile)
    assert tidy(store, Rule(30, tmp_path)) == []
    assert store.listing.state("s") is StudyState.QUEUED


def test_one_that_is_pinned_while_the_rule_looks_stays(store, monkeypatch, tmp_path):
    cancelled(store, "s")
    aged(store, "s", 40)
    document = store.archive.document

    def pinned_meanwhile(name):
        store.archive.pin("s")
        return document(name)

    monkeypatch.setattr(store.archive, "document", pinned_meanwhile)
    assert tidy(store, Rule(30, tmp_path)) == []
    assert store.archive.pinned() == ("s",)
    store.delete_study("s")  # by name, whoever asks for it means it


def launched(store, name, began_at):
    cancelled(store, name)
    row = {"study": name, "app": f"parlay-{name}-0", "layout": "tp=1", "outcome": Outcome.ENDED.value}
    with sa.create_engine(store.url).begin() as db:
        db.execute(sa.insert(LEDGER).values(row | {"ordered_s": 1.0, "device_s": began_at, "began_at": began_at}))
    aged(store, name, 40)


def test_of_two_that_had_one_name_each_comes_back_with_its_own_launches(store, tmp_path):
    launched(store, "s", 100.0)
    tidy(store, Rule(30, tmp_path))
    launched(store, "s", 200.0)
    store.delete_study("s")
    (file,) = tmp_path.glob("*.tar.gz")
    store.archive.restore(unpack(file))
    assert [entry.device_s for entry in store.ledger("s")] == [100.0]
    assert store.spending.totals()[Outcome.ENDED].device_s == 300.0


def test_one_that_was_put_back_is_not_taken_again_at_once(store, tmp_path):
    cancelled(store, "s")
    aged(store, "s", 40)
    tidy(store, Rule(30, tmp_path))
    (file,) = tmp_path.glob("*.tar.gz")
    store.archive.restore(unpack(file))
    assert tidy(store, Rule(30, None)) == []
    assert store.archive.pinned() == ("s",)


def test_a_file_that_broke_off_is_no_archive(store, tmp_path):
    cancelled(store, "s")
    file = retention.pack(store.archive.document("s"), tmp_path)
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:40] + bytes(20) + whole[60:]):
        file.write_bytes(broken)
        with pytest.raises(BadInput, match="an archive of a study"):
            unpack(file)


@pytest.mark.slow
def test_a_study_comes_back_from_its_archive_as_it_was(store, tmp_path):
    store.orders.submit("s", make_request({"budget.launches": 2}), Terms("me", "simulated", 3, 5), "key")
    assert work(store, tmp_path) == 1
    store.logs.keep("s", 0, "log of the first\n")
    before = (store.snapshot("s").trials, store.decision("s"), store.events.after("s", 0), store.orders.order("s"))
    totals = store.spending.totals()
    aged(store, "s", 2)
    whole = store.archive.document("s")
    ((name, what),) = tidy(store, Rule(1, tmp_path / "old"))
    assert store.find_study("s") is None
    (file,) = (tmp_path / "old").iterdir()
    assert (name, what) == ("s", f"archived to {file}")
    assert unpack(file) == json.loads(json.dumps(whole))
    assert store.archive.restore(unpack(file)) == "s"
    assert store.archive.document("s") == whole
    after = (store.snapshot("s").trials, store.decision("s"), store.events.after("s", 0), store.orders.order("s"))
    assert after[0] == before[0]
    assert after[1] == before[1]
    assert [event.data for event in after[2]] == [event.data for event in before[2]]
    assert after[3] == before[3]
    assert store.logs.find("s", 0) == "log of the first\n"
    assert store.spending.totals() == totals
    with pytest.raises(BadInput, match="whose name this store does not have"):
        store.archive.restore(unpack(file))
    with pytest.raises(BadInput, match="schema version"):
        store.archive.restore({**whole, "schema_version": 1})


@pytest.mark.slow
def test_two_processes_do_it_one_after_the_other(store, tmp_path):
    for number in range(5):
        cancelled(store, f"s{number}")
        aged(store, f"s{number}", 40)
    done = []

    def run():
        mine = Store(store.url)
        done.append(tidy(mine, Rule(30, tmp_path)))
        mine.close()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for found in done for name, _ in found) == [f"s{number}" for number in range(5)]
    assert len(list(tmp_path.glob("*.tar.gz"))) == 5


@pytest.mark.slow
def test_a_service_does_it_by_itself_and_goes_on_where_it_cannot(tmp_path, monkeypatch):
    store, stop, told = Store(copy_of_empty_store(tmp_path / "store.db")), CancelHandle(), []
    cancelled(store, "s")
    aged(store, "s", 40)
    (tmp_path / "taken").write_text("no folder")
    monkeypatch.setattr(retention, "EVERY_S", 0.01)
    with tidying(store, Rule(30, tmp_path / "taken"), stop, told.append):
        while not told:
            pass
        (tmp_path / "taken").unlink()
        while store.find_study("s") is not None or "is archived" not in told[-1]:
            pass
        stop.cancel(Cause.SHUTDOWN)
    assert told[0].startswith("parlay: old studies stay for now")
    store.close()


def test_the_rule_is_refused_where_it_says_nothing(tmp_path):
    assert Rule.of(None, None) is None
    for days, folder in ((None, tmp_path), (-1, None), (float("nan"), None), (1e9, None)):
        with pytest.raises(BadInput):
            Rule.of(days, folder)


@pytest.mark.slow
def test_the_commands_and_the_routes(tmp_path, monkeypatch):
    url = copy_of_empty_store(tmp_path / "store.db")
    monkeypatch.setenv("PARLAY_STORE", url)
    store = Store(url)
    client = client_of(store, tmp_path)
    client.post("/v1/studies", json={**STUDY, "name": "s"})
    client.post("/v1/studies/s/cancel")
    assert client.post("/v1/studies/s/pin").json()["pinned"] is True
    aged(store, "s", 40)
    run = CliRunner().invoke
    words = ["studies", "prune", "--keep-days", "30", "--archive-to", str(tmp_path / "old"), "--json"]
    assert json.loads(run(app, words).stdout) == []
    assert client.delete("/v1/studies/s/pin").json()["pinned"] is False
    assert run(app, ["studies", "pin", "s"]).exit_code == 0
    assert client.get("/v1/studies/s").json()["pinned"] is True
    assert run(app, ["studies", "unpin", "s"]).exit_code == 0
    with sa.create_engine(url).begin() as db:
        db.execute(sa.delete(EVENTS))
    assert json.loads(run(app, [*words, "--dry-run"]).stdout) == [{"study": "s", "outcome": "old"}]
    assert run(app, words[:-1]).stdout.startswith("s: archived to ")
    assert client.get("/v1/studies/s").status_code == 404
    assert client.post("/v1/studies/s/pin").status_code == 404
    (file,) = (tmp_path / "old").iterdir()
    assert run(app, ["studies", "restore", str(file)]).exit_code == 0
    assert client.get("/v1/studies/s").json()["state"] == "cancelled"
    done = [entry.action for entry in store.audit.page() if entry.token == COMMAND_LINE]
    assert done == ["restore", "archive", "unpin", "pin"]
    store.close()
