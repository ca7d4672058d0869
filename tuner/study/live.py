"""What is deployed of watched studies: every deployment that ever was to serve, under a name that none has again."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from tuner.ask.deployment import parse_deployment
from tuner.errors import BadInput
from tuner.retune.live import LiveDeployment, LiveState
from tuner.study.database import Database, now_s
from tuner.study.schema import LIVE, WATCHED
from tuner.study.watched import Claim, require_claim

_RECORD = TypeAdapter(LiveDeployment)
_KEPT = (LiveState.WANTED.value, LiveState.SERVING.value, LiveState.LAST_GOOD.value)
_MOST = 27  # letters before "-d999": with 32 in all there is room for what KubeRay appends to names of objects


class LiveDeployments:
    """The deployments of all watched studies, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def next_name(self, watched: str) -> str:
        """The name of a study's next deployment."""
        with self._db.reading() as db:
            known = db.scalar(sa.select(sa.func.count()).select_from(LIVE).where(LIVE.c.watched == watched)) or 0
        return live_name(watched, known + 1)

    def add(self, live: LiveDeployment, claim: Claim) -> None:
        """Keep one that is deployed already, or is to be; raises BadInput where the name is taken, LeaseLost as
        ``WatchedStudies.beat`` does."""
        with self._db.writing() as db:
            require_claim(db, claim)
            add_live(db, live)

    def change(self, live: LiveDeployment, claim: Claim) -> None:
        """Keep what became of one; raises LeaseLost as ``add`` does."""
        with self._db.writing() as db:
            require_claim(db, claim)
            change_live(db, live)

    def find(self, name: str) -> LiveDeployment | None:
        """One, or None."""
        with self._db.reading() as db:
            found = db.scalar(sa.select(LIVE.c.record).where(LIVE.c.name == name))
        return None if found is None else _read(found)

    def of(self, watched: str) -> tuple[LiveDeployment, ...]:
        """All of a study, the oldest first."""
        with self._db.reading() as db:
            return lives_of(db, watched)


def live_name(watched: str, number: int) -> str:
    """As Kubernetes, Ray Serve, HAProxy and URLs take it; of no two studies the same."""
    plain = re.sub(r"[^a-z0-9]+", "-", watched.lower()).strip("-")
    if plain != watched or len(plain) > _MOST or not plain[:1].isalpha():
        digest = hashlib.sha256(watched.encode()).hexdigest()[:8]
        plain = (
            f"{plain if plain[:1].isalpha() else f'parlay-{plain}'.strip('-')}"[: _MOST - 9].rstrip("-") + f"-{digest}"
        )
    return f"{plain}-d{number}"


def lives_of(db: sa.Connection, watched: str) -> tuple[LiveDeployment, ...]:
    """Those of a study, the oldest first."""
    query = sa.select(LIVE.c.record).where(LIVE.c.watched == watched).order_by(LIVE.c.created_s, LIVE.c.name)
    return tuple(_read(record) for record in db.scalars(query))


def add_live(db: sa.Connection, live: LiveDeployment) -> None:
    """Keep a new one."""
    if db.scalar(sa.select(LIVE.c.name).where(LIVE.c.name == live.name)) is not None:
        raise BadInput("name", live.name, "a name that no deployment ever had")
    db.execute(sa.insert(LIVE).values(name=live.name, watched=live.watched, created_s=live.created_s, **_row(live)))


def change_live(db: sa.Connection, live: LiveDeployment) -> None:
    """Keep what became of one."""
    db.execute(sa.update(LIVE).where(LIVE.c.name == live.name).values(_row(live)))


def deployed(study: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether a study decided what serves, or what a rollback would go to, or is watched: it must not go by itself."""
    kept = sa.exists().where(sa.or_(LIVE.c.study == study, LIVE.c.watched == study), LIVE.c.state.in_(_KEPT))
    return sa.or_(kept, sa.exists().where(WATCHED.c.study == study))


def refuse_deployed(db: sa.Connection, study: str) -> None:
    """Raise BadInput for a study that is watched, or decided what serves of one that is. What is watched no more may
    go, though it serves: whoever said so looks after it."""
    watched = sa.select(WATCHED.c.study)
    mine = sa.or_(LIVE.c.study == study, LIVE.c.watched == study)
    kept = sa.select(LIVE.c.name).where(mine, LIVE.c.state.in_(_KEPT), LIVE.c.watched.in_(watched)).limit(1)
    if db.scalar(kept) is not None or db.scalar(watched.where(WATCHED.c.study == study)) is not None:
        raise BadInput(f"study {study}", "deployed", "one that is not watched, nor decided what is; unwatch it first")


def end_lives(db: sa.Connection, watched: str) -> None:
    """Know nothing more of what serves of a study that goes; names stay taken."""
    for live in lives_of(db, watched):
        if live.state.value in _KEPT:
            change_live(db, replace(live, state=LiveState.ENDED, ended_s=now_s(db)))


def _row(live: LiveDeployment) -> dict[str, Any]:
    record = _RECORD.dump_python(live, mode="json") | {"deployment": str(live.deployment)}
    return {"study": live.study, "state": live.state.value, "record": record}


def _read(record: dict[str, Any]) -> LiveDeployment:
    return _RECORD.validate_python(record | {"deployment": parse_deployment(record["deployment"])})
