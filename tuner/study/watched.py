"""Which studies' deployments are watched, by whom, and what their watcher has to remember.

One process acts on what is deployed of a study: whoever has claimed it, while it gives signs of life. Each claim has a
number of its own, and all that a watcher writes names it: one that was thought dead, and another took over from, is
refused with LeaseLost from then on. What humans ask needs no claim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tuner.errors import BadInput, LeaseLost
from tuner.retune.policy import RetunePolicy
from tuner.study.database import Database, now_s
from tuner.study.schema import STUDIES, WATCHED
from tuner.study.statements import lock

Gone = Callable[[str, float | None], bool]  # as ``lease.is_gone``


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to act on what is deployed of a study, of one process."""

    study: str
    watcher: str
    token: int


@dataclass(frozen=True, slots=True)
class Watched:
    """A watched study: the first round's name, since when (s since 1970), what is allowed, and where it serves.

    ``site`` says which kind of place, and how it is reached; ``watcher`` is empty while nobody watches, ``silent_s``
    the seconds since its last sign of life; ``memory`` is the watcher's own.
    """

    study: str
    since_s: float
    policy: RetunePolicy
    site: Mapping[str, Any]
    paused: bool
    watcher: str
    silent_s: float
    memory: Mapping[str, Any] = field(default_factory=dict)


class WatchedStudies:
    """The watched studies, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def watch(self, study: str, policy: RetunePolicy, site: Mapping[str, Any]) -> Watched:
        """Have a study watched, or change what is allowed; where it serves stays as it was first said.

        Raises BadInput for a study that does not exist, and for another place.
        """
        allowed = policy.model_dump(mode="json")
        with self._db.writing() as db:
            lock(db, study)
            if db.scalar(sa.select(STUDIES.c.name).where(STUDIES.c.name == study)) is None:
                raise BadInput("STUDY", study, "a study of this store")
            row = db.execute(sa.select(WATCHED).where(WATCHED.c.study == study)).mappings().first()
            if row is None:
                first = {"study": study, "since": now_s(db), "policy": allowed, "site": dict(site), "memory": {}}
                db.execute(sa.insert(WATCHED).values(**first))
            elif row["site"] != dict(site):
                raise BadInput("site", dict(site), f"{row['site']}, where {study} serves; unwatch it first")
            else:
                db.execute(sa.update(WATCHED).where(WATCHED.c.study == study).values(policy=allowed))
        return self.watched(study)

    def unwatch(self, study: str) -> None:
        """Watch it no more, and have its watcher stop; what serves goes on serving."""
        with self._db.writing() as db:
            db.execute(sa.delete(WATCHED).where(WATCHED.c.study == study))

    def find(self, study: str) -> Watched | None:
        """A watched study, or None."""
        return next((one for one in self._read(WATCHED.c.study == study)), None)

    def watched(self, study: str) -> Watched:
        """A watched study; raises BadInput for one that is not."""
        found = self.find(study)
        if found is None:
            raise BadInput("STUDY", study, "a study that is watched: " + (", ".join(self.names()) or "(there is none)"))
        return found

    def all(self) -> tuple[Watched, ...]:
        """All of them, the oldest first."""
        return self._read(sa.true())

    def names(self) -> tuple[str, ...]:
        """Their names alone."""
        with self._db.reading() as db:
            return tuple(db.scalars(sa.select(WATCHED.c.study).order_by(WATCHED.c.since, WATCHED.c.study)))

    def claim(self, study: str, watcher: str, gone: Gone) -> Claim | None:
        """Become the watcher of a study; None where another is alive. Again, by the same watcher, a new claim.

        Raises BadInput as ``watched`` does.
        """
        with self._db.writing() as db:
            this = WATCHED.c.study == study
            db.execute(sa.update(WATCHED).where(this).values(study=study))  # of several that claim one is the first
            row = db.execute(sa.select(WATCHED).where(this)).mappings().first()
            if row is not None:
                now, other = now_s(db), row["watcher"]
                if other not in ("", watcher) and not gone(other, now - row["seen_at"]):
                    return None
                values = {"watcher": watcher, "token": row["token"] + 1, "seen_at": now}
                db.execute(sa.update(WATCHED).where(this).values(values))
                return Claim(study, watcher, row["token"] + 1)
        self.watched(study)
        return None

    def beat(self, claim: Claim) -> None:
        """The watcher's sign of life; raises LeaseLost where the claim is another's by now."""
        with self._db.writing() as db:
            require_claim(db, claim)
            db.execute(sa.update(WATCHED).where(WATCHED.c.study == claim.study).values(seen_at=now_s(db)))

    def leave(self, claim: Claim) -> None:
        """Say that the watcher stops: another may go on at once. Nothing where it is another's by now."""
        with self._db.writing() as db:
            db.execute(sa.update(WATCHED).where(_held(claim)).values(watcher="", seen_at=0.0))

    def remember(self, claim: Claim, memory: Mapping[str, Any]) -> None:
        """Keep what the watcher has to know after a kill, as JSON; raises LeaseLost as ``beat`` does."""
        with self._db.writing() as db:
            require_claim(db, claim)
            db.execute(sa.update(WATCHED).where(WATCHED.c.study == claim.study).values(memory=dict(memory)))

    def pause(self, study: str, paused: bool = True) -> None:
        """Have nothing of a study begin or go on, or let it; raises BadInput as ``watched`` does."""
        with self._db.writing() as db:
            found = db.execute(sa.update(WATCHED).where(WATCHED.c.study == study).values(paused=paused)).rowcount
        if not found:
            self.watched(study)

    def _read(self, which: sa.ColumnElement[bool]) -> tuple[Watched, ...]:
        with self._db.reading() as db:
            query = sa.select(WATCHED).where(which).order_by(WATCHED.c.since, WATCHED.c.study)
            rows, now = db.execute(query).mappings().all(), now_s(db)
        return tuple(
            Watched(
                study=row["study"],
                since_s=row["since"],
                policy=RetunePolicy.model_validate(row["policy"]),
                site=row["site"],
                paused=row["paused"],
                watcher=row["watcher"],
                silent_s=now - row["seen_at"],
                memory=row["memory"],
            )
            for row in rows
        )


def require_claim(db: sa.Connection, claim: Claim) -> None:
    """Raise LeaseLost unless the claim is the study's last; the study is its watcher's to the transaction's end."""
    if not db.execute(sa.update(WATCHED).where(_held(claim)).values(token=claim.token)).rowcount:
        raise LeaseLost(f"{claim.study} is watched by another process by now, or not any more")


def _held(claim: Claim) -> sa.ColumnElement[bool]:
    return (WATCHED.c.study == claim.study) & (WATCHED.c.watcher == claim.watcher) & (WATCHED.c.token == claim.token)
