"""Version 2: a layout may have several trials, and a study several drivers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what a trial needs for that, and the drivers."""
    for column in (
        sa.Column("purpose", sa.String(20), nullable=False, server_default="explore"),
        sa.Column("repeat", sa.Integer, nullable=False, server_default="0"),
        sa.Column("device_s", sa.Float),
        sa.Column("driver", sa.String(200), nullable=False, server_default=""),
        sa.Column("placement", sa.JSON),
        sa.Column("ordered_s", sa.Float),
    ):
        op.add_column("parlay_trials", column)
    op.create_index("parlay_claims", "parlay_trials", ["study", "layout", "repeat"], unique=True)
    op.create_table(
        "parlay_drivers",
        sa.Column("study", sa.String(200), primary_key=True),
        sa.Column("driver", sa.String(200), primary_key=True),
        sa.Column("seen_at", sa.Float, nullable=False),
        sa.Column("study_s", sa.Float, nullable=False),
        sa.Column("lost_device_s", sa.Float, nullable=False, server_default="0"),
        sa.Column("lost_trials", sa.Integer, nullable=False, server_default="0"),
    )
