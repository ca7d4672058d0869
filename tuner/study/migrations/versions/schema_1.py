"""Version 1: studies, their trials and load steps."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table("parlay_schema", sa.Column("version", sa.Integer, primary_key=True))
    op.create_table(
        "parlay_studies",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("candidates_total", sa.Integer),
        sa.Column("ranked", sa.Text),
        sa.Column("dropped", sa.Text),
        sa.Column("decision", sa.JSON),
    )
    op.create_table(
        "parlay_trials",
        sa.Column("study", sa.String(200), sa.ForeignKey("parlay_studies.name"), primary_key=True),
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
    )
    op.create_table(
        "parlay_steps",
        sa.Column("study", sa.String(200), primary_key=True),
        sa.Column("trial", sa.Integer, primary_key=True),
        sa.Column("index", sa.Integer, primary_key=True),
        sa.Column("result", sa.Text, nullable=False),
    )
