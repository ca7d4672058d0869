"""What a service was asked to run: the queue of studies, and which worker has which.

A study that somebody queued has an order: who asked, on what it runs, how urgent it is. A worker claims one, drives it
under the name with which it claimed it, and gives it back when it is told to end. What a killed worker held is claimed
by the next, once the lease of that name has run out or its process is known to be gone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from tuner.ask.request import ClusterSpec, TuneRequest
from tuner.errors import BadInput, StoreError
from tuner.study.database import Database, now_s
from tuner.study.lifecycle import StudyState
from tuner.study.schema import DRIVERS, ORDERS, STUDIES
from tuner.study.statements import append_event, change_state, drivers_of, first_sign, is_free, lock, queue_study

Gone = Callable[[str, float | None], bool]  # as ``lease.is_gone``
MOST_DEATHS = 5  # of workers with one study, and no trial ended between them; then it has failed
_OPEN = (StudyState.QUEUED.value, StudyState.RUNNING.value)


class Wish(StrEnum):
    """What somebody wants of a running study; its worker does it."""

    PAUSE = "pause"
    CANCEL = "cancel"


_DECIDED = (
    "resume of one that is not; this one has spent its budget, or has nothing left that could win: queue another "
    "with a larger budget, which begins with what this one has learnt"
)
_AFTER = {Wish.PAUSE: StudyState.PAUSED, Wish.CANCEL: StudyState.CANCELLED}
_WITH_STATE = sa.select(ORDERS, STUDIES.c.state).join(STUDIES, STUDIES.c.name == ORDERS.c.study)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a study is to be run. ``seed`` is that of a simulated cluster, else None; a higher ``priority`` comes first.

    ``owner`` is the token that asked, or empty where nobody had to show one. Of a ``cluster`` that is named its own
    workers alone run the study, and they run no other.
    """

    owner: str
    launcher: str
    seed: int | None = None
    priority: int = 0
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A study that somebody queued. ``submitted_at`` in s since 1970; ``worker`` is empty until one claims it.

    ``problem`` says why it could not be run, where it failed before or outside a trial. One that ``discovers`` asked
    for the cluster that is there: its worker looks what that has before it begins.
    """

    study: str
    terms: Terms
    submitted_at: float
    worker: str
    wish: Wish | None
    problem: str | None
    discovers: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """How the queue stands: for how long the oldest has waited, in s (None: nothing waits), and for each study that
    runs how long its worker has been silent, in s."""

    oldest_s: float | None
    workers: dict[str, float]


class Orders:
    """The queue, in the store's database; the promises of ``tuner.study.store.Store`` hold here too."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def submit(
        self, study: str, request: TuneRequest, terms: Terms, key: str | None = None, *, discovers: bool = False
    ) -> Order:
        """Queue a new study; with a ``key`` that its owner has used before, the order of then.

        Raises BadInput where the name is taken, or the key stands for another request or other terms.
        """
        asked = request.model_dump_json()
        if key is not None and (known := self._by_key(terms.owner, key)) is not None:
            return self._same(known, study, asked, terms, key, discovers)
        try:
            with self._db.writing() as db:
                _queue(db, study, asked, terms, key, discovers)
        except StoreError as error:
            if not isinstance(error.__context__, sa.exc.IntegrityError):
                raise
            known = None if key is None else self._by_key(terms.owner, key)  # somebody was a moment faster
            if known is not None and key is not None:
                return self._same(known, study, asked, terms, key, discovers)
            raise _taken(study) from None
        return self.order(study)

    def submit_all(self, wanted: Sequence[tuple[str, TuneRequest, Terms]]) -> list[BadInput | None]:
        """Queue several new studies, each with its own name as its key, in one transaction: what it takes to make one
        durable makes all of them so. What was wrong with each, as ``submit`` raises it."""
        try:
            with self._db.writing() as db:
                for study, request, terms in wanted:
                    _queue(db, study, request.model_dump_json(), terms, study, False)
        except StoreError as error:
            if not isinstance(error.__context__, sa.exc.IntegrityError):
                raise
            return [self._refusal(*one) for one in wanted]
        return [None] * len(wanted)

    def _refusal(self, study: str, request: TuneRequest, terms: Terms) -> BadInput | None:
        try:
            self.submit(study, request, terms, study)
        except BadInput as error:
            return error
        return None

    def order(self, study: str) -> Order:
        """The order of a study; raises BadInput of one that has none."""
        found = self.find(study)
        if found is None:
            raise BadInput("study", study, "a study that was queued here; one of the command line ends there")
        return found

    def asked_before(self, owner: str, key: str | None) -> bool:
        """Has an owner used this key?"""
        return key is not None and self._by_key(owner, key) is not None

    def find(self, study: str) -> Order | None:
        """The order of a study, or None."""
        with self._db.reading() as db:
            row = db.execute(sa.select(ORDERS).where(ORDERS.c.study == study)).mappings().first()
        return None if row is None else order_of(row)

    def claim(
        self,
        worker: str,
        launchers: Sequence[str],
        gone: Gone,
        *,
        sees_ray: bool = False,
        cluster: str | None = None,
    ) -> Order | None:
        """Give the worker the study that is next, or None: of all that ask at once, one gets it.

        Next is what has the highest priority, then what belongs to the owner with the fewest running, then the oldest.
        The worker's lease on it begins with the claim. What ``discovers`` its cluster goes to one that ``sees_ray``,
        what is for a named ``cluster`` to a worker of that.
        """
        with self._db.reading() as db:
            now, rows = now_s(db), self._rows(db)
            running = Counter(row["owner"] for row in rows if row["state"] == StudyState.RUNNING.value)
            mine = [row for row in rows if row["launcher"] in launchers and row["cluster"] == cluster]
            mine = [row for row in mine if sees_ray or not row["discovers"]]
            mine.sort(key=lambda row: (-row["priority"], running[row["owner"]], row["submitted_at"]))
            waits = StudyState.QUEUED.value
            free = [row for row in mine if row["state"] == waits or is_free(db, row["study"], now, gone)]
        for row in free:
            with self._db.writing() as db:  # one for each: nobody waits for two studies at once
                if self._take(db, row, worker):
                    return order_of({**row, "worker": worker})
        return None

    def claim_left(self, worker: str, gone: Gone) -> Order | None:
        """Give the worker a study that has ended, or was stopped, but whose worker died before it had let go of it."""
        over = STUDIES.c.state.not_in(_OPEN) & (ORDERS.c.worker != "")
        with self._db.reading() as db:
            now, rows = now_s(db), db.execute(_WITH_STATE.where(over)).mappings().all()
            left = [row for row in rows if is_free(db, row["study"], now, gone)]
        for row in left:
            with self._db.writing() as db:
                if self._same_still(db, row, {"worker": worker}):
                    first_sign(db, row["study"], worker)
                    return order_of({**row, "worker": worker})
        return None

    def ask(self, study: str, wish: Wish) -> StudyState:
        """Ask for the end of a study, for good or for now; the state in which it is then.

        One that waits ends at once; of one that runs its worker is told. One whose worker is gone ends when the next
        claims it. Raises BadInput for one that has ended.
        """
        self.order(study)
        with self._db.writing() as db:
            lock(db, study)
            if db.scalar(sa.select(STUDIES.c.state).where(STUDIES.c.name == study)) == StudyState.RUNNING.value:
                db.execute(sa.update(ORDERS).where(ORDERS.c.study == study).values(wish=wish.value))
                append_event(db, study, "asked", {"wish": wish.value})
                return StudyState.RUNNING
            change_state(db, study, _AFTER[wish], {})  # of one that waits or is paused, or it says why not
        return _AFTER[wish]

    def end_orphan(self, study: str, gone: Gone) -> bool:
        """End, as it was wished, a study that runs and whose worker is gone, where no other will come: its cluster is
        gone too. False where that is not so, or not yet."""
        with self._db.writing() as db:
            lock(db, study)
            state = db.scalar(sa.select(STUDIES.c.state).where(STUDIES.c.name == study))
            wish = db.scalar(sa.select(ORDERS.c.wish).where(ORDERS.c.study == study))
            if state != StudyState.RUNNING.value or wish is None or not is_free(db, study, now_s(db), gone):
                return False
            db.execute(sa.update(ORDERS).where(ORDERS.c.study == study).values(wish=None, worker=""))
            change_state(db, study, _AFTER[Wish(wish)], {})
        return True

    def resume(self, study: str) -> StudyState:
        """Queue a study again that was paused or cancelled, or failed; raises BadInput for one that waits or runs, and
        for one that is decided: nothing is left of its budget, or nothing that could win."""
        self.order(study)
        with self._db.writing() as db:
            lock(db, study)
            _require_resumable(db, study)
            change_state(db, study, StudyState.QUEUED, {})
            db.execute(
                sa.update(ORDERS).where(ORDERS.c.study == study).values(wish=None, problem=None, worker="", deaths=0)
            )
        return StudyState.QUEUED

    def require_new(self, study: str) -> None:
        """Raise as ``submit`` does where the name is taken, and write nothing."""
        with self._db.reading() as db:
            if db.scalar(sa.select(STUDIES.c.name).where(STUDIES.c.name == study)) is not None:
                raise _taken(study)

    def require_resumable(self, study: str) -> None:
        """Raise as ``resume`` does, and write nothing."""
        self.order(study)
        with self._db.reading() as db:
            _require_resumable(db, study)

    def keep(self, study: str, worker: str) -> None:
        """A worker's sign of life."""
        with self._db.writing() as db:
            this = (DRIVERS.c.study == study) & (DRIVERS.c.driver == worker)
            db.execute(sa.update(DRIVERS).where(this).values(seen_at=now_s(db)))

    def progressed(self, study: str, worker: str) -> None:
        """Say that a trial has ended: those who died with the study before do not count any more."""
        mine = (ORDERS.c.study == study) & (ORDERS.c.worker == worker) & (ORDERS.c.deaths > 0)
        with self._db.writing() as db:
            db.execute(sa.update(ORDERS).where(mine).values(deaths=0))

    def release(
        self, study: str, worker: str, after: StudyState, gone: Gone, problem: str | None = None, deaths: int = 0
    ) -> None:
        """Say that the worker has done with a study, and why it could not be run, if so.

        One that is still running, and has no other driver, is in the state ``after`` then; what was wished of one that
        another would go on with is done here, for that one would not hear of it.
        """
        mine = (ORDERS.c.study == study) & (ORDERS.c.worker == worker)
        with self._db.writing() as db:
            lock(db, study)
            wish = db.scalar(sa.select(ORDERS.c.wish).where(mine))
            values = {"worker": "", "wish": None, "problem": problem, "deaths": deaths}
            db.execute(sa.update(ORDERS).where(mine).values(values))
            this = (DRIVERS.c.study == study) & (DRIVERS.c.driver == worker)
            db.execute(sa.update(DRIVERS).where(this).values(seen_at=0.0))
            state = db.scalar(sa.select(STUDIES.c.state).where(STUDIES.c.name == study))
            if state == StudyState.RUNNING.value:
                if not is_free(db, study, now_s(db), gone):
                    return
                change_state(db, study, after, {})
                state = after.value
            if wish is not None and state in (StudyState.QUEUED.value, StudyState.PAUSED.value):
                change_state(db, study, _AFTER[Wish(wish)], {})

    def found_cluster(self, study: str, cluster: Sequence[ClusterSpec]) -> None:
        """Keep which cluster a study runs on that was to find one, as long as it has not begun."""
        with self._db.writing() as db:
            lock(db, study)
            known = sa.select(STUDIES.c.request, STUDIES.c.facts).where(STUDIES.c.name == study)
            asked, facts = db.execute(known).one()
            before = TuneRequest.model_validate_json(asked)
            request = before.model_copy(update={"cluster": tuple(cluster) if len(cluster) > 1 else cluster[0]})
            if facts or request == before:
                return
            this = sa.update(STUDIES).where(STUDIES.c.name == study)
            db.execute(this.values(request=request.model_dump_json()))
            groups = [group.model_dump(mode="json", exclude_none=True) for group in cluster]
            append_event(db, study, "cluster", {"groups": groups})

    def try_again(self, study: str, worker: str, gone: Gone, why: str) -> None:
        """Give back a study that the worker could not go on with, for no fault of the study; counted as a death of the
        worker is, so that it does not come back for ever."""
        mine = (ORDERS.c.study == study) & (ORDERS.c.worker == worker)
        with self._db.reading() as db:
            deaths = (db.scalar(sa.select(ORDERS.c.deaths).where(mine)) or 0) + 1
        if deaths >= MOST_DEATHS:
            self.release(study, worker, StudyState.FAILED, gone, f"{deaths} times, one after the other: {why}")
        else:
            self.release(study, worker, StudyState.QUEUED, gone, deaths=deaths)

    def running(self, owner: str) -> int:
        """How many studies of an owner wait or run."""
        with self._db.reading() as db:
            query = sa.select(sa.func.count()).select_from(ORDERS.join(STUDIES, STUDIES.c.name == ORDERS.c.study))
            return int(db.scalar(query.where(ORDERS.c.owner == owner, STUDIES.c.state.in_(_OPEN))) or 0)

    def queue(self) -> Queue:
        """How the queue stands."""
        with self._db.reading() as db:
            now, rows = now_s(db), self._rows(db)
            waiting = [row["submitted_at"] for row in rows if row["state"] == StudyState.QUEUED.value]
            running = [row["study"] for row in rows if row["state"] == StudyState.RUNNING.value]
            drivers = {study: drivers_of(db, study, now) for study in running}
        silent_s = {study: min(one.silent_s for one in found) for study, found in drivers.items() if found}
        return Queue(now - min(waiting) if waiting else None, silent_s)

    def _rows(self, db: sa.Connection) -> Sequence[sa.RowMapping]:
        return db.execute(_WITH_STATE.where(STUDIES.c.state.in_(_OPEN))).mappings().all()

    def _take(self, db: sa.Connection, row: sa.RowMapping, worker: str) -> bool:
        """Compare and set: False where another was faster, or where the study has been the end of too many workers."""
        study, deaths = row["study"], row["deaths"] + (row["state"] == StudyState.RUNNING.value)
        if not self._same_still(db, row, {"worker": worker, "deaths": deaths}):
            return False
        if deaths >= MOST_DEATHS:
            why = {"worker": "", "problem": f"{deaths} workers died of it, one after the other", "deaths": 0}
            db.execute(sa.update(ORDERS).where(ORDERS.c.study == study).values(why))
            change_state(db, study, StudyState.FAILED, {})
            return False
        change_state(db, study, StudyState.RUNNING, {})
        first_sign(db, study, worker)
        return True

    def _same_still(self, db: sa.Connection, row: sa.RowMapping, values: dict[str, Any]) -> bool:
        """Write ``values``, unless anybody has changed the study's state or its worker since the row was read."""
        study = row["study"]
        lock(db, study)  # before its order, as everybody does
        if db.scalar(sa.select(STUDIES.c.state).where(STUDIES.c.name == study)) != row["state"]:
            return False
        same = (ORDERS.c.study == study) & (ORDERS.c.worker == row["worker"])
        return bool(db.execute(sa.update(ORDERS).where(same).values(values)).rowcount)

    def _by_key(self, owner: str, key: str) -> Order | None:
        this = (ORDERS.c.owner == owner) & (ORDERS.c.idempotency_key == key)
        with self._db.reading() as db:
            row = db.execute(sa.select(ORDERS).where(this)).mappings().first()
        return None if row is None else order_of(row)

    def _same(self, known: Order, study: str, asked: str, terms: Terms, key: str, discovers: bool) -> Order:
        with self._db.reading() as db:
            before = str(db.scalar(sa.select(STUDIES.c.request).where(STUDIES.c.name == known.study)))
        if known.discovers and discovers:  # what was there then may not be what is there now
            before, asked = (json.dumps({**json.loads(one), "cluster": "ray"}) for one in (before, asked))
        if (known.study, before, known.terms, known.discovers) != (study, asked, terms, discovers):
            raise BadInput("Idempotency-Key", key, f"a key of its own; this one queued study {known.study}")
        return known


