"""What may be forgotten of a study, and how."""

from __future__ import annotations

import sqlalchemy as sa

from tuner.errors import BadInput
from tuner.study.lifecycle import StudyState
from tuner.study.live import end_lives, refuse_deployed
from tuner.study.rollouts import end_open
from tuner.study.schema import OF_A_STUDY, PINS, STUDIES
from tuner.study.statements import keep_ledger, living_worker, lock


def forget(db: sa.Connection, name: str, *, pinned_too: bool) -> None:
    """Forget a study, as ``Store.delete_study`` promises."""
    lock(db, name)
    state = db.scalar(sa.select(STUDIES.c.state).where(STUDIES.c.name == name))
    if state in (StudyState.QUEUED, StudyState.RUNNING):
        raise BadInput(f"state of study {name}", state, "deletion of one that has ended; cancel it first")
    if (worker := living_worker(db, name)) is not None:
        raise BadInput(f"worker of study {name}", worker, "none any more: it still clears up; ask again soon")
    if not pinned_too and db.scalar(sa.select(PINS.c.study).where(PINS.c.study == name)) is not None:
        raise BadInput(f"study {name}", "pinned", "one that is not")
    refuse_deployed(db, name)
    end_open(db, name, "its study was deleted")
    end_lives(db, name)
    keep_ledger(db, name)
    for table in OF_A_STUDY:
        db.execute(sa.delete(table).where(table.c.study == name))
    db.execute(sa.delete(STUDIES).where(STUDIES.c.name == name))
