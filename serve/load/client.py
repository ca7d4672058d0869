"""A streaming client for OpenAI-compatible completions and chats, in open and in closed loop.

Every request is sent at its intended time, whatever the server does; nothing waits for a free connection and nothing
is retried. All times are seconds of one ``time.perf_counter`` clock from the start of the window. Generated tokens are
counted from ``usage``, never from the text, which may be empty; one event of the stream may carry several tokens.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from serve.load.connection import Connection
from serve.load.connection_pool import Pool, raise_file_limit, unconnected
from serve.load.endpoint import Endpoint
from serve.load.event_stream import Answer
from serve.load.exact_timer import Alarm
from serve.load.request_sample import Outcome, Sample
from serve.load.request_spec import Call, OpenCall, Timeouts
from serve.load.saturation import ClientLoad, Heartbeat

__all__ = ["Call", "Endpoint", "LoadRun", "OpenCall", "Timeouts"]

# Timers have whole milliseconds: a shorter sleep would spin.
SHORTEST_SLEEP_S = 0.001


Then = Callable[[Call, Sample], Call | None]
"""Told of every sample; answers with the call that follows from it, if any."""


class _Exchange:
    """One request on its way."""

    __slots__ = (
        "answer",
        "call",
        "connection",
        "first_byte_s",
        "last_byte_s",
        "run",
        "sent_s",
        "status",
        "timers",
    )

    def __init__(self, run: LoadRun, call: Call, sent_s: float) -> None:
        self.run, self.call, self.sent_s = run, call, sent_s
        self.answer = Answer(call.output_tokens, call.keep_text)
        self.first_byte_s: float | None = None
        self.last_byte_s: float | None = None
        self.status: int | None = None
        self.connection: Connection | asyncio.Task[None] | None = None
        self.timers: list[asyncio.TimerHandle] = []

    def first_byte(self) -> None:
        """The answer begins: from here on the stall limit holds instead of the first byte's."""
        if len(self.timers) > 1:
            self.timers.pop().cancel()
        if self.run.timeouts.stall_s is not None:
            self.watch_stall(self.run.timeouts.stall_s)

    def watch_stall(self, wait_s: float) -> None:
        """Look again after ``wait_s`` whether anything came."""
        self.timers.append(asyncio.get_running_loop().call_later(wait_s, self.check_stall))

    def check_stall(self) -> None:
        """Give up when nothing came for the stall limit."""
        limit_s = self.run.timeouts.stall_s
        assert limit_s is not None
        assert self.last_byte_s is not None
        self.timers.pop()
        quiet_s = time.perf_counter() - self.last_byte_s
        if quiet_s >= limit_s:
            self.run.expire(self, Outcome.STALLED, f"nothing for {quiet_s:.3g} s")
        else:
            self.watch_stall(max(limit_s - quiet_s, SHORTEST_SLEEP_S))

    def expired(self) -> None:
        """The request's whole time is over."""
        if self.first_byte_s is None:
            self.run.expire(self, *self.run.silence(self))
            return
        assert self.last_byte_s is not None
        quiet_s = time.perf_counter() - self.last_byte_s
        stalled = quiet_s > self.run.timeouts.total_s / 2
        words = f"after {len(self.answer.chunk_s)} events, the last byte {quiet_s:.3g} s ago"
        self.run.expire(self, Outcome.STALLED if stalled else Outcome.TIMEOUT, words)

    def ended(self, outcome: Outcome, detail: str | None, reusable: bool) -> None:
        """The answer is whole, or failed."""
        self.run.exchange_ended(self, outcome, detail, reusable)


