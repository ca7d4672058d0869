"""A database of an older version is brought up to date when it is opened, and nothing that it knew is lost.

``tests/data/store_v1.sql`` and ``store_v2.sql`` were written by the versions that they are named after.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from tests.world import TP1_DP2, TP2, TP2_DP2
from tuner.app.wiring import decision_of
from tuner.errors import FailureReason, StoreError
from tuner.study.lease import is_gone
from tuner.study.lifecycle import StudyState
from tuner.study.migrations import upgrade
from tuner.study.schema import META, SCHEMA_VERSION
from tuner.study.store import Store
from tuner.trial.ledger import Outcome
from tuner.trial.results import TrialState

DATA = Path(__file__).parents[1] / "data"
OPTUNAS = "SELECT version_num FROM alembic_version"


def rows(url, query):
    with sa.create_engine(url).connect() as db:
        return [tuple(row) for row in db.exec_driver_sql(query)]


def written(url, statements):
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    with sa.create_engine(url).begin() as db:
        for statement in statements.split(";\n"):
            if statement.strip():
                db.exec_driver_sql(statement if db.dialect.name == "sqlite" else statement.replace("%", "%%"))


@pytest.fixture
def old(url):
    """Make the database of that version; its URL."""

    def make(version):
        written(url, (DATA / f"store_v{version}.sql").read_text())
        return url

    return make


def test_a_store_of_the_version_before_loses_nothing(old):
    store = Store(url := old(2))
    assert set(store.study_names()) == {"decided", "stopped", "killed"}
    record = store.study("decided")
    assert record.facts == {"vllm": "0.29.0", "machine": "x86_64"}
    assert record.request.budget.launches == 3
    assert len(record.ranked) == 4
    assert record.decided
    found = store.snapshot("decided")
    assert [(str(t.layout), t.state, t.failure, len(t.steps)) for t in found.trials] == [
        (TP2_DP2, TrialState.MEASURED, None, 2),
        (TP1_DP2, TrialState.FAILED, FailureReason.ENGINE_CRASHED, 0),
        (TP2, TrialState.MEASURED, None, 2),
    ]
    assert [(t.seconds, t.device_s, t.ready_after_s) for t in found.trials] == [
        (80.0, 320.0, 1.5), (0.0, 0.0, None), (80.0, 160.0, 1.5),
    ]  # fmt: skip
    decision, ended = decision_of(store, record)
    ((kept,),) = rows(url, "SELECT decision FROM parlay_studies WHERE name = 'decided'")
    assert ended
    assert str(decision.winner.layout) == TP2_DP2
    assert decision.why == (json.loads(kept) if isinstance(kept, str) else kept)["why"]
    assert rows(url, OPTUNAS) == [("v3.2.0.a",)]


def test_states_and_the_account_come_of_what_was_known(old):
    store = Store(old(2))
    states = {name: store.study(name).state for name in store.study_names()}
    assert states == {
        "decided": StudyState.DECIDED, "stopped": StudyState.CANCELLED, "killed": StudyState.RUNNING,
    }  # fmt: skip
    spent = decision_of(store, store.study("decided"))[0].spent
    assert (spent.launches, spent.lost, spent.minutes) == (3, 1, 4.0)
    assert spent.gpu_hours == pytest.approx((320 + 160 + 320) / 3600)  # the last: of a trial that a killed driver lost
    assert spent.usd == pytest.approx(spent.gpu_hours * 3)
    assert {e.outcome: e.device_s for e in store.ledger("stopped") if e.outcome is Outcome.LOST} == {Outcome.LOST: 160}
    (running,) = [entry for entry in store.ledger("killed") if entry.outcome is Outcome.RUNNING]
    assert (running.app, running.ordered_s, running.device_s) == ("parlay-killed-2", 80.0, None)


def test_when_a_launch_began_is_said_by_its_trial_and_nobody_queued_it(old):
    Store(url := old(2)).close()
    began = "SELECT t.started_at - l.began_at, l.owner FROM parlay_ledger l JOIN parlay_trials t ON t.app = l.app"
    found = rows(url, began)
    assert len(found) > 3
    assert set(found) == {(0.0, None)}
    gone = "SELECT count(*) FROM parlay_ledger WHERE began_at IS NULL AND outcome <> 'lost'"
    assert rows(url, gone) == [(0,)]


@pytest.mark.slow
def test_a_store_of_version_1_loses_nothing(old):
    store = Store(url := old(1))
    assert str(store.decision("decided").winner.layout) == TP2_DP2
    assert store.study("stopped").state is StudyState.RUNNING
    trials = store.snapshot("decided").trials
    assert [(str(t.layout), t.repeat, t.seconds, t.device_s, len(t.steps)) for t in trials] == [
        (TP2_DP2, 0, 80.0, 320.0, 2), (TP1_DP2, 0, 0.0, 0.0, 0),
    ]  # fmt: skip
    spent = decision_of(store, store.study("decided"))[0].spent
    assert (spent.launches, spent.minutes) == (2, pytest.approx(80 / 60))
    assert [trial.app for trial in store.take_over("stopped", "me", is_gone)] == ["parlay-stopped-1"]
    assert rows(url, OPTUNAS) == [("v3.2.0.a",)]


@pytest.mark.slow
@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_upgraded_tables_are_those_of_a_new_store(url, old, version):
    if version:
        Store(old(version)).close()
    else:
        written(url, "")
        with sa.create_engine(url).begin() as db:
            upgrade(db, 0)
    with sa.create_engine(url).connect() as db:
        options = {"include_name": lambda name, kind, _: kind != "table" or name in META.tables}
        assert compare_metadata(MigrationContext.configure(db, opts=options), META) == []


@pytest.mark.slow
def test_a_failed_upgrade_changes_nothing(old):
    url = old(2)
    before = rows(url, "SELECT * FROM parlay_trials ORDER BY study, number")
    written(url, "CREATE TABLE parlay_ledger (study INTEGER)")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(url)
    assert rows(url, "SELECT version FROM parlay_schema") == [(2,)]
    assert rows(url, "SELECT * FROM parlay_trials ORDER BY study, number") == before
    written(url, "DROP TABLE parlay_ledger")
    assert len(Store(url).snapshot("decided").trials) == 3


def test_a_store_of_a_newer_version_is_left_alone(url):
    Store(url).close()
    written(url, f"UPDATE parlay_schema SET version = {SCHEMA_VERSION + 1}")
    with pytest.raises(
        StoreError, match=f"schema version {SCHEMA_VERSION + 1}, this Parlay knows up to {SCHEMA_VERSION}"
    ):
        Store(url)
    assert rows(url, "SELECT version FROM parlay_schema") == [(SCHEMA_VERSION + 1,)]


@pytest.mark.slow
def test_several_processes_may_open_an_old_store_at_once(old):
    url = old(2)
    code = "import sys; from tuner.study.store import Store; print(len(Store(sys.argv[1]).snapshot('decided').entries))"
    opened = [
        subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=120) for process in opened] == [("4\n", "")] * 3


@pytest.mark.slow
def test_only_an_old_store_needs_alembic(tmp_path):
    url = f"sqlite:///{tmp_path}/store.db"
    code = "import sys; from tuner.study.store import Store; Store(sys.argv[1]); print('alembic' in sys.modules)"
    for _ in ("new", "up to date"):
        done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"
