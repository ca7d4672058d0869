"""Which earlier studies are akin to one, found by an index: a store may hold thousands that are not."""

from __future__ import annotations

import json

import sqlalchemy as sa

from tuner.ask.request import TuneRequest
from tuner.search.warm_start import kin_of
from tuner.study.database import Database
from tuner.study.schema import STUDIES

_AT_ONCE = 1000


class Kinship:
    """Studies by kin, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def earlier(self, study: str, most: int) -> tuple[str, ...]:
        """The newest decided studies that are akin to one and began before it, the newest first.

        Of those of an older Parlay, whose kin nobody has looked at yet, the newest are looked at first, once.
        """
        self._fill(study)
        with self._db.reading() as db:
            own = sa.select(STUDIES.c.kin, STUDIES.c.created_at).where(STUDIES.c.name == study)
            kin, created_at = db.execute(own).one()
            same = (STUDIES.c.kin == kin) & (STUDIES.c.created_at < created_at) & STUDIES.c.decision.is_not(None)
            query = sa.select(STUDIES.c.name).where(same).order_by(STUDIES.c.created_at.desc()).limit(most)
            return tuple(db.scalars(query))

    def _fill(self, study: str) -> None:
        unknown = STUDIES.c.kin.is_(None) & (STUDIES.c.decision.is_not(None) | (STUDIES.c.name == study))
        query = sa.select(STUDIES.c.name, STUDIES.c.request, STUDIES.c.facts).where(unknown)
        with self._db.reading() as db:
            rows = db.execute(query.order_by(STUDIES.c.created_at.desc()).limit(_AT_ONCE)).all()
        if rows:
            named = sa.update(STUDIES).where(STUDIES.c.name == sa.bindparam("of")).values(kin=sa.bindparam("its"))
            with self._db.writing() as db:
                db.execute(named, [{"of": name, "its": _kin(request, facts)} for name, request, facts in rows])


def _kin(request: str, facts: dict[str, str]) -> str:
    try:
        return kin_of(TuneRequest.model_validate_json(request), facts)
    except ValueError:  # of an older Parlay, and not to be read any more
        return f"unreadable {json.dumps(facts)}"[:64]
