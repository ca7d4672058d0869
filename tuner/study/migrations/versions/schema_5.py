"""Version 5: devices that studies share, workers, logs, pins, kinship; owners of launches, quotas, rotated tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_LEDGER = sa.table("parlay_ledger", *map(sa.column, ("study", "app", "owner", "began_at")))
_ORDERS = sa.table("parlay_orders", *map(sa.column, ("study", "owner")))
_TRIALS = sa.table("parlay_trials", *map(sa.column, ("study", "app", "started_at")))


def upgrade() -> None:
    """Add tables and columns. What is known of earlier launches is filled in; kinship of older studies when asked."""
    op.add_column("parlay_studies", sa.Column("kin", sa.String(64)))
    op.create_index("parlay_by_kin", "parlay_studies", ["kin", "created_at"])
    op.add_column("parlay_orders", sa.Column("discovers", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "parlay_clusters",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("token", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_table(
        "parlay_device_leases",
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
    op.create_table(
        "parlay_workers",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
        sa.Column("launchers", sa.JSON, nullable=False),
        sa.Column("clusters", sa.JSON, nullable=False),
        sa.Column("study", sa.String(200)),
    )
    op.create_table(
        "parlay_logs",
        sa.Column("study", sa.String(200), primary_key=True),
        sa.Column("trial", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "parlay_pins",
        sa.Column("study", sa.String(200), primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.add_column("parlay_tokens", sa.Column("previous_digest", sa.String(64)))
    op.add_column("parlay_tokens", sa.Column("previous_until", sa.Float))
    op.add_column("parlay_ledger", sa.Column("owner", sa.String(60)))
    op.add_column("parlay_ledger", sa.Column("began_at", sa.Float))
    op.create_index("parlay_by_owner", "parlay_ledger", ["owner", "began_at"])
    op.create_table(
        "parlay_quotas",
        sa.Column("account", sa.String(60), primary_key=True),
        sa.Column("gpu_hours", sa.Float),
        sa.Column("window_days", sa.Float, nullable=False),
        sa.Column("studies", sa.Integer),
    )
    _fill(op.get_bind())


def _fill(db: sa.Connection) -> None:
    """Whose a launch was is said by the study's order; when it began by its trial, which of a lost launch is gone."""
    owner = sa.select(_ORDERS.c.owner).where(_ORDERS.c.study == _LEDGER.c.study).scalar_subquery()
    same = (_TRIALS.c.study == _LEDGER.c.study) & (_TRIALS.c.app == _LEDGER.c.app)
    began = sa.select(sa.func.max(_TRIALS.c.started_at)).where(same).scalar_subquery()
    db.execute(sa.update(_LEDGER).values(owner=owner, began_at=began))
