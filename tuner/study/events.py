"""What happened in a study, in order, for those who watch; kept, so that who comes late or comes back misses none.

An event is told once, has a number within its study from 1, and is JSON. What is only worth knowing at the moment (the
meter's line, twice a second) is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from tuner.study.database import Database
from tuner.study.records import Event
from tuner.study.schema import EVENTS
from tuner.study.statements import append_event

BELIEVED = "believed"  # the kind of event that says what the search believes
# Put together once: they are read many times a second.
_AFTER = sa.select(EVENTS).order_by(EVENTS.c.number)
_AFTER = _AFTER.where(EVENTS.c.study == sa.bindparam("study"), EVENTS.c.number > sa.bindparam("after"))
_LATEST = sa.select(EVENTS.c.study, sa.func.max(EVENTS.c.number)).group_by(EVENTS.c.study)
_LATEST = _LATEST.where(EVENTS.c.study.in_(sa.bindparam("studies", expanding=True)))


class Events:
    """The events of all studies, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def tell(self, study: str, kind: str, data: Mapping[str, Any]) -> Event:
        """Keep one; several processes may tell of one study at once."""
        with self._db.writing() as db:
            return append_event(db, study, kind, data)

    def after(self, study: str, number: int, limit: int = 1000) -> tuple[Event, ...]:
        """Those that came after the one of that number, oldest first."""
        with self._db.reading() as db:
            rows = db.execute(_AFTER.limit(limit), {"study": study, "after": number}).mappings().all()
        return tuple(Event(**row) for row in rows)

    def latest(self, studies: Iterable[str]) -> dict[str, int]:
        """The number of each study's last event, of those that have any."""
        names: Sequence[str] = list(studies)
        with self._db.reading() as db:
            return {study: int(number) for study, number in db.execute(_LATEST, {"studies": names})}

    def of_kinds(self, study: str, kinds: Iterable[str], most: int) -> tuple[Event, ...]:
        """The last of these kinds, the oldest first."""
        query = sa.select(EVENTS).where(EVENTS.c.study == study, EVENTS.c.kind.in_(list(kinds)))
        with self._db.reading() as db:
            rows = db.execute(query.order_by(EVENTS.c.number.desc()).limit(most)).mappings().all()
        return tuple(Event(**row) for row in reversed(rows))

    def last(self, study: str, kind: str) -> Event | None:
        """The last event of a kind; None where there was none."""
        query = sa.select(EVENTS).where(EVENTS.c.study == study, EVENTS.c.kind == kind)
        with self._db.reading() as db:
            row = db.execute(query.order_by(EVENTS.c.number.desc()).limit(1)).mappings().first()
        return None if row is None else Event(**row)
