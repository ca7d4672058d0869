"""Statements that several methods of the store share, each inside a transaction of its caller."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from tuner.errors import BadInput, LeaseLost
from tuner.rehearse.conditions import simulated_seed
from tuner.study.database import now_s
from tuner.study.lease import is_gone
from tuner.study.lifecycle import StudyState, illegal, may_become
from tuner.study.records import DriverRecord, Event, OpenTrial, TrialClaim, app_name
from tuner.study.rows import entry_of, open_trial_of
from tuner.study.schema import DRIVERS, EVENTS, LEDGER, ORDERS, STUDIES, TRIALS
from tuner.trial.devices import Placement
from tuner.trial.ledger import Entry, Outcome
from tuner.trial.results import TrialState

STATE_EVENT = "state"  # the kind of event that every change of a study's state leaves


def change_state(
    db: sa.Connection, study: str, state: StudyState, values: dict[str, Any], why: str | None = None
) -> None:
    """Bring a study into a state, and write ``values`` with it; raises BadInput where that is not legal.

    Whoever hears of the state reads ``why`` with it, as its order's problem. It compares and sets in one statement, so
    that nobody else can come between the two.
    """
    legal = (STUDIES.c.name == study) & STUDIES.c.state.in_([before.value for before in may_become(state)])
    before = db.scalar(sa.select(STUDIES.c.state).where(STUDIES.c.name == study))
    if db.execute(sa.update(STUDIES).where(legal).values(state=state.value, **values)).rowcount:
        if why is not None:
            db.execute(sa.update(ORDERS).where(ORDERS.c.study == study).values(problem=why))
        if before != state.value:
            append_event(db, study, STATE_EVENT, {"state": state.value})
        return
    now = db.scalar(sa.select(STUDIES.c.state).where(STUDIES.c.name == study))
    if now is None:
        raise BadInput("STUDY", study, "a study of this store")
    raise illegal(study, StudyState(now), state)


def append_event(db: sa.Connection, study: str, kind: str, data: Mapping[str, Any]) -> Event:
    """Keep an event behind the study's last; the study is locked first, so that each gets a number of its own."""
    lock(db, study)
    last = db.scalar(sa.select(sa.func.max(EVENTS.c.number)).where(EVENTS.c.study == study))
    event = Event(study, (last or 0) + 1, now_s(db), kind, json.dumps(data))
    row = {"study": study, "number": event.number, "at": event.at, "kind": kind, "data": event.data}
    db.execute(sa.insert(EVENTS).values(row))
    return event


def queue_study(db: sa.Connection, study: str, asked: str, order: Mapping[str, Any]) -> None:
    """The rows of a study that begins to wait; ``order`` has the columns that say how it is to be run."""
    at, state = now_s(db), StudyState.QUEUED.value
    row = {"name": study, "created_at": at, "request": asked, "facts": {}, "state": state}
    db.execute(sa.insert(STUDIES).values(row))
    db.execute(sa.insert(ORDERS).values({"study": study, "submitted_at": at, **order}))
    append_event(db, study, STATE_EVENT, {"state": state})


def begin_trial(db: sa.Connection, study: str, number: int, claim: TrialClaim, placement: Placement) -> OpenTrial:
    """The rows of a trial that begins, and of what it will take."""
    lost = (LEDGER.c.study == study) & (LEDGER.c.outcome == Outcome.LOST.value)
    app = app_name(study, number, db.scalar(sa.select(sa.func.count()).where(lost)) or 0)
    row = trial_row(study, number, claim, app, placement)
    entry = {
        "study": study,
        "app": app,
        "layout": str(claim.deployment),
        "outcome": Outcome.RUNNING.value,
        "ordered_s": claim.ordered_s,
        "usd_per_gpu_hour": claim.usd_per_gpu_hour,
        "owner": db.scalar(sa.select(ORDERS.c.owner).where(ORDERS.c.study == study)),
        "began_at": now_s(db),
    }
    db.execute(sa.insert(TRIALS).values(row))
    db.execute(sa.insert(LEDGER).values(entry))
    return open_trial_of(row)


