"""Devices of a cluster that several studies use: who holds which, and who is next.

A trial on such a cluster holds its devices by a lease from its claim to its end, while its driver gives signs of life.
All claims on a cluster go through its one row, so that together they never hold more than there is. Who finds no room
waits in a line: the most urgent study first, then who has waited longest; nobody else takes devices of that kind
meanwhile, so that a large trial is not kept waiting by small ones. A trial gets all that it needs at once, and one
that waits holds nothing for it: there is no deadlock.

A lease has a number that no other lease of its cluster has. Of a driver that is gone the first that finds it takes the
lease: the trial is nobody's from then on, so that its driver, should it wake up, can say and launch nothing more of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tuner.errors import LeaseLost, StoreError
from tuner.study.database import Database, now_s
from tuner.study.records import OpenTrial
from tuner.study.schema import CLUSTERS, DEVICE_LEASES, DRIVERS, TRIALS
from tuner.trial.devices import Node, Placement, Reservation
from tuner.trial.results import TrialState
from tuner.trial.shared import ForeignHold, Parts, SharedCluster, kinds_of, parts_of, reserved

Gone = Callable[[str, float | None], bool]  # as ``lease.is_gone``


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a study uses a shared cluster: its nodes and what all call them, how urgent it is, and whether its trials
    want their nodes for themselves. ``place`` chooses devices beside its own open trials and what others hold."""

    cluster: SharedCluster
    nodes: tuple[Node, ...]
    names: tuple[str, ...]
    priority: int
    alone: bool
    gone: Gone
    place: Callable[[Sequence[OpenTrial], Sequence[Reservation]], Placement | None]


@dataclass(frozen=True, slots=True)
class DeviceLease:
    """What a trial holds, or (``token`` None) what a driver waits for; ``silent_s`` as of a driver, None: never heard.

    ``since`` in s since 1970.
    """

    cluster: str
    app: str
    study: str
    driver: str
    token: int | None
    priority: int
    since: float
    parts: Parts
    alone: bool
    silent_s: float | None

    @property
    def devices(self) -> int:
        """How many."""
        return sum(count for _, count, _ in self.parts)


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why a trial has to wait: other studies ``hold`` devices, or wait ``before`` it; or the drivers of leases are
    gone (``dead``), and whoever asks has to clear up after them first; ``stuck`` says what could not be, and why."""

    devices: int
    hold: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    dead: tuple[DeviceLease, ...] = ()
    stuck: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """For people."""
        one = f"waits for {self.devices} device{'s' * (self.devices != 1)}"
        if self.stuck:
            return f"{one}: {'; '.join(self.stuck)}"
        return f"{one} held by {_named(self.hold)}" if self.hold else f"{one}, after {_named(self.before)}"


class DeviceLeases:
    """The leases of all clusters, in the store's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def register(self, cluster: str) -> None:
        """Make a cluster known; nothing where it is."""
        with self._db.reading() as db:
            if db.scalar(sa.select(CLUSTERS.c.id).where(CLUSTERS.c.id == cluster)) is not None:
                return
        try:
            with self._db.writing() as db:
                db.execute(sa.insert(CLUSTERS).values(id=cluster))
        except StoreError as error:
            if not isinstance(error.__context__, sa.exc.IntegrityError):  # else somebody was a moment faster
                raise

    def require(self, app: str, driver: str, token: int) -> None:
        """Raise LeaseLost unless the driver still holds the devices of a trial by that lease."""
        this = (DEVICE_LEASES.c.app == app) & (DEVICE_LEASES.c.driver == driver) & (DEVICE_LEASES.c.token == token)
        with self._db.reading() as db:
            if db.scalar(sa.select(DEVICE_LEASES.c.study).where(this)) is None:
                raise LeaseLost(f"the devices of {app} were given to others: its driver was silent for too long")

    def seize(self, lease: DeviceLease, study: str, driver: str) -> int | None:
        """Take the lease of a driver that is gone, to clear up after it; the new token, or None where another did."""
        with self._db.writing() as db:
            lost = (TRIALS.c.study == lease.study) & (TRIALS.c.app == lease.app) & (TRIALS.c.driver == lease.driver)
            running = TRIALS.c.state == TrialState.RUNNING.value
            db.execute(sa.update(TRIALS).where(lost, running).values(driver=""))  # nobody's: see ``require_owner``
            token = _next_token(db, lease.cluster)
            same = _this(lease) & (DEVICE_LEASES.c.driver == lease.driver) & (DEVICE_LEASES.c.token == lease.token)
            values = {"study": study, "driver": driver, "token": token}
            return token if db.execute(sa.update(DEVICE_LEASES).where(same).values(values)).rowcount else None

    def free(self, lease: DeviceLease, token: int) -> None:
        """Give back what was seized, once nothing is left there."""
        with self._db.writing() as db:
            db.execute(sa.delete(DEVICE_LEASES).where(_this(lease), DEVICE_LEASES.c.token == token))

    def leave_line(self, driver: str) -> None:
        """Say that a driver, which goes on, waits for nothing more."""
        with self._db.writing() as db:
            wait_no_more(db, driver)

    def all(self) -> tuple[DeviceLease, ...]:
        """All leases, and all who wait, as they stand in line."""
        with self._db.reading() as db:
            return tuple(sorted(_leases(db, None), key=lambda one: (one.cluster, one.token is None, *_rank(one))))


