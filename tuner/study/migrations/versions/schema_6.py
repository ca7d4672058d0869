"""Version 6: clusters whose workers alone may run a study."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; earlier studies are anybody's."""
    op.add_column("parlay_orders", sa.Column("cluster", sa.String(200)))
