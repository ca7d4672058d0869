"""Studies as lines of a list, a page at a time: cheap however many there are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tuner.study.database import Database, now_s
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Order, Wish, order_of
from tuner.study.schema import EVENTS, ORDERS, PINS, STUDIES, TRIALS


@dataclass(frozen=True, slots=True)
class StudyLine:
    """One study; ``created_at`` in s since 1970, ``owner`` and ``priority`` None for one of the command line."""

    name: str
    created_at: float
    state: StudyState
    model: str
    objective: str
    trials: int
    owner: str | None
    priority: int | None


@dataclass(frozen=True, slots=True)
class StudyHead:
    """One study without its long parts; ``candidates`` and ``kept`` None until it was planned, ``order`` of one of the
    command line. ``last_event`` is 0 where none was told yet."""

    name: str
    created_at: float
    state: StudyState
    request: dict[str, Any]
    facts: dict[str, str]
    candidates: int | None
    kept: int | None
    trials: int
    last_event: int
    pinned: bool
    order: Order | None


@dataclass(frozen=True, slots=True)
class OrderedStudy:
    """A queued study as those see it who look often: ``last_event`` grows whenever anything happens to it; ``cluster``
    is that whose workers alone may run it."""

    name: str
    state: StudyState
    wish: Wish | None
    problem: str | None
    last_event: int
    pinned: bool = False
    cluster: str | None = None


_OPEN = (StudyState.QUEUED, StudyState.RUNNING, StudyState.PAUSED)
Place = tuple[float, str]  # of a line: when it was made, and its name


def _head_query() -> sa.Select[Any]:
    trials = sa.select(sa.func.count()).where(TRIALS.c.study == _STUDY).scalar_subquery()
    last = sa.select(sa.func.max(EVENTS.c.number)).where(EVENTS.c.study == _STUDY).scalar_subquery()
    pinned = sa.select(PINS.c.at).where(PINS.c.study == _STUDY).scalar_subquery()
    names = ("name", "created_at", "state", "request", "facts", "candidates_total", "kept")
    told = (trials.label("trials"), last.label("last_event"), pinned.label("pinned"))
    return sa.select(*(STUDIES.c[name] for name in names), *told).where(STUDIES.c.name == _STUDY)


def _ordered_query() -> sa.Select[Any]:
    last = sa.select(sa.func.max(EVENTS.c.number)).where(EVENTS.c.study == STUDIES.c.name).scalar_subquery()
    pinned = sa.exists().where(PINS.c.study == STUDIES.c.name)
    told = (last.label("last_event"), pinned.label("pinned"))
    asked = (ORDERS.c.wish, ORDERS.c.problem, ORDERS.c.cluster)
    query = sa.select(STUDIES.c.name, STUDIES.c.state, *asked, *told)
    query = query.join(ORDERS, ORDERS.c.study == STUDIES.c.name).order_by(STUDIES.c.name)
    query = query.where(ORDERS.c.owner.like(sa.bindparam("owners"), escape="/"))
    return query.where(STUDIES.c.name.like(sa.bindparam("names"), escape="/"))


def _stirred_query() -> sa.Select[Any]:
    new = sa.exists().where(EVENTS.c.study == STUDIES.c.name, EVENTS.c.at > sa.bindparam("since"))
    return _ORDERED.where(STUDIES.c.state.in_([state.value for state in _OPEN]) | new)


def _beginning(word: str) -> str:
    """The pattern of all that begins so."""
    return re.sub("[/%_]", r"/\g<0>", word) + "%"


# What is read for every answer is put together once: that takes as long as the reading.
_STUDY = sa.bindparam("study", type_=sa.String)
_HEAD = _head_query()
_ORDER = sa.select(ORDERS).where(ORDERS.c.study == _STUDY)
_STATE = sa.select(STUDIES.c.state).where(STUDIES.c.name == _STUDY)
_ORDERED = _ordered_query()
_STIRRED = _stirred_query()


class Listing:
    """Lists the studies of the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def page(
        self, states: Sequence[StudyState] = (), after: Place | None = None, limit: int = 50
    ) -> tuple[StudyLine, ...]:
        """The newest first, of these states (none given: all), beginning behind the line at that place."""
        trials = sa.select(sa.func.count()).where(TRIALS.c.study == STUDIES.c.name).scalar_subquery()
        columns = (STUDIES.c.name, STUDIES.c.created_at, STUDIES.c.state, STUDIES.c.request)
        query = sa.select(*columns, trials.label("trials"), ORDERS.c.owner, ORDERS.c.priority)
        query = query.join(ORDERS, ORDERS.c.study == STUDIES.c.name, isouter=True)
        if states:
            query = query.where(STUDIES.c.state.in_([state.value for state in states]))
        if after is not None:
            at, name = after
            older = STUDIES.c.created_at < at
            query = query.where(older | ((STUDIES.c.created_at == at) & (STUDIES.c.name > name)))
        query = query.order_by(STUDIES.c.created_at.desc(), STUDIES.c.name).limit(limit)
        with self._db.reading() as db:
            return tuple(_line_of(row) for row in db.execute(query).mappings())

    def head(self, study: str) -> StudyHead | None:
        """One study; None where there is none."""
        with self._db.reading() as db:
            row = db.execute(_HEAD, {"study": study}).mappings().first()
            order = db.execute(_ORDER, {"study": study}).mappings().first()
        if row is None:
            return None
        return StudyHead(
            name=row["name"],
            created_at=row["created_at"],
            state=StudyState(row["state"]),
            request=json.loads(row["request"]),
            facts=row["facts"],
            candidates=row["candidates_total"],
            kept=row["kept"],
            trials=row["trials"],
            last_event=row["last_event"] or 0,
            pinned=row["pinned"] is not None,
            order=None if order is None else order_of(order),
        )

    def ordered(self, owners: str, names: str = "", since_s: float | None = None) -> tuple[OrderedStudy, ...]:
        """The queued studies whose owners, and whose names, begin with these words.

        With ``since_s``, of those that have ended only where something happened in the last so many seconds.
        """
        given: dict[str, Any] = {"owners": _beginning(owners), "names": _beginning(names)}
        with self._db.reading() as db:
            if since_s is None:
                rows = db.execute(_ORDERED, given).mappings().all()
            else:
                rows = db.execute(_STIRRED, {**given, "since": now_s(db) - since_s}).mappings().all()
        return tuple(_ordered(row) for row in rows)

    def state(self, study: str) -> StudyState | None:
        """The state of a study, without all else that is known of it; None where there is none."""
        with self._db.reading() as db:
            found = db.scalar(_STATE, {"study": study})
        return None if found is None else StudyState(found)

    def counts(self) -> dict[StudyState, int]:
        """How many studies are in each state."""
        query = sa.select(STUDIES.c.state, sa.func.count()).group_by(STUDIES.c.state)
        with self._db.reading() as db:
            found = {str(state): int(count) for state, count in db.execute(query)}
        return {state: found.get(state.value, 0) for state in StudyState}


def _ordered(row: sa.RowMapping) -> OrderedStudy:
    wish = Wish(row["wish"]) if row["wish"] else None
    last, pinned = row["last_event"] or 0, bool(row["pinned"])
    return OrderedStudy(row["name"], StudyState(row["state"]), wish, row["problem"], last, pinned, row["cluster"])


def _line_of(row: sa.RowMapping) -> StudyLine:
    asked = json.loads(row["request"])
    return StudyLine(
        name=row["name"],
        created_at=row["created_at"],
        state=StudyState(row["state"]),
        model=str(asked["model"]),
        objective=str(asked["objective"]),
        trials=row["trials"],
        owner=row["owner"],
        priority=row["priority"],
    )
