"""The database under the store: its connections, its transactions, and the lock between processes."""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tuner.errors import BadInput, StoreError
from tuner.study.patience import Patience
from tuner.study.schema import META, SCHEMA_VERSION, VERSIONS

_LOCK = 0x7061726C6179  # "parlay", the key of PostgreSQL's advisory lock

Listener = Callable[[str, float, bool], None]  # of a transaction: "read" or "write", its seconds, and if it failed


class Database:
    """SQLite or PostgreSQL behind an SQLAlchemy URL, with tables of the present version.

    Raises BadInput for what is no URL, StoreError where it cannot be opened or was written by a newer Parlay. One that
    is away for a while, or locked, is waited for with ``patience`` before a transaction begins, not in the midst of it.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        self._patience = patience or Patience(0.0)
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            shown = re.sub(r":[^:@]*@", ":***@", url)  # not parsed, yet it may hold a password
            raise BadInput("--store", shown, "a database URL such as sqlite:///parlay.db") from None
        shown = parsed.render_as_string(hide_password=True)
        self._listeners: list[Listener] = []
        self._turns: dict[int, threading.Lock] = {}
        try:
            if parsed.get_backend_name() == "sqlite" and parsed.database:
                Path(parsed.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
                _make_private(parsed)
            self._engine = sa.create_engine(parsed, pool_pre_ping=self._patience.most_s > 0)
            if parsed.get_backend_name() == "sqlite":
                sa.event.listen(self._engine, "connect", _durable_sqlite)
            self._prepare(shown)
        except (sa.exc.SQLAlchemyError, ImportError, OSError) as error:
            raise StoreError(f"store {shown} cannot be opened: {_cause(error)}") from None

    def _prepare(self, shown: str) -> None:
        """Make the tables, or bring those of an older version up to date; two drivers may open a new store at once."""
        with self._engine.connect() as db:
            if _version(db) == SCHEMA_VERSION:
                return
        with self.exclusive(), self._engine.begin() as db:
            if db.dialect.name == "sqlite":
                db.exec_driver_sql("BEGIN IMMEDIATE")  # Python's driver begins none before it changes tables
            found = _version(db)
            if found is not None and found > SCHEMA_VERSION:
                raise StoreError(
                    f"store {shown} has schema version {found}, this Parlay knows up to {SCHEMA_VERSION}: "
                    "use a newer Parlay, or another --store"
                )
            if found is None:
                META.create_all(db)
            elif found < SCHEMA_VERSION:
                from tuner.study.migrations import upgrade

                upgrade(db, found)
            db.execute(sa.delete(VERSIONS))
            db.execute(sa.insert(VERSIONS).values(version=SCHEMA_VERSION))

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()

    def listen(self, listener: Listener) -> None:
        """Have every transaction from now on told, in the thread that made it."""
        self._listeners.append(listener)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction: all of it is durable at the end of the block, or none."""
        try:
            with self._told("write"), self._patience.having(self._begun_to_write, sa.exc.DBAPIError) as db:
                yield db
                db.commit()
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"the store could not be written: {_cause(error)}") from None

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One transaction that sees the database as it was at one moment, whatever is written meanwhile."""
        try:
            with self._told("read"), self._patience.having(self._begun_to_read, sa.exc.DBAPIError) as db:
                yield db
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"the store could not be read: {_cause(error)}") from None

    def _begun_to_write(self) -> sa.Connection:
        """A connection with its transaction begun; SQLite's then has the file's lock for writing already."""
        db = self._engine.connect()
        if db.dialect.name == "sqlite":
            _begin(db, "BEGIN IMMEDIATE")
        return db

    def _begun_to_read(self) -> sa.Connection:
        db = self._engine.connect()
        if db.dialect.name == "sqlite":
            _begin(db, "BEGIN")  # Python's driver begins none before a query
            return db
        return db.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def _told(self, kind: str) -> Iterator[None]:
        """Tell the listeners of a transaction; that a row is taken is an answer of the database, not a failure."""
        began, failed = time.perf_counter(), False
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            failed = not isinstance(error, sa.exc.IntegrityError)
            raise
        finally:
            for listener in self._listeners:
                listener(kind, time.perf_counter() - began, failed)

    @contextmanager
    def exclusive(self, what: int = 0) -> Iterator[None]:
        """Keep out all others that ask for the same ``what``, to the end of the block; writing goes on as usual.

        Threads of this process wait for each other without a connection: all that there are would be theirs, and none
        left for the one whose turn it is.
        """
        with self._turns.setdefault(what, threading.Lock()), self._exclusive(what):
            yield

    @contextmanager
    def _exclusive(self, what: int) -> Iterator[None]:
        if self._engine.dialect.name == "postgresql":
            with self._advisory_lock(_LOCK + what):
                yield
        elif (database := self._engine.url.database) and self._engine.dialect.name == "sqlite":
            with open(f"{database}.lock{what or ''}", "w", opener=_private) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        else:
            yield

    @contextmanager
    def _advisory_lock(self, key: int) -> Iterator[None]:
        try:
            db = self._patience.having(self._engine.connect, sa.exc.DBAPIError)
            db.execute(sa.select(sa.func.pg_advisory_lock(key)))
            db.commit()  # the lock is the session's: no transaction stands open meanwhile
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"the store could not be locked: {_cause(error)}") from None
        with db:
            try:
                yield
            finally:  # where the connection is lost, so is the lock
                with suppress(sa.exc.SQLAlchemyError):
                    db.execute(sa.select(sa.func.pg_advisory_unlock(key)))
                    db.commit()


def now_s(db: sa.Connection) -> float:
    """Seconds since 1970 by one clock for all drivers: the server's, or that of the one machine that uses SQLite."""
    if db.dialect.name == "sqlite":
        return time.time()
    return float(db.scalar(sa.select(sa.func.extract("epoch", sa.func.clock_timestamp()))) or 0.0)


def _begin(db: sa.Connection, statement: str) -> None:
    try:
        db.exec_driver_sql(statement)
    except BaseException:
        db.close()
        raise


def _version(db: sa.Connection) -> int | None:
    known = sa.inspect(db).has_table(VERSIONS.name)
    return db.scalar(sa.select(VERSIONS.c.version)) if known else None


def _make_private(url: sa.URL) -> None:
    """Make a new SQLite file for its owner alone: it has digests of tokens in it. SQLite gives its journals the same
    mode. One that exists stays as its owner wants it."""
    if url.database not in (None, "", ":memory:") and not str(url.database).startswith("file:"):
        with suppress(FileExistsError):
            os.close(os.open(str(url.database), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _durable_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()


def _cause(error: Exception) -> str:
    """The driver's own first line, without the SQL and the parameters that SQLAlchemy puts after it."""
    return next(iter(str(getattr(error, "orig", None) or error).splitlines()), type(error).__name__)