def trial_row(study: str, number: int, claim: TrialClaim, app: str, placement: Placement | None) -> dict[str, Any]:
    """The row of a trial that begins, on the engine of that name."""
    return {
        "study": study,
        "number": number,
        "layout": str(claim.deployment),
        "app": app,
        "log_dir": str(claim.log_root / f"trial-{number:03d}"),
        "state": TrialState.RUNNING.value,
        "started_at": time.time(),
        "purpose": claim.purpose.value,
        "repeat": claim.repeat,
        "driver": claim.driver,
        "placement": None if placement is None else [list(pair) for pair in placement.held],
    }


def close_entry(db: sa.Connection, study: str, app: str, outcome: Outcome, device_s: float | None) -> None:
    """Say what became of a launch, and for how long it held devices, in seconds summed over them."""
    this = (LEDGER.c.study == study) & (LEDGER.c.app == app)
    db.execute(sa.update(LEDGER).where(this).values(outcome=outcome.value, device_s=device_s))


def entries_of(db: sa.Connection, study: str) -> tuple[Entry, ...]:
    """The ledger of a study."""
    return tuple(entry_of(row) for row in db.execute(sa.select(LEDGER).where(LEDGER.c.study == study)).mappings())


def keep_ledger(db: sa.Connection, study: str) -> None:
    """Part a study's ledger from it, before it is forgotten; of a simulated cluster there is nothing to keep.

    The entries stay under a name that no study has.
    """
    facts = db.scalar(sa.select(STUDIES.c.facts).where(STUDIES.c.name == study)) or {}
    if simulated_seed(facts) is None:
        kept = f"{study[:160]}/{uuid4().hex}"
        db.execute(sa.update(LEDGER).where(LEDGER.c.study == study).values(study=kept))


def drivers_of(db: sa.Connection, study: str, now: float) -> tuple[DriverRecord, ...]:
    """All drivers that the study ever had, at a moment of ``now_s``."""
    rows = db.execute(sa.select(DRIVERS).where(DRIVERS.c.study == study)).mappings()
    return tuple(DriverRecord(row["driver"], now - row["seen_at"], row["study_s"]) for row in rows)


def is_free(db: sa.Connection, study: str, now: float, gone: Callable[[str, float | None], bool]) -> bool:
    """Whether nobody drives a study any more; ``gone`` as ``lease.is_gone``."""
    return all(gone(one.driver, one.silent_s) for one in drivers_of(db, study, now))


def first_sign(db: sa.Connection, study: str, worker: str) -> None:
    """A worker's first sign of life."""
    this, seen_at = (DRIVERS.c.study == study) & (DRIVERS.c.driver == worker), now_s(db)
    if not db.execute(sa.update(DRIVERS).where(this).values(seen_at=seen_at)).rowcount:
        db.execute(sa.insert(DRIVERS).values(study=study, driver=worker, seen_at=seen_at, study_s=0.0))


def living_worker(db: sa.Connection, study: str) -> str | None:
    """The worker that has the study in its hands: it runs it, or clears up after it; None: none has, or it is gone."""
    worker = db.scalar(sa.select(ORDERS.c.worker).where(ORDERS.c.study == study))
    found = (one for one in drivers_of(db, study, now_s(db)) if one.driver == worker)
    return next((one.driver for one in found if not is_gone(one.driver, one.silent_s)), None)


def lock(db: sa.Connection, study: str) -> None:
    """Let one driver of the study at a time go on, until its transaction ends."""
    db.execute(sa.update(STUDIES).where(STUDIES.c.name == study).values(name=study))


def require_owner(db: sa.Connection, study: str, number: int, driver: str) -> str:
    """The trial's deployment; raises LeaseLost where the trial is not the driver's."""
    mine = (TRIALS.c.study == study) & (TRIALS.c.number == number) & (TRIALS.c.driver == driver)
    if not db.execute(sa.update(TRIALS).where(mine).values(driver=driver)).rowcount:
        raise LeaseLost(f"trial {number} of {study} was taken over: this process gave no sign of life for too long")
    return str(db.scalar(sa.select(TRIALS.c.app).where(mine)))
