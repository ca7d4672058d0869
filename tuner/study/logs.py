"""The end of each trial's logs, for those who ask on another machine than the one that ran it."""

from __future__ import annotations

import sqlalchemy as sa

from tuner.study.database import Database, now_s
from tuner.study.schema import LOGS, STUDIES

MOST_BYTES = 64 * 1024  # of one trial, kept here; its files have all of it


class Logs:
    """Ends of logs, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def keep(self, study: str, trial: int, text: str) -> None:
        """Keep the last ``MOST_BYTES`` of a trial's log in place of what was kept before; nothing of a study that is
        gone."""
        kept = text.replace("\0", "").encode("utf-8", errors="replace")[-MOST_BYTES:].decode("utf-8", errors="ignore")
        this = (LOGS.c.study == study) & (LOGS.c.trial == trial)
        with self._db.writing() as db:
            values = {"at": now_s(db), "text": kept}
            if db.execute(sa.update(LOGS).where(this).values(values)).rowcount:
                return
            if db.scalar(sa.select(STUDIES.c.name).where(STUDIES.c.name == study)) is not None:
                db.execute(sa.insert(LOGS).values(study=study, trial=trial, **values))

    def find(self, study: str, trial: int) -> str | None:
        """What was kept of a trial's log; None where nothing was."""
        with self._db.reading() as db:
            return db.scalar(sa.select(LOGS.c.text).where(LOGS.c.study == study, LOGS.c.trial == trial))
