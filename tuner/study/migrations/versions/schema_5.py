"""Version 5: devices that studies share, workers and what they see, logs, pins, and kinship."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add tables and columns; nothing that was there changes. Kinship of older studies is filled in when asked."""
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
