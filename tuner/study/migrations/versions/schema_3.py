"""Version 3: a study has a state, a trial the record of what was launched, and a ledger keeps what each launch took."""

import json
import math
import re

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_STUDIES = sa.table(
    "parlay_studies", sa.column("name"), sa.column("ranked"), sa.column("decision", sa.JSON), sa.column("state")
)
_TRIALS = sa.table(
    "parlay_trials",
    *map(sa.column, ("study", "number", "layout", "app", "state", "failure", "seconds", "device_s", "ordered_s")),
)
_DRIVERS = sa.table(
    "parlay_drivers",
    *map(sa.column, ("study", "driver", "seen_at", "study_s", "lost_device_s", "lost_trials")),
)
_COLUMNS = (
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("app", sa.String(200), primary_key=True),
    sa.Column("layout", sa.String(300)),
    sa.Column("outcome", sa.String(20), nullable=False),
    sa.Column("ordered_s", sa.Float),
    sa.Column("device_s", sa.Float),
    sa.Column("usd_per_gpu_hour", sa.Float),
)


def upgrade() -> None:
    """Add them, fill in what is known, and take away what the ledger has now."""
    op.add_column("parlay_trials", sa.Column("launched", sa.JSON))
    op.add_column("parlay_studies", sa.Column("state", sa.String(20), nullable=False, server_default="queued"))
    ledger = op.create_table("parlay_ledger", *_COLUMNS)
    db = op.get_bind()
    _keep_time(db)
    entries = [*_kept(db), *_lost(db)]
    if entries:
        db.execute(sa.insert(ledger), entries)
    _name_states(db)
    _name_deployments(db)
    for table, columns in (
        ("parlay_trials", ("device_s", "ordered_s")),
        ("parlay_drivers", ("lost_device_s", "lost_trials")),
    ):
        with op.batch_alter_table(table) as batch:  # a copy, where SQLite cannot drop a column
            for column in columns:
                batch.drop_column(column)


def _keep_time(db: sa.Connection) -> None:
    """Studies of version 1 had no drivers to keep their time; their trials ran one after the other."""
    timed = sa.select(_DRIVERS.c.study)
    query = sa.select(_TRIALS.c.study, sa.func.sum(_TRIALS.c.seconds)).where(_TRIALS.c.study.not_in(timed))
    for study, seconds in db.execute(query.group_by(_TRIALS.c.study)).all():
        row = {"study": study, "driver": "", "seen_at": 0.0, "study_s": seconds or 0.0}
        db.execute(sa.insert(_DRIVERS).values(lost_device_s=0.0, lost_trials=0, **row))


def _kept(db: sa.Connection) -> list[dict[str, object]]:
    """Entries of the trials that there are."""
    found = []
    for trial in db.execute(sa.select(_TRIALS)).mappings():
        outcome = "running" if trial["state"] == "running" else "ended"
        entry = {"outcome": "lost" if trial["failure"] == "cancelled" else outcome, "usd_per_gpu_hour": None}
        device_s = trial["device_s"]
        if device_s is None and trial["seconds"] is not None:  # of version 1
            devices = math.prod(int(degree) for degree in re.findall(r"\b(?:tp|pcp|pp|dp)=(\d+)", trial["layout"]))
            device_s = trial["seconds"] * devices
        same = {name: trial[name] for name in ("study", "app", "layout", "ordered_s")}
        found.append(entry | same | {"device_s": device_s})
    return found


def _lost(db: sa.Connection) -> list[dict[str, object]]:
    """Entries of the trials that were forgotten, of which only the sum by driver is known."""
    found: list[dict[str, object]] = []
    for driver in db.execute(sa.select(_DRIVERS).where(_DRIVERS.c.lost_trials > 0)).mappings():
        entry = {"study": driver["study"], "layout": None, "outcome": "lost", "ordered_s": None}
        device_s = driver["lost_device_s"] / driver["lost_trials"]
        for number in range(driver["lost_trials"]):
            app = f"lost-{len(found)}-{number}"
            found.append({**entry, "app": app, "device_s": device_s, "usd_per_gpu_hour": None})
    return found


def _name_states(db: sa.Connection) -> None:
    """Decided where there is a decision; cancelled where all drivers left without one; else as good as running."""
    driven = set(db.scalars(sa.select(_DRIVERS.c.study)))
    at_work = set(db.scalars(sa.select(_DRIVERS.c.study).where(_DRIVERS.c.seen_at > 0)))
    unfinished = set(db.scalars(sa.select(_TRIALS.c.study).where(_TRIALS.c.state == "running")))
    for study, decision in db.execute(sa.select(_STUDIES.c.name, _STUDIES.c.decision)).all():
        if decision is not None:
            state = "decided"
        elif study not in driven:
            state = "queued"
        else:
            state = "running" if study in at_work | unfinished else "cancelled"
        db.execute(sa.update(_STUDIES).where(_STUDIES.c.name == study).values(state=state))


def _name_deployments(db: sa.Connection) -> None:
    """What a candidate would deploy was always one layout, and called so."""
    for study, ranked in db.execute(sa.select(_STUDIES.c.name, _STUDIES.c.ranked)).all():
        if ranked is not None:
            named = [
                {"deployment" if key == "layout" else key: v for key, v in one.items()} for one in json.loads(ranked)
            ]
            db.execute(sa.update(_STUDIES).where(_STUDIES.c.name == study).values(ranked=json.dumps(named)))
