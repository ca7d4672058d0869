"""The audit: who asked what of the service, when, and what came of it. Nothing in it is ever changed."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from tuner.study.database import Database, now_s
from tuner.study.schema import AUDIT, TOKENS

COMMAND_LINE = "command line"  # who asks there shows no token: whoever may open the store may do all
RETENTION = "retention"  # a service's own rule for old studies: nobody asked


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who asked what, of what, when (s since 1970), and what came of it. ``name`` is that of the token ``token``, or
    None where that is another account; ``number`` grows from entry to entry."""

    number: int
    at: float
    token: str
    name: str | None
    action: str
    target: str
    outcome: str


class Audit:
    """The audit, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def note(self, token: str, action: str, target: str, outcome: str) -> None:
        """Keep what was asked, and what came of it."""
        with self._db.writing() as db:
            row = {"at": now_s(db), "token": token, "action": action, "target": target[:200], "outcome": outcome}
            db.execute(sa.insert(AUDIT).values(row))

    def page(self, limit: int = 100, since: float | None = None, before: int | None = None) -> tuple[AuditEntry, ...]:
        """The newest ``limit`` entries, the newest first: of those not older than ``since``, in s since 1970, whose
        number is below ``before``."""
        columns = (
            AUDIT.c.id,
            AUDIT.c.at,
            AUDIT.c.token,
            TOKENS.c.name,
            AUDIT.c.action,
            AUDIT.c.target,
            AUDIT.c.outcome,
        )
        query = sa.select(*columns).select_from(AUDIT.outerjoin(TOKENS, TOKENS.c.id == AUDIT.c.token))
        if since is not None:
            query = query.where(AUDIT.c.at >= since)
        if before is not None:
            query = query.where(AUDIT.c.id < before)
        with self._db.reading() as db:
            rows = db.execute(query.order_by(AUDIT.c.id.desc()).limit(limit)).all()
        return tuple(AuditEntry(*row) for row in rows)
