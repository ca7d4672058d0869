"""The workers of a store: what each may run, which clusters it sees, and what it does now.

A worker gives signs of life as a driver does, under a name of its own; who has given none for a day is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from tuner.study.database import Database, now_s
from tuner.study.lease import is_gone
from tuner.study.schema import WORKERS

_FORGOTTEN_S = 86_400.0


@dataclass(frozen=True, slots=True)
class SeenCluster:
    """What a worker's launcher runs on: the cluster's name and its node groups as a request has them (None: not known),
    or the ``problem`` that it sees none."""

    launcher: str
    cluster: str | None = None
    groups: tuple[dict[str, Any], ...] | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker; ``started_at`` in s since 1970, ``silent_s`` since its last sign of life, ``study`` what it runs."""

    id: str
    started_at: float
    silent_s: float
    launchers: tuple[str, ...]
    clusters: tuple[SeenCluster, ...]
    study: str | None

    @property
    def alive(self) -> bool:
        """False where it can no longer be at work."""
        return not is_gone(self.id, self.silent_s)


class Workers:
    """The workers, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def beat(
        self, worker: str, launchers: Sequence[str], clusters: Sequence[SeenCluster], study: str | None = None
    ) -> None:
        """A worker's sign of life, and what there is to tell of it."""
        with self._db.writing() as db:
            now = now_s(db)
            told = {"launchers": list(launchers), "clusters": [asdict(one) for one in clusters]}
            values = {"seen_at": now, "study": study, **told}
            if db.execute(sa.update(WORKERS).where(WORKERS.c.id == worker).values(values)).rowcount:
                return
            db.execute(sa.delete(WORKERS).where(WORKERS.c.seen_at < now - _FORGOTTEN_S))
            db.execute(sa.insert(WORKERS).values(id=worker, started_at=now, **values))

    def leave(self, worker: str) -> None:
        """Say that a worker ends."""
        with self._db.writing() as db:
            db.execute(sa.delete(WORKERS).where(WORKERS.c.id == worker))

    def all(self) -> tuple[WorkerRecord, ...]:
        """Those that have not been forgotten, the oldest first; some may be dead."""
        with self._db.reading() as db:
            now = now_s(db)
            rows = db.execute(sa.select(WORKERS).order_by(WORKERS.c.started_at, WORKERS.c.id)).mappings().all()
        return tuple(
            WorkerRecord(
                id=row["id"],
                started_at=row["started_at"],
                silent_s=now - row["seen_at"],
                launchers=tuple(row["launchers"]),
                clusters=tuple(_seen(one) for one in row["clusters"]),
                study=row["study"],
            )
            for row in rows
        )

    def ray_groups(self) -> tuple[dict[str, Any], ...] | None:
        """The node groups of the Ray cluster that the worker sees which was started last; None where none sees one."""
        seen = (one for worker in reversed(self.all()) if worker.alive for one in worker.clusters)
        return next((one.groups for one in seen if one.launcher == "ray" and one.groups), None)


def _seen(told: dict[str, Any]) -> SeenCluster:
    groups = told["groups"]
    return SeenCluster(**{**told, "groups": None if groups is None else tuple(groups)})