def take(
    db: sa.Connection, study: str, driver: str, sharing: Sharing, own: Sequence[OpenTrial], wanted: Placement
) -> Placement | Blocked:
    """Devices for a trial that would lie as ``wanted`` if its study was alone: where it goes, or why it has to wait.

    To be called with the study's row locked; the cluster's is locked here. Who waits is noted in the line.
    """
    cluster = sharing.cluster.id
    db.execute(sa.update(CLUSTERS).where(CLUSTERS.c.id == cluster).values(id=cluster))
    leases, now = _leases(db, cluster), now_s(db)
    gone = [one for one in leases if sharing.gone(one.driver, one.silent_s)]
    if dead := tuple(one for one in gone if one.token is not None):
        return Blocked(wanted.devices, dead=dead)
    for one in gone:
        db.execute(sa.delete(DEVICE_LEASES).where(_this(one)))
    mine, ours = _waiting(driver), {trial.app for trial in own}
    foreign = [one for one in leases if one.token is not None and one.app not in ours]
    since = next((one.since for one in leases if one.app == mine), now)
    parts = parts_of(wanted, sharing.nodes, sharing.names)
    line = [one for one in leases if one.token is None and one not in gone and one.app != mine]
    rank = (-sharing.priority, since, mine)
    before = [
        one.study for one in sorted(line, key=_rank) if _rank(one) < rank and kinds_of(one.parts) & kinds_of(parts)
    ]
    holds = [ForeignHold(one.parts, one.alone) for one in foreign]
    placement = sharing.place(own, reserved(holds, sharing.nodes, sharing.names))
    db.execute(sa.delete(DEVICE_LEASES).where(DEVICE_LEASES.c.cluster == cluster, DEVICE_LEASES.c.app == mine))
    if placement is not None and not before:
        return placement
    _insert(db, mine, study, driver, None, sharing, since, parts)
    near = [one.study for one in foreign if kinds_of(one.parts) & kinds_of(parts)] if placement is None else []
    return Blocked(wanted.devices, _unique(near), _unique(before))


def hold(db: sa.Connection, study: str, trial: OpenTrial, sharing: Sharing) -> int:
    """Lease a trial what ``take`` gave it, in the same transaction; the lease's token."""
    token = _next_token(db, sharing.cluster.id)
    parts = () if trial.placement is None else parts_of(trial.placement, sharing.nodes, sharing.names)
    _insert(db, trial.app, study, trial.driver, token, sharing, now_s(db), parts)
    return token


def give_back(db: sa.Connection, app: str) -> None:
    """Say that a trial holds nothing more."""
    db.execute(sa.delete(DEVICE_LEASES).where(DEVICE_LEASES.c.app == app))


def wait_no_more(db: sa.Connection, driver: str) -> None:
    """Take a driver out of all lines."""
    give_back(db, _waiting(driver))


def _insert(
    db: sa.Connection,
    app: str,
    study: str,
    driver: str,
    token: int | None,
    sharing: Sharing,
    since: float,
    parts: Parts,
) -> None:
    row = {"cluster": sharing.cluster.id, "app": app, "study": study, "driver": driver, "token": token}
    more = {"priority": sharing.priority, "since": since, "held": [list(part) for part in parts]}
    db.execute(sa.insert(DEVICE_LEASES).values(row | more | {"alone": sharing.alone}))


def _leases(db: sa.Connection, cluster: str | None) -> list[DeviceLease]:
    same = (DRIVERS.c.study == DEVICE_LEASES.c.study) & (DRIVERS.c.driver == DEVICE_LEASES.c.driver)
    query = sa.select(DEVICE_LEASES, DRIVERS.c.seen_at).select_from(DEVICE_LEASES.outerjoin(DRIVERS, same))
    if cluster is not None:
        query = query.where(DEVICE_LEASES.c.cluster == cluster)
    now, found = now_s(db), []
    for row in db.execute(query).mappings():
        known = {name: row[name] for name in ("cluster", "app", "study", "driver", "token", "priority", "since")}
        parts = tuple((str(name), int(count), int(devices)) for name, count, devices in row["held"])
        silent_s = None if row["seen_at"] is None else now - row["seen_at"]
        found.append(DeviceLease(**known, parts=parts, alone=row["alone"], silent_s=silent_s))
    return found


def _next_token(db: sa.Connection, cluster: str) -> int:
    this = CLUSTERS.c.id == cluster
    db.execute(sa.update(CLUSTERS).where(this).values(token=CLUSTERS.c.token + 1))
    return int(db.scalar(sa.select(CLUSTERS.c.token).where(this)) or 0)


def _this(lease: DeviceLease) -> sa.ColumnElement[bool]:
    return (DEVICE_LEASES.c.cluster == lease.cluster) & (DEVICE_LEASES.c.app == lease.app)


def _rank(lease: DeviceLease) -> tuple[int, float, str]:
    return -lease.priority, lease.since, lease.app


def _waiting(driver: str) -> str:
    """In the place of a deployment's name: who waits."""
    return f"waiting/{driver}"


def _unique(studies: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(studies))


def _named(studies: Sequence[str]) -> str:
    return ("studies " if len(studies) > 1 else "study ") + ", ".join(studies)
