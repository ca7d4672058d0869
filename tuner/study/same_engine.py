"""Trials that follow each other on one engine: they share its name, its devices and its entry in the ledger.

The first of them launched it; each other one changed settings of the path to it in place, and began the moment the one
before it ended. A launch is an entry of the ledger, so the account counts one, which ends with the last of them.
"""

from __future__ import annotations

import sqlalchemy as sa

from tuner.errors import FailureReason
from tuner.study.device_leases import give_back
from tuner.study.records import OpenTrial, TrialClaim
from tuner.study.rows import open_trial_of
from tuner.study.schema import TRIALS
from tuner.study.statements import close_entry, lock, require_owner, trial_row
from tuner.trial.devices import Placement
from tuner.trial.ledger import Outcome
from tuner.trial.results import TrialResult


def finish(db: sa.Connection, study: str, result: TrialResult, driver: str) -> None:
    """A trial has ended, and its engine with it. Raises LeaseLost where the trial is another driver's."""
    app = _ended(db, study, result, driver)
    before_s = _seconds_before(db, study, app, result.number)
    lost = result.failure is FailureReason.CANCELLED and before_s is None
    own_s, devices = result.device_s, result.deployment.devices
    device_s = own_s if own_s is None or before_s is None else own_s + devices * before_s
    close_entry(db, study, app, Outcome.LOST if lost else Outcome.ENDED, device_s)
    give_back(db, app)


def hand_over(db: sa.Connection, study: str, result: TrialResult, claim: TrialClaim) -> OpenTrial | None:
    """A trial has ended, and ``claim`` goes on with its engine at once; None, and nothing is written, where another
    trial has claimed the same. Raises LeaseLost as ``finish``."""
    lock(db, study)
    rows = db.execute(sa.select(TRIALS).where(TRIALS.c.study == study)).mappings().all()
    if any((row["layout"], row["repeat"]) == (str(claim.deployment), claim.repeat) for row in rows):
        return None
    _ended(db, study, result, claim.driver)
    held = next(row for row in rows if row["number"] == result.number)
    placement = None if held["placement"] is None else Placement(tuple((node, n) for node, n in held["placement"]))
    number = max(row["number"] for row in rows) + 1
    row = trial_row(study, number, claim, held["app"], placement) | {"log_dir": held["log_dir"]}
    db.execute(sa.insert(TRIALS).values(row))
    return open_trial_of(row)


def outcome_without(db: sa.Connection, study: str, app: str, number: int) -> Outcome:
    """What becomes of a launch whose last trial is forgotten: it was not for nothing, where an earlier one ended."""
    return Outcome.LOST if _seconds_before(db, study, app, number) is None else Outcome.ENDED


def _ended(db: sa.Connection, study: str, result: TrialResult, driver: str) -> str:
    values = {
        "state": result.state.value,
        "failure": result.failure.value if result.failure else None,
        "detail": result.detail,
        "log_tail": list(result.log_tail),
        "ready_after_s": result.ready_after_s,
        "seconds": result.seconds,
    }
    app = require_owner(db, study, result.number, driver)
    db.execute(sa.update(TRIALS).where(TRIALS.c.study == study, TRIALS.c.number == result.number).values(values))
    return app


def _seconds_before(db: sa.Connection, study: str, app: str, number: int) -> float | None:
    """For how long earlier trials had the engine, s; None where there was none."""
    earlier = (TRIALS.c.study == study) & (TRIALS.c.app == app) & (TRIALS.c.number < number)
    found = db.scalars(sa.select(TRIALS.c.seconds).where(earlier)).all()
    return sum(seconds or 0.0 for seconds in found) if found else None