class LoadRun:
    """One window of load on one endpoint; its counters may be read while it runs.

    ``timeouts`` may be the seconds in all. Retries do not exist: a request that fails is a sample that says so.
    """

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts | float) -> None:
        self.endpoint = endpoint
        self.timeouts = timeouts if isinstance(timeouts, Timeouts) else Timeouts(timeouts)
        self.sent = 0
        self.samples: list[Sample] = []
        self.client_load: ClientLoad | None = None
        self._start_s: float | None = None
        self._head, self._pool = endpoint.request_head(), Pool(endpoint, self._fail)
        self._open: dict[int, _Exchange] = {}
        self._later: dict[int, asyncio.TimerHandle] = {}
        self._then: Then | None = None
        self._stopped = False
        self._error: BaseException | None = None
        self._alarm: Alarm | None = None
        self._changed = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Requests sent and not yet ended."""
        return len(self._open)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the window opened; 0 before."""
        return 0.0 if self._start_s is None else max(0.0, self._now())

    def open_calls(self) -> list[OpenCall]:
        """The requests in flight, oldest first."""
        return [
            OpenCall(one.call.index, one.call.intended_s, one.sent_s, self._since_start(one.answer.chunk_s[:1]))
            for one in self._open.values()
        ]

    def stop(self, *, cut_off: bool = False) -> None:
        """End the window early: nothing more is sent. What is in flight is waited for, or with ``cut_off`` dropped."""
        self._stopped = True
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
        if cut_off:
            for exchange in list(self._open.values()):
                self.expire(exchange, Outcome.CUT_OFF, None)
        self._wake()

    async def run(
        self, calls: Iterable[Call], then: Then | None = None, start_at_s: float | None = None
    ) -> list[Sample]:
        """Send every call at its intended time, wait for all answers, and return the samples in order of their index.

        ``calls`` come by rising ``intended_s``; each is drawn before its time is awaited, so that making its body
        costs no lag unless the client is saturated. ``then`` is told of every sample and may answer with a call to
        make next, at its ``intended_s`` or at once when that is past: a user of a closed loop, the next turn of a
        session. ``start_at_s`` is the ``perf_counter`` at which the window opens, by default now. Ends at most the
        total timeout after the last send. A cancellation closes every connection.
        """
        raise_file_limit()
        self._then = then
        with _no_collections():
            heartbeat, alarm = Heartbeat(), Alarm()
            self._start_s, self._alarm = time.perf_counter() if start_at_s is None else start_at_s, alarm
            try:
                await self._offer(calls, alarm)
                while (self._open or self._later) and self._error is None:
                    self._changed.clear()
                    await self._changed.wait()
            finally:
                self.client_load, self._alarm = heartbeat.stop(), None
                alarm.close()
                await self._close()
        if self._error is not None:
            raise self._error
        return sorted(self.samples, key=lambda sample: sample.index)

    async def _offer(self, calls: Iterable[Call], alarm: Alarm) -> None:
        assert self._start_s is not None
        for call in calls:
            while call.intended_s > self._now() and not self._stopped:
                await alarm.wait_until(self._start_s + call.intended_s)
            if self._stopped or self._error is not None:
                return
            self._send(call)
            if self.sent % 64 == 0:
                await asyncio.sleep(0)  # a schedule that is behind must not keep answers from being read

    def _now(self) -> float:
        assert self._start_s is not None  # set by run before anything is sent
        return time.perf_counter() - self._start_s

    def _since_start(self, first: list[float]) -> float | None:
        assert self._start_s is not None
        return first[0] - self._start_s if first else None

    def _send(self, call: Call) -> None:
        exchange = _Exchange(self, call, self._now())
        if call.index in self._open:
            raise ValueError(f"two calls have the index {call.index}")
        self._open[call.index] = exchange
        self.sent += 1
        loop = asyncio.get_running_loop()
        exchange.timers.append(loop.call_later(self.timeouts.total_s, exchange.expired))
        connection = self._pool.idle()
        if connection is None:
            exchange.connection = loop.create_task(self._connect(exchange))
        else:
            self._begin(exchange, connection)

    def _begin(self, exchange: _Exchange, connection: Connection) -> None:
        exchange.connection = connection
        if self.timeouts.first_byte_s is not None:
            timer = asyncio.get_running_loop().call_later(self.timeouts.first_byte_s, exchange.expired)
            exchange.timers.append(timer)
        body = exchange.call.body
        connection.begin(exchange, b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    async def _connect(self, exchange: _Exchange) -> None:
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                connection = await self._pool.connect()
        except Exception as error:
            if exchange.call.index in self._open:
                self.expire(exchange, *unconnected(error))
            return
        if exchange.call.index not in self._open:
            connection.close()
            return
        try:
            self._begin(exchange, connection)
        except Exception as error:
            self._fail(error)

    def silence(self, exchange: _Exchange) -> tuple[Outcome, str]:
        """What it means that not a byte came in time."""
        if isinstance(exchange.connection, Connection):
            return Outcome.NO_ANSWER, f"no byte of an answer after {self._now() - exchange.sent_s:.3g} s"
        return Outcome.CONNECT_TIMEOUT, f"no connection after {self._now() - exchange.sent_s:.3g} s"

    def expire(self, exchange: _Exchange, outcome: Outcome, detail: str | None) -> None:
        """End an exchange from our side."""
        if isinstance(exchange.connection, Connection):
            exchange.connection.close()
        elif exchange.connection is not None and exchange.connection is not asyncio.current_task():
            exchange.connection.cancel()
        self.exchange_ended(exchange, outcome, detail, reusable=False)

    def exchange_ended(self, exchange: _Exchange, outcome: Outcome, detail: str | None, reusable: bool) -> None:
        """Make the sample, and what follows from it."""
        for timer in exchange.timers:
            timer.cancel()
        call = exchange.call
        del self._open[call.index]
        if reusable and isinstance(exchange.connection, Connection):
            self._pool.give_back(exchange.connection)
        sample = self._sample(exchange, outcome, detail)
        self.samples.append(sample)
        if self._then is not None and not self._stopped:
            try:
                self._follow(self._then(call, sample))
            except Exception as error:
                self._fail(error)
        if not self._open:
            self._changed.set()

    def _sample(self, exchange: _Exchange, outcome: Outcome, detail: str | None) -> Sample:
        call, answer, start_s = exchange.call, exchange.answer, self._start_s
        assert start_s is not None
        return Sample(
            index=call.index,
            intended_s=call.intended_s,
            sent_s=exchange.sent_s,
            headers_s=None if exchange.first_byte_s is None else exchange.first_byte_s - start_s,
            chunk_s=tuple([one_s - start_s for one_s in answer.chunk_s]),
            end_s=self._now(),
            prompt_tokens=call.prompt_tokens,
            output_tokens=answer.output_tokens,
            outcome=outcome,
            status=exchange.status,
            detail=detail,
            counted_prompt_tokens=answer.prompt_tokens,
            text="".join(answer.text) if call.keep_text else None,
        )

    def _follow(self, call: Call | None) -> None:
        if call is None:
            return
        wait_s = call.intended_s - self._now()
        if wait_s <= 0:
            self._send(call)
            return

        def due() -> None:
            del self._later[call.index]
            try:
                self._follow(call)  # timers have whole milliseconds and may wake early
            except Exception as error:
                self._fail(error)

        timer = asyncio.get_running_loop().call_later(max(wait_s, SHORTEST_SLEEP_S), due)
        self._later[call.index] = timer

    def _fail(self, error: BaseException) -> None:
        """A defect of ours or of ``then``: the run ends with it."""
        self._error = self._error or error
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        if self._alarm is not None:
            self._alarm.wake()

    async def _close(self) -> None:
        for timer in self._later.values():
            timer.cancel()
        connecting = [one.connection for one in self._open.values() if isinstance(one.connection, asyncio.Task)]
        for task in connecting:
            task.cancel()
        for exchange in self._open.values():
            for timer in exchange.timers:
                timer.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)
        self._pool.close()


@contextmanager
def _no_collections() -> Iterator[None]:
    """No garbage collection inside: with many samples alive, one takes longer than a token."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
