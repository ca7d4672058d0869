"""Studies that have ended long ago: which they are, all that is known of one as a document, and back.

A study that is pinned, is watched, or decided what serves now, is never among them.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tuner.errors import BadInput, StoreError
from tuner.study.archived import ENDED, FORMAT, read_archive
from tuner.study.database import Database, now_s
from tuner.study.live import deployed
from tuner.study.schema import (
    DRIVERS,
    EVENTS,
    LEDGER,
    LOGS,
    ORDERS,
    PINS,
    ROUNDS,
    SCHEMA_VERSION,
    STEPS,
    STUDIES,
    TRIALS,
)
from tuner.study.statements import lock

# In the order in which they can be put back.
_PARTS = (STUDIES, ORDERS, TRIALS, STEPS, LEDGER, DRIVERS, EVENTS, LOGS, ROUNDS)


class Archive:
    """Old studies, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def pin(self, study: str) -> None:
        """Keep a study whatever the rule; nothing where it is pinned. Raises BadInput for one that does not exist."""
        with self._db.writing() as db:
            lock(db, study)  # a rule that deletes it meanwhile has done so before, or leaves it
            if db.scalar(sa.select(STUDIES.c.name).where(STUDIES.c.name == study)) is None:
                raise BadInput("STUDY", study, "a study of this store")
            if db.scalar(sa.select(PINS.c.study).where(PINS.c.study == study)) is None:
                db.execute(sa.insert(PINS).values(study=study, at=now_s(db)))

    def unpin(self, study: str) -> None:
        """Let the rule have a study again; nothing where it was not pinned."""
        with self._db.writing() as db:
            db.execute(sa.delete(PINS).where(PINS.c.study == study))

    def pinned(self) -> tuple[str, ...]:
        """All that are pinned."""
        with self._db.reading() as db:
            return tuple(db.scalars(sa.select(PINS.c.study).order_by(PINS.c.study)))

    def older(self, days: float, limit: int) -> tuple[str, ...]:
        """Studies that ended more than so many days ago, in which nothing has happened since; the oldest first."""
        with self._db.reading() as db:
            before = now_s(db) - 86_400 * days
            stirred = sa.exists().where(EVENTS.c.study == STUDIES.c.name, EVENTS.c.at >= before)
            pinned = sa.exists().where(PINS.c.study == STUDIES.c.name)
            held = sa.exists().where(ORDERS.c.study == STUDIES.c.name, ORDERS.c.worker != "")
            old = STUDIES.c.state.in_(ENDED) & (STUDIES.c.created_at < before)
            query = sa.select(STUDIES.c.name).where(old, ~stirred, ~pinned, ~held, ~deployed(STUDIES.c.name))
            return tuple(db.scalars(query.order_by(STUDIES.c.created_at, STUDIES.c.name).limit(limit)))

    def document(self, study: str) -> dict[str, Any]:
        """All that the store knows of a study, as JSON has it; raises BadInput for one that does not exist."""
        with self._db.reading() as db:
            tables = {table.name: _rows(db, table, study) for table in _PARTS}
        if not tables[STUDIES.name]:
            raise BadInput("STUDY", study, "a study of this store")
        return {"format": FORMAT, "schema_version": SCHEMA_VERSION, "study": study, "tables": tables}

    def restore(self, document: dict[str, Any]) -> str:
        """Put a study back as it was, and pin it, as the rule would take it again at once; its name.

        Raises BadInput for what is no such document, as ``read_archive`` does, and where the name is taken.
        """
        study, tables = read_archive(document, _PARTS)
        try:
            with self._db.writing() as db:
                for table in _PARTS:
                    for row in tables[table.name]:
                        if table is not LEDGER or not _taken_back(db, study, row):
                            known = {name: value for name, value in row.items() if value is not None}
                            db.execute(sa.insert(table).values(known))
                db.execute(sa.insert(PINS).values(study=study, at=now_s(db)))
        except StoreError as error:
            if isinstance(error.__context__, sa.exc.IntegrityError):
                raise BadInput("archive", study, "a study whose name this store does not have, nor its key") from None
            raise
        return study


def _rows(db: sa.Connection, table: sa.Table, study: str) -> list[dict[str, Any]]:
    column = table.c.name if table is STUDIES else table.c.study
    query = sa.select(table).where(column == study).order_by(*table.primary_key.columns)
    return [dict(row) for row in db.execute(query).mappings()]


def _taken_back(db: sa.Connection, study: str, row: dict[str, Any]) -> bool:
    """Whether what a launch took is still in the accounts, parted from its study as ``keep_ledger`` does; another study
    that has had the name since may have left launches there that are called the same."""
    same = (LEDGER.c[name].is_not_distinct_from(row[name]) for name in ("app", "began_at", "ordered_s"))
    kept = sa.and_(LEDGER.c.study.startswith(f"{study[:160]}/", autoescape=True), *same)
    return bool(db.execute(sa.update(LEDGER).where(kept).values(study=study)).rowcount)
