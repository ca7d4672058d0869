"""The study store: everything that a study knows, durable the moment it happens. Its tables are in ``schema``.

One row per study, candidate, trial and load step; what is nested is JSON of our frozen dataclasses. Any SQLAlchemy URL
will do; SQLite is the default. Writes are one transaction each, so a killed process loses at most the measurement in
flight. Several processes may drive one study: a trial belongs to the driver that claimed it, and to another once that
gives no sign of life any more. With SQLite they must share a machine.
"""

from __future__ import annotations

import fcntl
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput, FailureReason, LeaseLost, StoreError
from tuner.plan.prune import Candidate, DroppedGroup
from tuner.study.records import DriverRecord, OpenTrial, StudyRecord, TrialClaim, app_name
from tuner.study.schema import (
    DRIVERS,
    META,
    SCHEMA_VERSION,
    STEPS,
    STUDIES,
    TRIALS,
    VERSIONS,
    add_columns,
    durable_sqlite,
)
from tuner.trial.devices import Placement
from tuner.trial.launched import Launched
from tuner.trial.trial import Purpose, StepResult, TrialResult, TrialState

_LOCK = 0x7061726C6179  # "parlay", the key of PostgreSQL's advisory lock
_STEP = TypeAdapter(StepResult)
_LAUNCHED = TypeAdapter(Launched)
_RANKED = TypeAdapter(tuple[Candidate, ...])
_DROPPED = TypeAdapter(tuple[DroppedGroup, ...])


