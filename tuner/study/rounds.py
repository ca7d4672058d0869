"""Rounds of a study: the same request decided again, on the cluster and under the load of a later day.

The rounds of ``chat`` are ``chat`` itself, ``chat.r2``, ``chat.r3`` and so on. Of a study with such a name that is no
round of it the number is passed over. All of them are names of studies like others: as files, in URLs, in Ray Serve.
"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from tuner.errors import BadInput
from tuner.study.database import Database
from tuner.study.schema import ROUNDS, STUDIES
from tuner.study.statements import lock

_MOST = 100  # letters of a study's name, as the service takes it


class Rounds:
    """The rounds of all studies, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def take(self, study: str) -> str:
        """Take the name of the next round; the study by that name is then to be queued or created.

        A name that was taken and of which no study came is given again. Raises BadInput for a study that does not
        exist.
        """
        base = self.base_of(study)
        with self._db.writing() as db:
            lock(db, base)
            if db.scalar(sa.select(STUDIES.c.name).where(STUDIES.c.name == base)) is None:
                raise BadInput("STUDY", base, "a study of this store")
            known = {number: name for name, number in _rounds(db, base)}
            last = max(known, default=1)
            if last in known and not _is_there(db, known[last]):
                return known[last]
            number = last + 1
            while _is_there(db, name := round_name(base, number)):
                number += 1
            db.execute(sa.insert(ROUNDS).values(study=name, base=base, number=number))
            return name

    def base_of(self, study: str) -> str:
        """The first round of a study: itself, where it is none of another."""
        with self._db.reading() as db:
            return str(db.scalar(sa.select(ROUNDS.c.base).where(ROUNDS.c.study == study)) or study)

    def of(self, study: str) -> tuple[str, ...]:
        """All rounds of the study's first that there are, that one included, the oldest first."""
        base = self.base_of(study)
        with self._db.reading() as db:
            names = [base, *(name for name, _ in _rounds(db, base))]
            return tuple(name for name in names if _is_there(db, name))


def round_name(base: str, number: int) -> str:
    """What a round is called; a base whose name is too long for one more is cut, and told apart by a digest."""
    end = f".r{number}"
    if len(base) + len(end) > _MOST:
        base = f"{base[: _MOST - len(end) - 9].rstrip('.-_')}-{hashlib.sha256(base.encode()).hexdigest()[:8]}"
    return base + end


def _rounds(db: sa.Connection, base: str) -> list[tuple[str, int]]:
    query = sa.select(ROUNDS.c.study, ROUNDS.c.number).where(ROUNDS.c.base == base).order_by(ROUNDS.c.number)
    return [(str(name), int(number)) for name, number in db.execute(query)]


def _is_there(db: sa.Connection, name: str) -> bool:
    return db.scalar(sa.select(STUDIES.c.name).where(STUDIES.c.name == name)) is not None
