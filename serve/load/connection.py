"""One HTTP/1.1 connection of the load generator, which carries one request at a time.

Parsing is llhttp's (httptools); what is ours is the order of events and their times. A read is stamped once, as it
arrives: events that came in one read have one time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from serve.load.request_sample import Outcome
from serve.load.streamed_answer import Answer, BadAnswer, shown

SHOWN_BODY_BYTES = 1000  # of a refusal: what it names may stand late


class Exchange(Protocol):
    """One request on its way, as its connection sees it."""

    answer: Answer
    first_byte_s: float | None  # perf_counter
    last_byte_s: float | None
    status: int | None

    def first_byte(self) -> None:
        """The first byte of the answer came; its time is in ``first_byte_s``."""

    def ended(self, outcome: Outcome, detail: str | None, reusable: bool) -> None:
        """The answer is whole, or failed; called once. ``reusable``: the connection can carry another request."""


class Connection(asyncio.Protocol):
    """``begin`` sends a request; its exchange is told what becomes of it. ``on_lost`` is called when it has closed."""

    def __init__(self, on_lost: Callable[[Connection], None], on_bug: Callable[[BaseException], None]) -> None:
        self._on_lost, self._on_bug = on_lost, on_bug
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._body: list[bytes] = []
        self._error_body = b""
        self._content_type = b""
        self._sized = self._complete = self._headed = self._keep_alive = False
        self.idle_since_s = 0.0
        self.lost = False
        # httptools looks its callbacks up by these names
        self.on_body = self._body.append
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def begin(self, exchange: Exchange, request: bytes) -> None:
        """Send a whole request; the connection must be idle."""
        assert self._transport is not None
        assert self._exchange is None
        self._exchange = exchange
        self._transport.write(request)

    def close(self) -> None:
        """Close at once; an exchange under way is forgotten, not told."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    # -- httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        name = name.lower()
        if name == b"content-type":
            self._content_type = value.partition(b";")[0].strip().lower()
        elif name in (b"content-length", b"transfer-encoding"):
            self._sized = True

    def on_headers_complete(self) -> None:
        """All headers are here."""
        status = self._parser.get_status_code()
        if status >= 200:  # an interim answer, 100 to 199, has no body and is followed by the real one
            self._headed = True
            if self._exchange is not None:
                self._exchange.status = status

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._headed:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # it forgets when this returns

    # -- asyncio

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        exchange = self._exchange
        if exchange is None:  # bytes that nobody asked for
            self.close()
            return
        try:
            self._received(exchange, data, now_s)
        except BadAnswer as error:
            self._end(error.outcome, error.detail)
        except httptools.HttpParserError as error:
            if isinstance(error, httptools.HttpParserCallbackError):
                self._bug(error)
                return
            outcome = Outcome.RESET if self._headed else Outcome.NOT_HTTP
            self._end(outcome, f"{error}: {shown(data)}")
        except Exception as error:
            self._bug(error)

    def _received(self, exchange: Exchange, data: bytes, now_s: float) -> None:
        exchange.last_byte_s = now_s
        if exchange.first_byte_s is None:
            exchange.first_byte_s = now_s
            exchange.first_byte()
        self._parser.feed_data(data)
        if not self._headed:
            return
        if self._body:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body.clear()
            if exchange.status == 200 and self._content_type == b"text/event-stream":
                exchange.answer.feed(body, now_s)
            elif len(self._error_body) < SHOWN_BODY_BYTES:
                self._error_body += body[:SHOWN_BODY_BYTES]
            else:  # seen enough: a long body would only cost time
                self._end(*self._refusal(exchange))
                return
        if self._complete:
            self._finish(exchange, self._keep_alive)

    def _finish(self, exchange: Exchange, keep_alive: bool) -> None:
        if exchange.status != 200 or self._content_type != b"text/event-stream":
            self._end(*self._refusal(exchange), keep_alive)
        else:
            self._end(*exchange.answer.verdict(), keep_alive)

    def _refusal(self, exchange: Exchange) -> tuple[Outcome, str]:
        if exchange.status != 200:
            return Outcome.HTTP_ERROR, shown(self._error_body, SHOWN_BODY_BYTES)
        kind = self._content_type.decode("latin-1") or "no content type"
        return Outcome.NOT_A_STREAM, f"{kind}: {shown(self._error_body)}"

    def _end(self, outcome: Outcome, detail: str | None, reusable: bool = False) -> None:
        exchange, self._exchange = self._exchange, None
        self._error_body = self._content_type = b""
        self._sized = self._complete = self._headed = False
        if not reusable:
            self.close()
        if exchange is not None:
            exchange.ended(outcome, detail, reusable and not self.lost)

    def _bug(self, error: BaseException) -> None:
        self.close()
        self._on_bug(error)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        exchange = self._exchange
        try:
            if exchange is not None:
                if exchange.first_byte_s is None:
                    self._end(Outcome.CLOSED, str(error) if error else "closed in good order")
                elif error is None and self._headed and not self._sized:
                    self._finish(exchange, keep_alive=False)  # an answer without a length ends with its connection
                else:
                    seen = len(exchange.answer.chunk_s)
                    self._end(Outcome.RESET, f"after {seen} events: {error or 'closed before the answer was whole'}")
            self._on_lost(self)
        except Exception as bug:
            self._bug(bug)
