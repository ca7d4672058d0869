"""The study store: everything that a study knows, durable the moment it happens. Its tables are in ``schema``.

One row per study, trial, launch, driver and load step; what is nested is JSON of our frozen dataclasses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import sqlalchemy as sa

from tuner.ask.request import TuneRequest
from tuner.decide.decision import Decision
from tuner.errors import BadInput, FailureReason, StoreError
from tuner.plan.prune import Candidate, DroppedGroup
from tuner.search.warm_start import kin_of
from tuner.study import same_engine
from tuner.study.accounts import Accounts
from tuner.study.archive import Archive
from tuner.study.audit import Audit
from tuner.study.database import Database, Listener, now_s
from tuner.study.device_leases import Blocked, DeviceLeases, Sharing, give_back, hold, take, wait_no_more
from tuner.study.events import Events
from tuner.study.forgetting import forget
from tuner.study.kinship import Kinship
from tuner.study.lifecycle import StudyState
from tuner.study.listing import Listing
from tuner.study.live import LiveDeployments
from tuner.study.logs import Logs
from tuner.study.looks import Looks
from tuner.study.orders import Gone, Orders
from tuner.study.patience import Patience
from tuner.study.quotas import Quotas
from tuner.study.records import OpenTrial, Pulse, Snapshot, StudyRecord, TrialClaim
from tuner.study.rollouts import Rollouts
from tuner.study.rounds import Rounds
from tuner.study.rows import DROPPED, LAUNCHED, RANKED, open_trial_of, study_of, trials_of
from tuner.study.schema import DRIVERS, LEDGER, STEPS, STUDIES, TRIALS
from tuner.study.spending import Spending
from tuner.study.statements import (
    begin_trial,
    change_state,
    close_entry,
    drivers_of,
    entries_of,
    lock,
    require_owner,
)
from tuner.study.step_rows import dump_step, load_step
from tuner.study.stored_decision import kept_decision, read_decision
from tuner.study.watched import WatchedStudies
from tuner.study.workers import Workers
from tuner.trial.devices import Placement
from tuner.trial.launched import Launched
from tuner.trial.ledger import Entry, Outcome
from tuner.trial.results import StepResult, TrialResult, TrialState


class Store:
    """Studies in a database: SQLite (the default) or PostgreSQL, named by an SQLAlchemy URL.

    Raises StoreError when it cannot be opened, read or written, or was written by a newer Parlay; one of an older
    version is brought up to date when it is opened. What every database keeps (``tests/unit/test_store_contract.py``):

    **Threads.** One Store may be used by any number of threads. What it answers is frozen: no later write changes it.

    **Processes.** Any number may have the same database open, of one machine with SQLite, of many with PostgreSQL. Each
    method is one transaction: others see all of it or nothing. ``snapshot`` and ``pulse`` are of one moment. Drivers
    are compared by one clock, the server's (the machine's with SQLite).

    **Ownership.** A trial is its driver's from ``claim_trial`` on, and a layout is claimed once for a repeat, by the
    first that asks. It stays so while the driver gives signs of life (``beat``): its lease. One whose lease has run
    out, or that left, loses its trials to the first that asks for them (``take_over``), and is refused with LeaseLost
    from then on. Of a trial that has ended nobody changes the figures.

    **States.** A study is in one state of ``lifecycle``; of several processes that would change it at once each
    sees what the one before made of it, and a change that is not legal then raises BadInput and changes nothing.

    **Durability.** When a method returns, what it wrote survives the end of the process and of the machine. A process
    that is killed inside one leaves all of it or nothing. What a launch took stays in the ledger, whatever becomes of
    its trial.
    """

    def __init__(self, url: str, patience_s: float = 0.0) -> None:
        """``patience_s``: for how long a database is waited for that is away, from the moment on when it went."""
        self.url, self._patience = url, Patience(patience_s)
        self._db = Database(url, self._patience)
        self.orders, self.events, self.accounts = Orders(self._db), Events(self._db), Accounts(self._db)
        self.listing, self.spending, self.devices = Listing(self._db), Spending(self._db), DeviceLeases(self._db)
        self.workers, self.rounds, self.watched = Workers(self._db), Rounds(self._db), WatchedStudies(self._db)
        self.live, self.rollouts, self.looks = LiveDeployments(self._db), Rollouts(self._db), Looks(self._db)
        self.kinship, self.logs, self.archive = Kinship(self._db), Logs(self._db), Archive(self._db)
        self.audit, self.quotas = Audit(self._db), Quotas(self._db, self.spending)

    def close(self) -> None:
        """Give back the connections."""
        self._db.close()

    def hurry(self) -> None:
        """Wait no more for a database that is away."""
        self._patience.hurry()

    def listen(self, listener: Listener) -> None:
        """Have every transaction of this Store from now on told, in the thread that made it."""
        self._db.listen(listener)

    def exclusive(self, what: int = 0) -> AbstractContextManager[None]:
        """Keep out every other process that asks for the same, to the end of the block; writing goes on as usual."""
        return self._db.exclusive(what)

    def create_study(self, name: str, request: TuneRequest, facts: dict[str, str]) -> None:
        """Put a study in the queue; raises BadInput when the name is taken."""
        if self.find_study(name) is not None:
            raise _taken(name)
        row = {"name": name, "created_at": time.time(), "request": request.model_dump_json(), "facts": facts}
        row["kin"] = kin_of(request, facts)
        try:
            with self._db.writing() as db:
                db.execute(sa.insert(STUDIES).values(state=StudyState.QUEUED.value, **row))
        except StoreError as error:
            if isinstance(error.__context__, sa.exc.IntegrityError):  # another driver was a moment faster
                raise _taken(name) from None
            raise

    def keep_facts(self, name: str, facts: dict[str, str]) -> None:
        """Say where a study runs that was queued before anybody knew; those of one that has begun stay as they are."""
        with self._db.writing() as db:
            lock(db, name)
            asked, known = db.execute(sa.select(STUDIES.c.request, STUDIES.c.facts).where(STUDIES.c.name == name)).one()
            if not known:
                values = {"facts": facts, "kin": kin_of(TuneRequest.model_validate_json(asked), facts)}
                db.execute(sa.update(STUDIES).where(STUDIES.c.name == name).values(values))

    def study_names(self) -> list[str]:
        """Names of all studies, newest first."""
        with self._db.reading() as db:
            return list(db.scalars(sa.select(STUDIES.c.name).order_by(STUDIES.c.created_at.desc())))

    def study(self, name: str) -> StudyRecord:
        """A study; raises BadInput naming those that exist."""
        found = self.find_study(name)
        if found is None:
            raise self._unknown(name)
        return found

    def find_study(self, name: str) -> StudyRecord | None:
        """A study, or None."""
        with self._db.reading() as db:
            row = db.execute(sa.select(STUDIES).where(STUDIES.c.name == name)).mappings().first()
        return None if row is None else study_of(row)

    def delete_study(self, name: str, *, pinned_too: bool = True) -> None:
        """Forget a study; raises BadInput for one that waits or runs, or whose worker still clears up after it (the
        devices of its trials are held until then), that is watched or decided what serves, and, unless ``pinned_too``,
        for one that is pinned. Of what others learnt from it nothing changes. What it has spent stays in
        ``spending.totals``.
        """
        with self._db.writing() as db:
            forget(db, name, pinned_too=pinned_too)

    def change_state(self, study: str, state: StudyState) -> None:
        """Bring a study into a state; raises BadInput where it may not come there from the one in which it is."""
        with self._db.writing() as db:
            change_state(db, study, state, {})

    def end_study(self, study: str, state: StudyState, gone: Gone, why: str | None = None) -> bool:
        """Say how a running study ended, if no driver is left that works on it; False where one is, or it ended before.

        ``gone`` as in ``take_over``; ``why`` is its order's problem from the moment on at which it has ended.
        """
        with self._db.writing() as db:
            lock(db, study)
            now = now_s(db)
            if not all(gone(one.driver, one.silent_s) for one in drivers_of(db, study, now)):
                return False
            if db.scalar(sa.select(STUDIES.c.state).where(STUDIES.c.name == study)) != StudyState.RUNNING.value:
                return False
            change_state(db, study, state, {}, why)
            return True

    def save_plan(self, name: str, total: int, ranked: Sequence[Candidate], dropped: Sequence[DroppedGroup]) -> None:
        """Keep what the model said before anything was launched; refuses candidates priced under a what-if."""
        if supposed := next((c for c in ranked if c.what_if), None):
            raise BadInput(
                "plan", f"{supposed.layout} with {', '.join(supposed.what_if)}", "layouts as the engine runs them"
            )
        values = {
            "candidates_total": total,
            "kept": len(ranked),
            "ranked": RANKED.dump_json(tuple(ranked)).decode(),
            "dropped": DROPPED.dump_json(tuple(dropped)).decode(),
        }
        with self._db.writing() as db:
            db.execute(sa.update(STUDIES).where(STUDIES.c.name == name).values(values))

    def save_decision(self, name: str, decision: Decision) -> None:
        """Keep the decision, whole, and the state; an earlier one is replaced. Raises as ``change_state`` does."""
        with self._db.writing() as db:
            change_state(db, name, StudyState.DECIDED, {"decision": kept_decision(decision)})

    def decision(self, name: str) -> Decision | None:
        """The decision as it was kept; None until one was reached. Raises BadInput as ``study`` does."""
        record = self.study(name)
        with self._db.reading() as db:
            kept = db.scalar(sa.select(STUDIES.c.decision).where(STUDIES.c.name == name))
        return None if kept is None else read_decision(kept, record, self.snapshot(name))

    def claim_trial(
        self,
        study: str,
        claim: TrialClaim,
        place: Callable[[Sequence[OpenTrial]], Placement | None],
        launches: int,
        sharing: Sharing | None = None,
    ) -> OpenTrial | Blocked | None:
        """Record an order before anything starts: no other driver launches this layout for the same repeat.

        ``place`` chooses the devices, given all trials that hold some; while it does, no other driver claims any. None
        where the layout is claimed already, where there is no room, or ``launches`` engines were launched before. On a
        cluster that other studies use too (``sharing``) it gets a lease on devices that they do not hold, or Blocked.
        """
        try:
            with self._db.writing() as db:
                lock(db, study)
                rows = db.execute(sa.select(TRIALS).where(TRIALS.c.study == study)).mappings().all()
                taken = any((row["layout"], row["repeat"]) == (str(claim.layout), claim.repeat) for row in rows)
                own = [open_trial_of(row) for row in rows if row["state"] == TrialState.RUNNING.value]
                placement = place(own)
                if taken or placement is None or len({row["app"] for row in rows}) >= launches:
                    return None
                found = placement if sharing is None else take(db, study, claim.driver, sharing, own, placement)
                if isinstance(found, Blocked):
                    return found
                number = max((row["number"] for row in rows), default=-1) + 1
                trial = begin_trial(db, study, number, claim, found)
                return trial if sharing is None else replace(trial, lease=hold(db, study, trial, sharing))
        except StoreError as error:
            if isinstance(error.__context__, sa.exc.IntegrityError):  # a driver that did not wait for the lock
                return None
            raise

    def beat(self, study: str, driver: str, study_s: float) -> None:
        """A driver's sign of life, and the study's time by its clock."""
        with self._db.writing() as db:
            mine = (DRIVERS.c.study == study) & (DRIVERS.c.driver == driver)
            values = {"seen_at": now_s(db), "study_s": study_s}
            if not db.execute(sa.update(DRIVERS).where(mine).values(values)).rowcount:
                db.execute(sa.insert(DRIVERS).values(study=study, driver=driver, **values))

    def leave(self, study: str, driver: str) -> None:
        """Say that a driver works on the study no more: what it left is free at once."""
        with self._db.writing() as db:
            mine = (DRIVERS.c.study == study) & (DRIVERS.c.driver == driver)
            db.execute(sa.update(DRIVERS).where(mine).values(seen_at=0.0))
            wait_no_more(db, driver)

    def take_over(self, study: str, driver: str, gone: Gone) -> list[OpenTrial]:
        """Make the trials of drivers that are ``gone``, as ``lease.is_gone`` says, this driver's; oldest first.

        Of all drivers that try, one gets them; its business is then to remove what runs, and to forget the trial. The
        answer names the drivers that lost them.
        """
        with self._db.writing() as db:
            lock(db, study)
            silent_s = {one.driver: one.silent_s for one in drivers_of(db, study, now_s(db))}
            unfinished = (TRIALS.c.state == TrialState.RUNNING.value) | (
                TRIALS.c.failure == FailureReason.CANCELLED.value
            )
            query = sa.select(TRIALS).where(TRIALS.c.study == study, unfinished).order_by(TRIALS.c.number)
            found = []
            for row in db.execute(query).mappings().all():
                if row["driver"] != driver and gone(row["driver"], silent_s.get(row["driver"])):
                    this = (TRIALS.c.study == study) & (TRIALS.c.number == row["number"])
                    db.execute(sa.update(TRIALS).where(this).values(driver=driver))
                    found.append(open_trial_of(row))
            return found

    def record_launch(self, study: str, trial: int, launched: Launched, driver: str) -> None:
        """Keep what was launched for a trial; raises LeaseLost as ``add_step`` does."""
        values = {"launched": LAUNCHED.dump_python(launched, mode="json")}
        with self._db.writing() as db:
            require_owner(db, study, trial, driver)
            db.execute(sa.update(TRIALS).where(TRIALS.c.study == study, TRIALS.c.number == trial).values(values))

    def add_step(self, study: str, trial: int, result: StepResult, driver: str) -> None:
        """Keep one measured load step; raises LeaseLost where the trial is another driver's by now."""
        row = {
            "study": study,
            "trial": trial,
            "index": result.step.index,
            "result": dump_step(result),
        }
        with self._db.writing() as db:
            require_owner(db, study, trial, driver)
            db.execute(sa.insert(STEPS).values(row))

    def finish_trial(self, study: str, result: TrialResult, driver: str) -> None:
        """Record a trial's end; its launch and its steps are stored already. Raises LeaseLost as ``add_step`` does."""
        with self._db.writing() as db:
            same_engine.finish(db, study, result, driver)

    def hand_over(self, study: str, result: TrialResult, claim: TrialClaim) -> OpenTrial | None:
        """Record a trial's end and the beginning of another on the engine that goes on running: the launch of both is
        one, and ends with the last. None, and nothing is recorded, where what is claimed was claimed before."""
        with self._db.writing() as db:
            return same_engine.hand_over(db, study, result, claim)

    def forget_trial(self, study: str, number: int, driver: str, study_s: float) -> None:
        """Drop a trial that never ended, and its steps: it will be run again from the start.

        What it held until ``study_s``, the study's time, or until it was cancelled, stays in the ledger.
        """
        with self._db.writing() as db:
            app = require_owner(db, study, number, driver)
            for entry in entries_of(db, study):
                if entry.app == app and entry.outcome is Outcome.RUNNING:
                    outcome = same_engine.outcome_without(db, study, app, number)
                    close_entry(db, study, app, outcome, entry.device_s_until(study_s))
            give_back(db, app)
            db.execute(sa.delete(STEPS).where(STEPS.c.study == study, STEPS.c.trial == number))
            db.execute(sa.delete(TRIALS).where(TRIALS.c.study == study, TRIALS.c.number == number))

    def ledger(self, study: str) -> tuple[Entry, ...]:
        """What each launch of the study took, those that came to nothing included; in no order."""
        with self._db.reading() as db:
            return entries_of(db, study)

    def pulse(self, study: str) -> Pulse:
        """What tells whether anything has happened since: a few short rows."""
        with self._db.reading() as db:
            outcomes = list(db.scalars(sa.select(LEDGER.c.outcome).where(LEDGER.c.study == study)))
            columns = (TRIALS.c.app, TRIALS.c.driver, TRIALS.c.state)
            rows = db.execute(sa.select(*columns).where(TRIALS.c.study == study)).mappings().all()
            owners = frozenset(row["driver"] for row in rows if row["state"] == TrialState.RUNNING.value)
            over = sum(outcome != Outcome.RUNNING.value for outcome in outcomes)
            begun = len(outcomes) + len(rows) - len({row["app"] for row in rows})
            return Pulse((begun, over), owners, drivers_of(db, study, now_s(db)))

    def snapshot(self, study: str) -> Snapshot:
        """All of a study's trials, drivers and entries; raises BadInput for a study that does not exist."""
        with self._db.reading() as db:
            state = db.scalar(sa.select(STUDIES.c.state).where(STUDIES.c.name == study))
            join = TRIALS.outerjoin(LEDGER, (LEDGER.c.study == TRIALS.c.study) & (LEDGER.c.app == TRIALS.c.app))
            query = sa.select(TRIALS, LEDGER.c.device_s).select_from(join).where(TRIALS.c.study == study)
            rows = db.execute(query.order_by(TRIALS.c.number)).mappings().all()
            asked = db.scalar(sa.select(STUDIES.c.request).where(STUDIES.c.name == study))
            slo = TuneRequest.model_validate_json(asked).slo if asked else ()
            steps: dict[int, list[StepResult]] = {}
            for step in db.execute(sa.select(STEPS).where(STEPS.c.study == study).order_by(STEPS.c.index)).mappings():
                steps.setdefault(step["trial"], []).append(load_step(step["result"], slo))
            entries, drivers = entries_of(db, study), drivers_of(db, study, now_s(db))
        if state is None:
            raise self._unknown(study)
        return Snapshot(
            state=StudyState(state),
            trials=trials_of(rows, steps),
            open=tuple(open_trial_of(row) for row in rows if row["state"] == TrialState.RUNNING.value),
            entries=entries,
            drivers=drivers,
        )

    def trial_starts(self, study: str) -> dict[int, float]:
        """When each trial began, in seconds of the study's own time, as its durations are; of one whose launch is in no
        ledger, from the start of the study. On one engine each begins where the one before it ended."""
        began = sa.func.coalesce(LEDGER.c.ordered_s, TRIALS.c.started_at - STUDIES.c.created_at)
        ledger = (LEDGER.c.study == TRIALS.c.study) & (LEDGER.c.app == TRIALS.c.app)
        columns = (TRIALS.c.number, TRIALS.c.app, began, TRIALS.c.seconds)
        query = sa.select(*columns).join(STUDIES, STUDIES.c.name == TRIALS.c.study)
        query = query.join(LEDGER, ledger, isouter=True).where(TRIALS.c.study == study).order_by(TRIALS.c.number)
        found, took_s = dict[int, float](), dict[str, float]()
        with self._db.reading() as db:
            for number, app, start, seconds in db.execute(query):
                found[int(number)] = float(start) + took_s.get(app, 0.0)
                took_s[app] = took_s.get(app, 0.0) + (seconds or 0.0)
        return found

    def trials(self, study: str) -> list[TrialResult]:
        """All trials, in order, finished or (state RUNNING) not."""
        return list(self.snapshot(study).trials)

    def _unknown(self, name: str) -> BadInput:
        return BadInput("STUDY", name, "one of: " + (", ".join(self.study_names()) or "(the store is empty)"))


def _taken(name: str) -> BadInput:
    return BadInput("--study", name, "a name that is not taken; --resume goes on with a study that is")
