"""The tables of the study store as they are now; ``tuner.study.migrations`` brings those of older versions here."""

from __future__ import annotations

import sqlalchemy as sa

from tuner.study.lifecycle import StudyState
from tuner.trial.results import Purpose

SCHEMA_VERSION = 6

META = sa.MetaData()
VERSIONS = sa.Table("parlay_schema", META, sa.Column("version", sa.Integer, primary_key=True))
STUDIES = sa.Table(
    "parlay_studies",
    META,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("candidates_total", sa.Integer),
    sa.Column("ranked", sa.Text),
    sa.Column("dropped", sa.Text),
    sa.Column("decision", sa.JSON),
    sa.Column("state", sa.String(20), nullable=False, server_default=StudyState.QUEUED.value),
    sa.Column("kept", sa.Integer),
    sa.Column("kin", sa.String(64)),  # as ``warm_start.kin_of``: None until it is known where the study runs
)
# A list of studies, and the queue among thousands that have ended: their rows are long.
_BY_AGE = sa.Index("parlay_by_age", STUDIES.c.created_at, STUDIES.c.name)
_BY_STATE = sa.Index("parlay_by_state", STUDIES.c.state, STUDIES.c.created_at, STUDIES.c.name)
_BY_KIN = sa.Index("parlay_by_kin", STUDIES.c.kin, STUDIES.c.created_at)
TRIALS = sa.Table(
    "parlay_trials",
    META,
    sa.Column("study", sa.ForeignKey("parlay_studies.name"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("layout", sa.String(300), nullable=False),
    sa.Column("app", sa.String(200), nullable=False),
    sa.Column("log_dir", sa.Text, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("failure", sa.String(40)),
    sa.Column("detail", sa.Text),
    sa.Column("log_tail", sa.JSON),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("ready_after_s", sa.Float),
    sa.Column("seconds", sa.Float),
    sa.Column("purpose", sa.String(20), nullable=False, server_default=Purpose.EXPLORE.value),
    sa.Column("repeat", sa.Integer, nullable=False, server_default="0"),
    sa.Column("driver", sa.String(200), nullable=False, server_default=""),
    sa.Column("placement", sa.JSON),
    sa.Column("launched", sa.JSON(none_as_null=True)),
)
# The claim: of all drivers of a study, one launches a layout for the n-th time.
_CLAIMS = sa.Index("parlay_claims", TRIALS.c.study, TRIALS.c.layout, TRIALS.c.repeat, unique=True)
# What each launch took, by the deployment's name; a trial that is forgotten stays here.
LEDGER = sa.Table(
    "parlay_ledger",
    META,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("app", sa.String(200), primary_key=True),
    sa.Column("layout", sa.String(300)),
    sa.Column("outcome", sa.String(20), nullable=False),
    sa.Column("ordered_s", sa.Float),
    sa.Column("device_s", sa.Float),
    sa.Column("usd_per_gpu_hour", sa.Float),
    sa.Column("owner", sa.String(60)),  # the account of the study's order; null of one of the command line
    sa.Column("began_at", sa.Float),  # s since 1970; null where it is not known any more
)
_BY_OWNER = sa.Index("parlay_by_owner", LEDGER.c.owner, LEDGER.c.began_at)
DRIVERS = sa.Table(
    "parlay_drivers",
    META,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("driver", sa.String(200), primary_key=True),
    sa.Column("seen_at", sa.Float, nullable=False),
    sa.Column("study_s", sa.Float, nullable=False),
)
STEPS = sa.Table(
    "parlay_steps",
    META,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("trial", sa.Integer, primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True),
    sa.Column("result", sa.Text, nullable=False),
)
# What a service was asked to run; a study of the command line has none.
ORDERS = sa.Table(
    "parlay_orders",
    META,
    sa.Column("study", sa.ForeignKey("parlay_studies.name"), primary_key=True),
    sa.Column("owner", sa.String(60), nullable=False),
    sa.Column("launcher", sa.String(20), nullable=False),
    sa.Column("seed", sa.Integer),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("submitted_at", sa.Float, nullable=False),
    sa.Column("worker", sa.String(200), nullable=False, server_default=""),
    sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),
    sa.Column("wish", sa.String(20)),
    sa.Column("idempotency_key", sa.String(200)),
    sa.Column("problem", sa.Text),
    sa.Column("discovers", sa.Boolean, nullable=False, server_default=sa.false()),  # its worker finds the cluster
    sa.Column("cluster", sa.String(200)),  # whose workers alone may run it; null: those that name none
)
_ONCE = sa.Index("parlay_once", ORDERS.c.owner, ORDERS.c.idempotency_key, unique=True)
EVENTS = sa.Table(
    "parlay_events",
    META,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("data", sa.Text, nullable=False),
)
TOKENS = sa.Table(
    "parlay_tokens",
    META,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("scope", sa.String(20), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    sa.Column("previous_digest", sa.String(64)),  # of the secret before the last rotation, until it ends
    sa.Column("previous_until", sa.Float),
)
# What an account may spend: a token, a subject of an identity provider, or "*", all that have no line of their own.
QUOTAS = sa.Table(
    "parlay_quotas",
    META,
    sa.Column("account", sa.String(60), primary_key=True),
    sa.Column("gpu_hours", sa.Float),
    sa.Column("window_days", sa.Float, nullable=False),
    sa.Column("studies", sa.Integer),
)
AUDIT = sa.Table(
    "parlay_audit",
    META,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("token", sa.String(60), nullable=False),
    sa.Column("action", sa.String(40), nullable=False),
    sa.Column("target", sa.String(200), nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
)
# Clusters whose devices several studies share, each with the number of its last device lease.
CLUSTERS = sa.Table(
    "parlay_clusters",
    META,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("token", sa.Integer, nullable=False, server_default="0"),
)
# What a trial holds of such a cluster; without a token: what a driver waits for.
DEVICE_LEASES = sa.Table(
    "parlay_device_leases",
    META,
    sa.Column("cluster", sa.String(200), primary_key=True),
    sa.Column("app", sa.String(300), primary_key=True),
    sa.Column("study", sa.String(200), nullable=False),
    sa.Column("driver", sa.String(200), nullable=False),
    sa.Column("token", sa.Integer),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("held", sa.JSON, nullable=False),
    sa.Column("alone", sa.Boolean, nullable=False),
)
WORKERS = sa.Table(
    "parlay_workers",
    META,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
    sa.Column("launchers", sa.JSON, nullable=False),
    sa.Column("clusters", sa.JSON, nullable=False),
    sa.Column("study", sa.String(200)),
)
LOGS = sa.Table(
    "parlay_logs",
    META,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("trial", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)
# What was seen of what watched studies serve, look by look; the fingerprint only where it is another than before.
LOOKS = sa.Table(
    "parlay_looks",
    META,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("deployment", sa.String(200), primary_key=True),
    sa.Column("at", sa.Float, primary_key=True),
    sa.Column("look", sa.Text, nullable=False),
)
# What a human said of a layout that was proposed: approve, veto or force.
SAID = sa.Table(
    "parlay_said",
    META,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("layout", sa.String(400), primary_key=True),
    sa.Column("wish", sa.String(20), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
# Studies that no rule archives or deletes.
PINS = sa.Table(
    "parlay_pins",
    META,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
)
# Studies by which the same request was decided again; ``base`` is the first of them.
ROUNDS = sa.Table(
    "parlay_rounds",
    META,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("base", sa.String(200), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
)
_ROUNDS = sa.Index("parlay_rounds_of", ROUNDS.c.base, ROUNDS.c.number, unique=True)
# Studies whose deployments are watched, and who watches: one process at a time, by the number of its claim.
WATCHED = sa.Table(
    "parlay_watched",
    META,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("policy", sa.JSON, nullable=False),
    sa.Column("site", sa.JSON, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("watcher", sa.String(200), nullable=False, server_default=""),
    sa.Column("token", sa.Integer, nullable=False, server_default="0"),
    sa.Column("seen_at", sa.Float, nullable=False, server_default="0"),
    sa.Column("memory", sa.JSON, nullable=False),
)
LIVE = sa.Table(
    "parlay_live",
    META,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("watched", sa.String(200), nullable=False),
    sa.Column("study", sa.String(200), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("created_s", sa.Float, nullable=False),
    sa.Column("record", sa.JSON, nullable=False),
)
_LIVE = sa.Index("parlay_live_of", LIVE.c.watched, LIVE.c.created_s)
_LIVE_STUDY = sa.Index("parlay_live_study", LIVE.c.study)
ROLLOUTS = sa.Table(
    "parlay_rollouts",
    META,
    sa.Column("watched", sa.String(200), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("step", sa.String(20), nullable=False),
    sa.Column("record", sa.JSON, nullable=False),
)
# What was seen of both sides while a canary had traffic, look by look.
CANARIES = sa.Table(
    "parlay_canaries",
    META,
    sa.Column("watched", sa.String(200), primary_key=True),
    sa.Column("rollout", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("look", sa.JSON, nullable=False),
)
# What goes with a study, in an order in which it can.
OF_A_STUDY = (STEPS, TRIALS, LEDGER, DRIVERS, EVENTS, ORDERS, DEVICE_LEASES, LOGS, PINS, ROUNDS, LOOKS, SAID)
