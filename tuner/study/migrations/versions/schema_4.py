"""Version 4: what a service needs: orders and what workers do of them, the events of a study, tokens, and an audit."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_STUDIES = sa.table("parlay_studies", *map(sa.column, ("name", "ranked", "kept")))


def upgrade() -> None:
    """Add the tables, and what finds studies by age and state among thousands; nothing that was there changes."""
    op.create_index("parlay_by_age", "parlay_studies", ["created_at", "name"])
    op.create_index("parlay_by_state", "parlay_studies", ["state", "created_at", "name"])
    op.add_column("parlay_studies", sa.Column("kept", sa.Integer))
    _count_kept(op.get_bind())
    op.create_table(
        "parlay_orders",
        sa.Column("study", sa.String(200), sa.ForeignKey("parlay_studies.name"), primary_key=True),
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
    )
    op.create_index("parlay_once", "parlay_orders", ["owner", "idempotency_key"], unique=True)
    op.create_table(
        "parlay_events",
        sa.Column("study", sa.String(200), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_table(
        "parlay_tokens",
        sa.Column("id", sa.String(60), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(20), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
    )
    op.create_table(
        "parlay_audit",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("token", sa.String(60), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("target", sa.String(200), nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
    )


def _count_kept(db: sa.Connection) -> None:
    """How many candidates each plan has kept, so that nobody reads all of them to count them."""
    for name in db.scalars(sa.select(_STUDIES.c.name).where(_STUDIES.c.ranked.is_not(None))).all():
        this = _STUDIES.c.name == name
        ranked = db.scalar(sa.select(_STUDIES.c.ranked).where(this))
        db.execute(sa.update(_STUDIES).where(this).values(kept=len(json.loads(ranked or "[]"))))
