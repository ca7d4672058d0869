"""Version 6: rounds, deployments, rollouts, looks, watchers, and clusters whose workers alone may run a study."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add tables and a column; of what an older version wrote nothing was deployed by Parlay, and all is anybody's."""
    op.create_table(
        "parlay_rounds",
        sa.Column("study", sa.String(200), primary_key=True),
        sa.Column("base", sa.String(200), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
    )
    op.create_table(
        "parlay_watched",
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
    op.create_table(
        "parlay_live",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("watched", sa.String(200), nullable=False),
        sa.Column("study", sa.String(200), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
    )
    op.create_table(
        "parlay_rollouts",
        sa.Column("watched", sa.String(200), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("step", sa.String(20), nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
    )
    op.create_table(
        "parlay_canaries",
        sa.Column("watched", sa.String(200), primary_key=True),
        sa.Column("rollout", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("look", sa.JSON, nullable=False),
    )
    op.create_index("parlay_rounds_of", "parlay_rounds", ["base", "number"], unique=True)
    op.create_index("parlay_live_of", "parlay_live", ["watched", "created_s"])
    op.create_index("parlay_live_study", "parlay_live", ["study"])
    op.add_column("parlay_orders", sa.Column("cluster", sa.String(200)))
    _looks()


def _looks() -> None:
    op.create_table(
        "parlay_looks",
        sa.Column("study", sa.String(200), primary_key=True),
        sa.Column("deployment", sa.String(200), primary_key=True),
        sa.Column("at", sa.Float, primary_key=True),
        sa.Column("look", sa.Text, nullable=False),
    )
    op.create_table(
        "parlay_said",
        sa.Column("study", sa.String(200), primary_key=True),
        sa.Column("layout", sa.String(400), primary_key=True),
        sa.Column("wish", sa.String(20), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