class Store:
    """Studies in a database. Raises StoreError when it cannot be opened, or was written by a newer Parlay."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            shown = re.sub(r":[^:@]*@", ":***@", url)  # not parsed, yet it may hold a password
            raise BadInput("--store", shown, "a database URL such as sqlite:///parlay.db") from None
        shown = parsed.render_as_string(hide_password=True)
        try:
            if parsed.get_backend_name() == "sqlite" and parsed.database:
                Path(parsed.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
            self._engine = sa.create_engine(parsed)
            if parsed.get_backend_name() == "sqlite":
                sa.event.listen(self._engine, "connect", durable_sqlite)
            self._prepare(shown)
        except (sa.exc.SQLAlchemyError, ImportError, OSError) as error:
            raise StoreError(f"store {shown} cannot be opened: {_cause(error)}") from None

    def _prepare(self, shown: str) -> None:
        """Make the tables, or bring those of an older version up to date; two drivers may open a new store at once."""
        if self._version() == SCHEMA_VERSION:
            return
        with self.exclusive(), self._engine.begin() as db:
            found = self._version()
            if found is not None and found > SCHEMA_VERSION:
                raise StoreError(
                    f"store {shown} has schema version {found}, this Parlay knows up to {SCHEMA_VERSION}: "
                    "use a newer Parlay, or another --store"
                )
            if found == 1:
                add_columns(db)
            META.create_all(db)
            db.execute(sa.delete(VERSIONS))
            db.execute(sa.insert(VERSIONS).values(version=SCHEMA_VERSION))

    def _version(self) -> int | None:
        with self._engine.connect() as db:
            known = sa.inspect(db).has_table(VERSIONS.name)
            return db.scalar(sa.select(VERSIONS.c.version)) if known else None

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """One transaction: all of it is durable at the end of the block, or none."""
        try:
            with self._engine.begin() as db:
                yield db
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"the store could not be written: {_cause(error)}") from None

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as db:
                yield db
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"the store could not be read: {_cause(error)}") from None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep out every other process that asks for the same, to the end of the block; writing goes on as usual."""
        if self._engine.dialect.name == "postgresql":
            with self._engine.connect() as db:
                db.execute(sa.select(sa.func.pg_advisory_lock(_LOCK)))
                try:
                    yield
                finally:
                    db.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK)))
                    db.commit()
        elif (database := self._engine.url.database) and self._engine.dialect.name == "sqlite":
            with Path(f"{database}.lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        else:
            yield

    def create_study(self, name: str, request: TuneRequest, facts: dict[str, str]) -> None:
        """Begin a study; raises BadInput when the name is taken."""
        if self.find_study(name) is not None:
            raise _taken(name)
        row = {"name": name, "created_at": time.time(), "request": request.model_dump_json(), "facts": facts}
        try:
            with self._writing() as db:
                db.execute(sa.insert(STUDIES).values(row))
        except StoreError as error:
            if isinstance(error.__context__, sa.exc.IntegrityError):  # another driver was a moment faster
                raise _taken(name) from None
            raise

    def study_names(self) -> list[str]:
        """Names of all studies, newest first."""
        with self._reading() as db:
            return list(db.scalars(sa.select(STUDIES.c.name).order_by(STUDIES.c.created_at.desc())))

    def study(self, name: str) -> StudyRecord:
        """A study; raises BadInput naming those that exist."""
        found = self.find_study(name)
        if found is None:
            raise BadInput("STUDY", name, "one of: " + (", ".join(self.study_names()) or "(the store is empty)"))
        return found

    def find_study(self, name: str) -> StudyRecord | None:
        """A study, or None."""
        with self._reading() as db:
            row = db.execute(sa.select(STUDIES).where(STUDIES.c.name == name)).mappings().first()
        if row is None:
            return None
        return StudyRecord(
            name=row["name"],
            created_at=row["created_at"],
            request=TuneRequest.model_validate_json(row["request"]),
            facts=row["facts"],
            candidates_total=row["candidates_total"],
            ranked=_RANKED.validate_json(row["ranked"]) if row["ranked"] else None,
            dropped=_DROPPED.validate_json(row["dropped"]) if row["dropped"] else None,
            decision=row["decision"],
        )

    def save_plan(self, name: str, total: int, ranked: Sequence[Candidate], dropped: Sequence[DroppedGroup]) -> None:
        """Keep what the model said before anything was launched; refuses candidates priced under a what-if."""
        if supposed := next((c for c in ranked if c.what_if), None):
            raise BadInput(
                "plan", f"{supposed.layout} with {', '.join(supposed.what_if)}", "layouts as the engine runs them"
            )
        values = {
            "candidates_total": total,
            "ranked": _RANKED.dump_json(tuple(ranked)).decode(),
            "dropped": _DROPPED.dump_json(tuple(dropped)).decode(),
        }
        with self._writing() as db:
            db.execute(sa.update(STUDIES).where(STUDIES.c.name == name).values(values))

    def save_decision(self, name: str, decision: dict[str, Any]) -> None:
        """Keep the decision; an earlier one is replaced."""
        with self._writing() as db:
            db.execute(sa.update(STUDIES).where(STUDIES.c.name == name).values(decision=decision))

    def claim_trial(
        self, study: str, claim: TrialClaim, place: Callable[[Sequence[OpenTrial]], Placement | None], launches: int
    ) -> OpenTrial | None:
        """Record an order before anything starts: no other driver launches this layout for the same repeat.

        ``place`` chooses the devices, given all trials that hold some; while it does, no other driver claims any. None
        where the layout is claimed already, where there is no room, or ``launches`` trials were begun before.
        """
        try:
            with self._writing() as db:
                _lock(db, study)
                rows = db.execute(sa.select(TRIALS).where(TRIALS.c.study == study)).mappings().all()
                taken = any((row["layout"], row["repeat"]) == (str(claim.layout), claim.repeat) for row in rows)
                placement = place([_open(row) for row in rows if row["state"] == TrialState.RUNNING.value])
                if taken or placement is None or len(rows) >= launches:
                    return None
                number = max((row["number"] for row in rows), default=-1) + 1
                lost = db.scalar(sa.select(sa.func.sum(DRIVERS.c.lost_trials)).where(DRIVERS.c.study == study))
                app = app_name(study, number, lost or 0)
                row = {
                    "study": study,
                    "number": number,
                    "layout": str(claim.layout),
                    "app": app,
                    "log_dir": str(claim.log_root / f"trial-{number:03d}"),
                    "state": TrialState.RUNNING.value,
                    "started_at": time.time(),
                    "purpose": claim.purpose.value,
                    "repeat": claim.repeat,
                    "driver": claim.driver,
                    "placement": [list(pair) for pair in placement.held],
                    "ordered_s": claim.ordered_s,
                }
                db.execute(sa.insert(TRIALS).values(row))
                return _open(row)
        except StoreError as error:
            if isinstance(error.__context__, sa.exc.IntegrityError):  # a driver that did not wait for the lock
                return None
            raise

    def beat(self, study: str, driver: str, study_s: float) -> None:
        """A driver's sign of life, and the study's time by its clock."""
        with self._writing() as db:
            mine = (DRIVERS.c.study == study) & (DRIVERS.c.driver == driver)
            values = {"seen_at": _now(db), "study_s": study_s}
            if not db.execute(sa.update(DRIVERS).where(mine).values(values)).rowcount:
                db.execute(sa.insert(DRIVERS).values(study=study, driver=driver, **values))

    def leave(self, study: str, driver: str) -> None:
        """Say that a driver works on the study no more: what it left is free at once."""
        with self._writing() as db:
            mine = (DRIVERS.c.study == study) & (DRIVERS.c.driver == driver)
            db.execute(sa.update(DRIVERS).where(mine).values(seen_at=0.0))

    def drivers(self, study: str) -> list[DriverRecord]:
        """All drivers that the study ever had."""
        with self._reading() as db:
            now = _now(db)
            rows = db.execute(sa.select(DRIVERS).where(DRIVERS.c.study == study)).mappings().all()
        return [DriverRecord(row["driver"], now - row["seen_at"], row["study_s"], row["lost_device_s"]) for row in rows]

    def take_over(self, study: str, driver: str, gone: Callable[[str, float | None], bool]) -> list[OpenTrial]:
        """Make the trials of drivers that are ``gone``, as ``lease.is_gone`` says, this driver's; oldest first.

        Of all drivers that try, one gets them; its business is then to remove what runs, and to forget the trial. The
        answer names the drivers that lost them.
        """
        with self._writing() as db:
            _lock(db, study)
            query = sa.select(DRIVERS.c.driver, DRIVERS.c.seen_at).where(DRIVERS.c.study == study)
            seen = {name: float(seen_at) for name, seen_at in db.execute(query)}
            unfinished = (TRIALS.c.state == TrialState.RUNNING.value) | (
                TRIALS.c.failure == FailureReason.CANCELLED.value
            )
            query = sa.select(TRIALS).where(TRIALS.c.study == study, unfinished).order_by(TRIALS.c.number)
            now = _now(db)
            found = []
            for row in db.execute(query).mappings().all():
                silent_s = now - seen[row["driver"]] if row["driver"] in seen else None
                if row["driver"] != driver and gone(row["driver"], silent_s):
                    this = (TRIALS.c.study == study) & (TRIALS.c.number == row["number"])
                    db.execute(sa.update(TRIALS).where(this).values(driver=driver))
                    found.append(_open(row))
            return found

    def record_launch(self, study: str, trial: int, launched: Launched, driver: str) -> None:
        """Keep what was launched for a trial; raises LeaseLost as ``add_step`` does."""
        values = {"launched": _LAUNCHED.dump_python(launched, mode="json")}
        with self._writing() as db:
            _require_owner(db, study, trial, driver)
            db.execute(sa.update(TRIALS).where(TRIALS.c.study == study, TRIALS.c.number == trial).values(values))

    def add_step(self, study: str, trial: int, result: StepResult, driver: str) -> None:
        """Keep one measured load step; raises LeaseLost where the trial is another driver's by now."""
        row = {
            "study": study,
            "trial": trial,
            "index": result.step.index,
            "result": _STEP.dump_json(result).decode(),
        }
        with self._writing() as db:
            _require_owner(db, study, trial, driver)
            db.execute(sa.insert(STEPS).values(row))

    def finish_trial(self, study: str, result: TrialResult, driver: str) -> None:
        """Record a trial's end; its launch and its steps are stored already. Raises LeaseLost as ``add_step`` does."""
        values = {
            "state": result.state.value,
            "failure": result.failure.value if result.failure else None,
            "detail": result.detail,
            "log_tail": list(result.log_tail),
            "ready_after_s": result.ready_after_s,
            "seconds": result.seconds,
            "device_s": result.device_s,
        }
        with self._writing() as db:
            _require_owner(db, study, result.number, driver)
            db.execute(
                sa.update(TRIALS).where(TRIALS.c.study == study, TRIALS.c.number == result.number).values(values)
            )

    def forget_trial(self, study: str, number: int, driver: str, device_s: float) -> None:
        """Drop a trial that never ended, and its steps: it will be run again from the start.

        ``device_s``, the seconds for which it held devices, summed over them, stay counted, with the driver.
        """
        lost = {"lost_device_s": DRIVERS.c.lost_device_s + device_s, "lost_trials": DRIVERS.c.lost_trials + 1}
        with self._writing() as db:
            _require_owner(db, study, number, driver)
            mine = (DRIVERS.c.study == study) & (DRIVERS.c.driver == driver)
            db.execute(sa.update(DRIVERS).where(mine).values(lost))
            db.execute(sa.delete(STEPS).where(STEPS.c.study == study, STEPS.c.trial == number))
            db.execute(sa.delete(TRIALS).where(TRIALS.c.study == study, TRIALS.c.number == number))

    def open_trials(self, study: str) -> list[OpenTrial]:
        """Trials without an end, oldest first."""
        query = sa.select(TRIALS).where(TRIALS.c.study == study, TRIALS.c.state == TrialState.RUNNING.value)
        with self._reading() as db:
            rows = db.execute(query.order_by(TRIALS.c.number)).mappings().all()
        return [_open(row) for row in rows]

    def trial_starts(self, study: str) -> dict[int, float]:
        """When each trial began, in seconds from the start of the study."""
        query = sa.select(TRIALS.c.number, TRIALS.c.started_at - STUDIES.c.created_at)
        query = query.join(STUDIES, STUDIES.c.name == TRIALS.c.study).where(TRIALS.c.study == study)
        with self._reading() as db:
            return {int(number): float(start) for number, start in db.execute(query)}

    def trials(self, study: str) -> list[TrialResult]:
        """All trials, in order, finished or (state RUNNING) not."""
        with self._reading() as db:
            rows = db.execute(sa.select(TRIALS).where(TRIALS.c.study == study).order_by(TRIALS.c.number)).mappings()
            steps = db.execute(sa.select(STEPS).where(STEPS.c.study == study).order_by(STEPS.c.index)).mappings()
            by_trial: dict[int, list[StepResult]] = {}
            for step in steps:
                by_trial.setdefault(step["trial"], []).append(_STEP.validate_json(step["result"]))
            return [_trial(dict(row), by_trial.get(row["number"], ())) for row in rows]


def _trial(row: dict[str, Any], steps: Iterable[StepResult]) -> TrialResult:
    return TrialResult(
        number=row["number"],
        layout=ParallelLayout.parse(row["layout"]),
        state=TrialState(row["state"]),
        steps=tuple(steps),
        failure=FailureReason(row["failure"]) if row["failure"] else None,
        detail=row["detail"],
        log_tail=tuple(row["log_tail"] or ()),
        ready_after_s=row["ready_after_s"],
        seconds=row["seconds"],
        purpose=Purpose(row["purpose"]),
        repeat=row["repeat"],
        device_s=row["device_s"],
        launched=_LAUNCHED.validate_python(row["launched"]) if row["launched"] else None,
    )


def _taken(name: str) -> BadInput:
    return BadInput("--study", name, "a name that is not taken; --resume goes on with a study that is")


def _open(row: Mapping[Any, Any]) -> OpenTrial:
    held = row["placement"]
    return OpenTrial(
        number=row["number"],
        layout=ParallelLayout.parse(row["layout"]),
        app=row["app"],
        log_dir=Path(row["log_dir"]),
        driver=row["driver"],
        placement=None if held is None else Placement(tuple((node, count) for node, count in held)),
        ordered_s=row["ordered_s"],
        purpose=Purpose(row["purpose"]),
        repeat=row["repeat"],
    )


def _lock(db: sa.Connection, study: str) -> None:
    """Let one driver of the study at a time go on, until its transaction ends."""
    db.execute(sa.update(STUDIES).where(STUDIES.c.name == study).values(name=study))


def _now(db: sa.Connection) -> float:
    """Seconds since 1970 by one clock for all drivers: the server's, or that of the one machine that uses SQLite."""
    if db.dialect.name == "sqlite":
        return time.time()
    return float(db.scalar(sa.select(sa.func.extract("epoch", sa.func.clock_timestamp()))) or 0.0)


def _require_owner(db: sa.Connection, study: str, number: int, driver: str) -> None:
    mine = (TRIALS.c.study == study) & (TRIALS.c.number == number) & (TRIALS.c.driver == driver)
    if not db.execute(sa.update(TRIALS).where(mine).values(driver=driver)).rowcount:
        raise LeaseLost(f"trial {number} of {study} was taken over: this process gave no sign of life for too long")


def _cause(error: Exception) -> str:
    """The driver's own first line, without the SQL and the parameters that SQLAlchemy puts after it."""
    return next(iter(str(getattr(error, "orig", None) or error).splitlines()), type(error).__name__)