def _queue(db: sa.Connection, study: str, asked: str, terms: Terms, key: str | None, discovers: bool) -> None:
    how = {name: getattr(terms, name) for name in ("owner", "launcher", "seed", "priority", "cluster")}
    queue_study(db, study, asked, {**how, "idempotency_key": key, "discovers": discovers})


def order_of(row: sa.RowMapping | dict[str, object]) -> Order:
    """An order, of its row."""
    terms = Terms(*(row[name] for name in ("owner", "launcher", "seed", "priority", "cluster")))  # type: ignore[arg-type]
    wish = Wish(str(row["wish"])) if row["wish"] else None
    problem, discovers = row["problem"], bool(row["discovers"])
    return Order(row["study"], terms, row["submitted_at"], row["worker"], wish, problem, discovers)  # type: ignore[arg-type]


def _taken(study: str) -> BadInput:
    return BadInput("name", study, "a name that no study of this store has")


def _require_resumable(db: sa.Connection, study: str) -> None:
    state = db.scalar(sa.select(STUDIES.c.state).where(STUDIES.c.name == study))
    if state in _OPEN:
        raise BadInput(f"state of study {study}", str(state), "resume of one that was paused or has ended")
    if state == StudyState.DECIDED:
        raise BadInput(f"state of study {study}", str(state), _DECIDED)
