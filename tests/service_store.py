"""A store as a service has it after years: thousands of studies, and one with very many trials."""

from __future__ import annotations

import uuid
from pathlib import Path

import sqlalchemy as sa

from tests.fakes import document
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.ask.request_document import parse_request
from tuner.study.orders import Terms
from tuner.study.schema import EVENTS, LEDGER, ORDERS, STEPS, STUDIES, TRIALS
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

LONG = "long"  # the name of the study with very many trials; it runs, and nobody drives it
TRIALS_OF_LONG = 200
_BATCH = 500


def fill(store: Store, folder: Path, studies: int) -> None:
    """One study is run on a simulated cluster, all others are copies of it; of its first trial, one has 200."""
    request = parse_request(document({"space": "dense", "cluster.gpus_per_node": 8, "budget.launches": 2}))
    store.orders.submit("first", request, Terms("", "simulated", seed=0))
    Worker(store, WorkerSettings(("simulated",), None, folder), CancelHandle()).run(until_idle=True)
    engine = sa.create_engine(store.url)
    with engine.begin() as db:
        found = {table: _rows(db, table) for table in (STUDIES, ORDERS, TRIALS, LEDGER, STEPS, EVENTS)}
        for begun in range(0, studies, _BATCH):
            names = [f"copy-{number}-{uuid.uuid4().hex[:8]}" for number in range(begun, min(begun + _BATCH, studies))]
            for table in (STUDIES, ORDERS, TRIALS, LEDGER, STEPS):
                rows = [_named(table, row, name, number) for number, name in enumerate(names) for row in found[table]]
                db.execute(sa.insert(table), rows)
        db.execute(sa.insert(STUDIES), [{**found[STUDIES][0], "name": LONG, "state": "running", "decision": sa.null()}])
        for table in (ORDERS, EVENTS):
            db.execute(sa.insert(table), [_named(table, row, LONG, 0) for row in found[table]])
        _long(db, found)
    if (
        engine.dialect.name == "sqlite"
    ):  # years do not leave a log as long as the store, which a later write would fold in
        with engine.connect() as db:
            db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()


def _long(db: sa.Connection, found: dict[sa.Table, list[dict[str, object]]]) -> None:
    trial, entry = found[TRIALS][0], found[LEDGER][0]
    steps = [row for row in found[STEPS] if row["trial"] == trial["number"]]
    for number in range(TRIALS_OF_LONG):
        app = f"parlay-{LONG}-{number}"
        row = {**trial, "study": LONG, "number": number, "app": app, "repeat": number}
        db.execute(sa.insert(TRIALS), [row])
        db.execute(sa.insert(LEDGER), [{**entry, "study": LONG, "app": app}])
        db.execute(sa.insert(STEPS), [{**step, "study": LONG, "trial": number} for step in steps])


def _rows(db: sa.Connection, table: sa.Table) -> list[dict[str, object]]:
    column = table.c.name if table is STUDIES else table.c.study
    return [dict(row) for row in db.execute(sa.select(table).where(column == "first")).mappings()]


def _named(table: sa.Table, row: dict[str, object], name: str, number: int) -> dict[str, object]:
    if table is STUDIES:
        return {**row, "name": name, "created_at": float(row["created_at"]) - 60 * number}  # type: ignore[arg-type]
    return {**row, "study": name}
