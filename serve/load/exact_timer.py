"""Waking an event loop at an exact time.

The timers of asyncio's and libuv's loops have whole milliseconds, and a schedule of arrivals needs better: Linux has
timers that are files (timerfd_create(2)), which a loop can watch. Elsewhere the loop's own timers serve.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time

_CLOCK_MONOTONIC, _TFD_TIMER_ABSTIME = 1, 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC have the same values
_SHORTEST_S = 0.001  # a shorter sleep of a loop's own timer would spin


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """One waiter on the running loop; ``close`` it when done. ``perf_counter`` is CLOCK_MONOTONIC on Linux."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._file: int | None = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            number = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
            if number < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            self._file = number
            self._loop.add_reader(number, self._ring)

    async def wait_until(self, when_s: float) -> None:
        """Return at ``when_s`` of ``time.perf_counter``, at once when that is past, or when woken."""
        self._waiter = self._loop.create_future()
        if when_s <= time.perf_counter():
            return
        timer: asyncio.TimerHandle | None = None
        if self._file is None:
            timer = self._loop.call_later(max(when_s - time.perf_counter(), _SHORTEST_S), self.wake)
        else:
            whole_s, rest_s = divmod(when_s, 1.0)
            value = _Itimerspec(_Timespec(0, 0), _Timespec(int(whole_s), int(rest_s * 1e9) + 1))
            self._libc.timerfd_settime(self._file, _TFD_TIMER_ABSTIME, ctypes.byref(value), None)
        try:
            await self._waiter
        finally:
            if timer is not None:
                timer.cancel()

    def _ring(self) -> None:
        assert self._file is not None
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # set anew since it rang
            return
        self.wake()

    def wake(self) -> None:
        """End the wait now."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Free the timer."""
        if self._file is not None:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = None
