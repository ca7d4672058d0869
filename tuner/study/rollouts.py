"""Rollouts of watched studies, each step stored before it is done.

A rollout is changed by its watcher, who needs the claim, and by what humans ask. Each change names the state that it
changes: of two that come at once the second finds another, changes nothing, and looks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from tuner.errors import BadInput
from tuner.retune.live import LiveDeployment
from tuner.retune.rollout import ENDS, Rollout, Step, Wish
from tuner.retune.wishes import heeded
from tuner.study.database import Database, now_s
from tuner.study.live import add_live, change_live, end_lives, lives_of
from tuner.study.schema import CANARIES, ROLLOUTS
from tuner.study.statements import append_event, lock
from tuner.study.watched import Claim, require_claim

ROLLOUT_EVENT = "rollout"  # the kind of event of the watched study that every change of a step leaves
_RECORD = TypeAdapter(Rollout)


class Rollouts:
    """The rollouts of all watched studies, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def begin(self, rollout: Rollout, new: LiveDeployment, claim: Claim) -> Rollout:
        """Keep a new one with the deployment that comes in; it gets the study's next number.

        Raises BadInput where one is under way, or the deployment's name is taken; LeaseLost as ``WatchedStudies.beat``.
        """
        with self._db.writing() as db:
            lock(db, rollout.watched)
            require_claim(db, claim)
            open_now = _newest(db, rollout.watched)
            if open_now is not None and open_now.step not in ENDS:
                where = f"rollout of {rollout.watched}"
                raise BadInput(where, rollout.new, f"one at a time: {open_now.number} is {open_now.step.value}")
            numbered = replace(rollout, number=1 if open_now is None else open_now.number + 1)
            add_live(db, new)
            key = {"watched": numbered.watched, "number": numbered.number}
            db.execute(sa.insert(ROLLOUTS).values(**key, **_row(numbered)))
            _tell(db, numbered)
        return numbered

    def move(self, before: Rollout, after: Rollout, lives: Sequence[LiveDeployment], claim: Claim) -> bool:
        """Keep its next step, and what becomes of deployments with it; False, and nothing is kept, where it is not
        ``before`` any more. Raises LeaseLost as ``begin`` does."""
        with self._db.writing() as db:
            lock(db, before.watched)
            require_claim(db, claim)
            if _get(db, before.watched, before.number) != before:
                return False
            _keep(db, after)
            for live in lives:
                change_live(db, live)
            _tell(db, after)
            return True

    def wish(self, watched: str, number: int, wish: Wish) -> Rollout:
        """What a human asks of one; raises BadInput where there is none, or it comes too late."""
        with self._db.writing() as db:
            lock(db, watched)
            found = _get(db, watched, number)
            if found is None:
                raise BadInput("rollout", f"{number} of {watched}", "one that was begun")
            after = heeded(found, wish, now_s(db))
            _keep(db, after)
            append_event(db, watched, ROLLOUT_EVENT, _said(after) | {"wish": wish.value})
        return after

    def let_go(self, watched: str, claim: Claim, why: str) -> None:
        """Know nothing more of what serves, or was to: it is a human's by now. Raises LeaseLost as ``begin`` does."""
        with self._db.writing() as db:
            lock(db, watched)
            require_claim(db, claim)
            if (ended := end_open(db, watched, why)) is not None:
                _tell(db, ended)
            end_lives(db, watched)

    def open(self, watched: str) -> Rollout | None:
        """The one under way, or None."""
        with self._db.reading() as db:
            found = _newest(db, watched)
        return None if found is None or found.step in ENDS else found

    def get(self, watched: str, number: int) -> Rollout:
        """One of them; raises BadInput where there is none."""
        with self._db.reading() as db:
            found = _get(db, watched, number)
        if found is None:
            raise BadInput("rollout", f"{number} of {watched}", "one that was begun")
        return found

    def of(self, watched: str) -> tuple[Rollout, ...]:
        """All of a study, the newest first."""
        query = sa.select(ROLLOUTS.c.record).where(ROLLOUTS.c.watched == watched).order_by(ROLLOUTS.c.number.desc())
        with self._db.reading() as db:
            return tuple(_read(record) for record in db.scalars(query))

    def vetoed(self, watched: str) -> frozenset[str]:
        """Layouts that a human does not want again, as they print."""
        names = {one.new for one in self.of(watched) if one.wish is Wish.VETO}
        with self._db.reading() as db:
            return frozenset(str(live.deployment) for live in lives_of(db, watched) if live.name in names)

    def add_look(self, rollout: Rollout, look: dict[str, Any], claim: Claim) -> None:
        """Keep what was seen of both sides under its canary since the look before, as JSON."""
        this = (CANARIES.c.watched == rollout.watched) & (CANARIES.c.rollout == rollout.number)
        with self._db.writing() as db:
            require_claim(db, claim)
            last = db.scalar(sa.select(sa.func.max(CANARIES.c.number)).where(this)) or 0
            key = {"watched": rollout.watched, "rollout": rollout.number, "number": last + 1}
            db.execute(sa.insert(CANARIES).values(**key, look=look))

    def looks(self, rollout: Rollout) -> tuple[dict[str, Any], ...]:
        """What was seen under its canary, look by look."""
        this = (CANARIES.c.watched == rollout.watched) & (CANARIES.c.rollout == rollout.number)
        with self._db.reading() as db:
            return tuple(db.scalars(sa.select(CANARIES.c.look).where(this).order_by(CANARIES.c.number)))


def end_open(db: sa.Connection, watched: str, why: str) -> Rollout | None:
    """End the one that is under way where nobody is to go on with it; None where none is."""
    found = _newest(db, watched)
    if found is None or found.step in ENDS:
        return None
    ended = replace(found, step=Step.FAILED, step_since_s=now_s(db), outcome=why)
    _keep(db, ended)
    return ended


def _keep(db: sa.Connection, rollout: Rollout) -> None:
    """Keep what became of it; with the study's row locked, as all who change a rollout do."""
    this = (ROLLOUTS.c.watched == rollout.watched) & (ROLLOUTS.c.number == rollout.number)
    db.execute(sa.update(ROLLOUTS).where(this).values(_row(rollout)))


def _newest(db: sa.Connection, watched: str) -> Rollout | None:
    query = sa.select(ROLLOUTS.c.record).where(ROLLOUTS.c.watched == watched).order_by(ROLLOUTS.c.number.desc())
    found = db.scalar(query.limit(1))
    return None if found is None else _read(found)


def _get(db: sa.Connection, watched: str, number: int) -> Rollout | None:
    this = (ROLLOUTS.c.watched == watched) & (ROLLOUTS.c.number == number)
    found = db.scalar(sa.select(ROLLOUTS.c.record).where(this))
    return None if found is None else _read(found)


def _tell(db: sa.Connection, rollout: Rollout) -> None:
    append_event(db, rollout.watched, ROLLOUT_EVENT, _said(rollout))


def _said(rollout: Rollout) -> dict[str, Any]:
    return {
        name: value for name, value in asdict(rollout).items() if name not in ("watched", "began_s", "step_since_s")
    }


def _row(rollout: Rollout) -> dict[str, Any]:
    return {"step": rollout.step.value, "record": _RECORD.dump_python(rollout, mode="json")}


def _read(record: dict[str, Any]) -> Rollout:
    return _RECORD.validate_python(record)
