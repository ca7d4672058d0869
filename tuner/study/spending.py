"""What studies have spent, as one asks at any moment: all launches that ended, and the accounts of a few studies.

It is the ledger of ``tuner.trial.ledger``, added up by the database where there is much of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from tuner.ask.request import Budget
from tuner.rehearse.conditions import SEED_FACT
from tuner.study.database import Database, now_s
from tuner.study.lifecycle import StudyState
from tuner.study.rows import entry_of
from tuner.study.schema import DRIVERS, LEDGER, STUDIES
from tuner.study.statements import drivers_of, entries_of
from tuner.trial.ledger import Entry, Outcome, Spent, spent

ALIVE_S = 600.0  # a study whose drivers were silent for longer than that is not worth a line of its own

_KNOWN = LEDGER.outerjoin(STUDIES, STUDIES.c.name == LEDGER.c.study)
_REAL = sa.or_(STUDIES.c.name.is_(None), STUDIES.c.facts[SEED_FACT].as_string().is_(None))


@dataclass(frozen=True, slots=True)
class Total:
    """Launches that ended alike: how many, their device-seconds and US dollars. ``unpriced`` of them have no price, and
    no part in ``usd``."""

    launches: int
    device_s: float
    usd: float
    unpriced: int


@dataclass(frozen=True, slots=True)
class Account:
    """What one study may spend, and what it has spent up to now."""

    budget: Budget
    spent: Spent

    @property
    def used(self) -> dict[str, float]:
        """The share that is used of each part of the budget that has a limit; 1 is all of it."""
        budget, used = self.budget, self.spent
        parts = {
            "launches": (used.launches, budget.launches),
            "minutes": (used.minutes, budget.minutes),
            "gpu_hours": (used.gpu_hours, budget.gpu_hours),
            "usd": (used.usd, budget.usd),
        }
        return {part: have / limit for part, (have, limit) in parts.items() if have is not None and limit}


class Spending:
    """The ledgers of all studies, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def launches_of(self, owner: str, window_s: float) -> tuple[tuple[float, float], ...]:
        """The launches of an account on real clusters that began in the last ``window_s`` seconds, the oldest first:
        when, in s since 1970, and their GPU-hours; of one that runs, up to the last sign of life of a driver. Those of
        deleted studies are among them.
        """
        with self._db.reading() as db:
            now = now_s(db)
            this = (LEDGER.c.owner == owner) & (LEDGER.c.began_at > now - window_s) & _REAL
            query = sa.select(LEDGER).select_from(_KNOWN).where(this).order_by(LEDGER.c.began_at)
            rows = db.execute(query).mappings().all()
            running = {row["study"] for row in rows if row["outcome"] == Outcome.RUNNING.value}
            study_s = {name: _study_s(db, name, now) for name in running}
        return tuple(
            (row["began_at"], entry_of(row).device_s_until(study_s.get(row["study"], 0.0)) / 3600) for row in rows
        )

    def gpu_hours_since(self, studies: Iterable[str], since_s: float) -> float:
        """GPU-hours that the launches of some studies took from ``since_s`` on (s since 1970), whenever they began; of
        one that runs, up to the last sign of life of a driver. What has no known beginning is left out."""
        with self._db.reading() as db:
            query = sa.select(LEDGER).where(LEDGER.c.study.in_(list(studies)), LEDGER.c.began_at.is_not(None))
            rows, now = db.execute(query).mappings().all(), now_s(db)
            study_s = {name: _study_s(db, name, now) for name in {row["study"] for row in rows}}
        held = ((row["began_at"], entry_of(row), study_s[row["study"]]) for row in rows)
        return sum(_since(began_s, entry, until_s, since_s) for began_s, entry, until_s in held) / 3600

    def totals(self) -> dict[Outcome, Total]:
        """All launches on real clusters that ended or were lost, those of deleted studies too: none of it ever shrinks.

        What a simulated cluster is said to have cost was spent by nobody.
        """
        priced = sa.func.sum(LEDGER.c.device_s * LEDGER.c.usd_per_gpu_hour) / 3600
        unpriced = sa.func.count() - sa.func.count(LEDGER.c.usd_per_gpu_hour)
        sums = (LEDGER.c.outcome, sa.func.count(), sa.func.sum(LEDGER.c.device_s), priced, unpriced)
        over = LEDGER.c.outcome != Outcome.RUNNING.value
        query = sa.select(*sums).select_from(_KNOWN).where(over, _REAL).group_by(LEDGER.c.outcome)
        with self._db.reading() as db:
            found = {Outcome(row[0]): Total(row[1], row[2] or 0.0, row[3] or 0.0, row[4]) for row in db.execute(query)}
        return {outcome: found.get(outcome, Total(0, 0.0, 0.0, 0)) for outcome in (Outcome.ENDED, Outcome.LOST)}

    def running(self, limit: int) -> tuple[str, ...]:
        """The studies that run, those of the command line too, and whose drivers live; the newest ``limit`` at most."""
        with self._db.reading() as db:
            alive = sa.exists().where(DRIVERS.c.study == STUDIES.c.name, DRIVERS.c.seen_at > now_s(db) - ALIVE_S)
            query = sa.select(STUDIES.c.name).where(STUDIES.c.state == StudyState.RUNNING.value, alive)
            return tuple(db.scalars(query.order_by(STUDIES.c.created_at.desc()).limit(limit)))

    def accounts(self, studies: Iterable[str]) -> dict[str, Account]:
        """What each has spent, trials in flight up to the last sign of life of a driver; none of one that is gone."""
        query = sa.select(STUDIES.c.name, STUDIES.c.request).where(STUDIES.c.name.in_(list(studies)))
        found = {}
        with self._db.reading() as db:
            now = now_s(db)
            for name, asked in db.execute(query).all():
                used = spent(entries_of(db, name), _study_s(db, name, now), lambda _: None)
                found[name] = Account(Budget.model_validate(json.loads(asked)["budget"]), used)
        return found


def _since(began_s: float, entry: Entry, study_s: float, since_s: float) -> float:
    """The device-seconds of a launch that began at ``began_s`` which are of ``since_s`` or later."""
    device_s, devices = entry.device_s_until(study_s), 1 if entry.layout is None else entry.layout.devices
    return max(0.0, device_s - devices * max(0.0, since_s - began_s))


def _study_s(db: sa.Connection, study: str, now: float) -> float:
    """The study's own time at the last sign of life of a driver, in seconds."""
    return max((driver.study_s for driver in drivers_of(db, study, now)), default=0.0)
