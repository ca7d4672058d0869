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
from serve.load.exact_timer import Alarm
from serve.load.request_sample import Outcome, Sample
from serve.load.request_spec import Call, OpenCall, Timeouts
from serve.load.saturation import ClientLoad, Heartbeat
from serve.load.sent_request import SHORTEST_SLEEP_S, SentRequest

Then = Callable[[Call, Sample], Call | None]
"""Told of every sample; answers with the call that follows from it, if any."""


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
        self._open: dict[int, SentRequest] = {}
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
            OpenCall(one.call.index, one.call.intended_s, one.sent_s, one.first_token_s) for one in self._open.values()
        ]

    def stop(self, *, cut_off: bool = False) -> None:
        """End the window early: nothing more is sent. What is in flight is waited for, or with ``cut_off`` dropped."""
        self._stopped = True
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
        if cut_off:
            for request in list(self._open.values()):
                self.expire(request, Outcome.CUT_OFF, None)
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

    def _send(self, call: Call) -> None:
        assert self._start_s is not None
        request = SentRequest(self, call, self._start_s)
        if call.index in self._open:
            raise ValueError(f"two calls have the index {call.index}")
        self._open[call.index] = request
        self.sent += 1
        loop = asyncio.get_running_loop()
        request.timers.append(loop.call_later(self.timeouts.total_s, request.expired))
        connection = self._pool.idle()
        if connection is None:
            request.connection = loop.create_task(self._connect(request))
        else:
            self._begin(request, connection)

    def _begin(self, request: SentRequest, connection: Connection) -> None:
        request.connection = connection
        if self.timeouts.first_byte_s is not None:
            timer = asyncio.get_running_loop().call_later(self.timeouts.first_byte_s, request.expired)
            request.timers.append(timer)
        body = request.call.body
        connection.begin(request, b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    async def _connect(self, request: SentRequest) -> None:
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                connection = await self._pool.connect()
        except Exception as error:
            if request.call.index in self._open:
                self.expire(request, *unconnected(error))
            return
        if request.call.index not in self._open:
            connection.close()
            return
        try:
            self._begin(request, connection)
        except Exception as error:
            self._fail(error)

    def expire(self, request: SentRequest, outcome: Outcome, detail: str | None) -> None:
        """End a request from our side."""
        request.disconnect()
        self.request_ended(request, outcome, detail, reusable=False)

    def request_ended(self, request: SentRequest, outcome: Outcome, detail: str | None, reusable: bool) -> None:
        """Make the sample, and what follows from it."""
        for timer in request.timers:
            timer.cancel()
        call = request.call
        del self._open[call.index]
        if reusable and isinstance(request.connection, Connection):
            self._pool.give_back(request.connection)
        sample = request.sample(outcome, detail)
        self.samples.append(sample)
        if self._then is not None and not self._stopped:
            try:
                self._follow(self._then(call, sample))
            except Exception as error:
                self._fail(error)
        if not self._open:
            self._changed.set()

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
        for request in self._open.values():
            for timer in request.timers:
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
