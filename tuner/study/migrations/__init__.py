"""How the tables of an older version become those of the present one: one file of ``versions/`` for each version.

The table ``parlay_schema`` says which version a database has. Alembic's own notes are kept beside it, in a table that
is not Optuna's, and are written anew from it at each upgrade.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

NOTES = "parlay_alembic_version"
_ONE_AT_A_TIME = threading.Lock()  # Alembic's ``op`` and ``context`` are one for the whole process


def upgrade(db: Connection, found: int, to: str = "head") -> None:
    """Bring a database of version ``found`` (0: an empty one) up to a revision, all of it in the transaction of ``db``.

    On a database that knows no such transaction it would leave a failed upgrade half done; SQLite and PostgreSQL do.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = db
    with _ONE_AT_A_TIME:
        command.stamp(config, f"{found:04d}" if found else "base", purge=True)
        command.upgrade(config, to)
