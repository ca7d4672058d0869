"""The connections of one window: as many as there are requests in flight, each used again while it is fresh."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
import time
from collections.abc import Callable

from serve.load.connection import Connection
from serve.load.endpoint import Endpoint
from serve.load.request_sample import Outcome

# Shorter than the 5 s after which uvicorn closes an idle connection: a request never meets one that is just closing.
KEEPALIVE_S = 2.0


class Pool:
    """Connections to one endpoint, whose name is looked up once; ``on_bug`` is told of a defect of ours."""

    def __init__(self, endpoint: Endpoint, on_bug: Callable[[BaseException], None]) -> None:
        self._host, self._port = endpoint.address
        self._tls, self._on_bug = endpoint.tls(), on_bug
        self._addresses: list[str] = []
        self._made = 0
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    def idle(self) -> Connection | None:
        """The one used last, which is the least likely to be closed; one idle for long is closed instead."""
        while self._idle:
            connection = self._idle.pop()
            if connection.lost:
                continue
            if time.perf_counter() - connection.idle_since_s <= KEEPALIVE_S:
                return connection
            connection.close()
        return None

    def give_back(self, connection: Connection) -> None:
        """It has carried a request, and can carry another."""
        connection.idle_since_s = time.perf_counter()
        self._idle.append(connection)

    async def connect(self) -> Connection:
        """A new connection; a server of several addresses gets them in turn. Raises what ``unconnected`` explains."""
        loop = asyncio.get_running_loop()
        if not self._addresses:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        address = self._addresses[self._made % len(self._addresses)]
        self._made += 1
        name = self._host if self._tls is not None else None
        _, connection = await loop.create_connection(
            self._new, address, self._port, ssl=self._tls, server_hostname=name
        )
        return connection

    def _new(self) -> Connection:
        connection = Connection(self._all.discard, self._on_bug)
        self._all.add(connection)
        return connection

    def close(self) -> None:
        """Close every connection at once."""
        for connection in list(self._all):
            connection.close()


def unconnected(error: Exception) -> tuple[Outcome, str]:
    """What it means that no connection came about."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, ssl.SSLError):
        return Outcome.TLS, words
    if isinstance(error, TimeoutError):
        return Outcome.CONNECT_TIMEOUT, words
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return Outcome.CLIENT_LIMIT, words
    return Outcome.REFUSED, words


def raise_file_limit() -> None:
    """Let this process open as many connections as the system allows it: each request in flight holds one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
