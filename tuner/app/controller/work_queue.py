"""What is to be looked at: each key once, however often it is put in, and never by two threads at a time."""

from __future__ import annotations

import heapq
import threading
import time

from deploy.controller.names import Key

BACKOFF_S = (0.2, 1.0, 2.0, 5.0, 15.0, 60.0)  # after so many failures in a row


class WorkQueue:
    """Keys that wait, that are worked on, and that come back later. Any thread may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Key, float] = {}  # since when, by time.monotonic
        self._unhurried: dict[Key, float] = {}  # the same, of those for which nobody waits
        self._busy: dict[Key, float | None] = {}  # put in again since
        self._later: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}  # the earliest of a key's there; others of it are of no account
        self._failures: dict[Key, int] = {}
        self._closed = False

    def add(self, key: Key, *, hurry: bool = True) -> None:
        """Have it looked at; what is in no ``hurry`` comes behind all that is."""
        with self._changed:
            if hurry or key in self._busy:
                self._add(key, time.monotonic())
            elif key not in self._waiting:
                self._unhurried.setdefault(key, time.monotonic())
                self._changed.notify()

    def add_after(self, key: Key, seconds: float) -> None:
        """Have it looked at then, or sooner where that was asked for before."""
        with self._changed:
            at = time.monotonic() + seconds
            if self._due.get(key, at + 1) > at:
                self._due[key] = at
                heapq.heappush(self._later, (at, key))
                self._changed.notify()

    def take(self) -> tuple[Key, float] | None:
        """The next, and for how long it waited, in s; it waits for one. None at the end."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    at, key = heapq.heappop(self._later)
                    if self._due.get(key) == at:
                        del self._due[key]
                        self._add(key, now)
                if waiting := self._waiting or self._unhurried:
                    key = next(iter(waiting))
                    since = waiting.pop(key)
                    self._busy[key] = None
                    return key, now - since
                self._changed.wait(self._later[0][0] - now if self._later else None)
            return None

    def done(self, key: Key, well: bool) -> None:
        """It was looked at; where that did not go well, it comes back, the later the more often that was so."""
        with self._changed:
            again = self._busy.pop(key, None)
            if again is not None:
                self._add(key, again)
            if well:
                self._failures.pop(key, None)
                return
            failures = self._failures[key] = self._failures.get(key, 0) + 1
        self.add_after(key, BACKOFF_S[min(failures, len(BACKOFF_S)) - 1])

    def close(self) -> None:
        """Let everybody who waits for a key go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._waiting) + len(self._unhurried)

    def _add(self, key: Key, since: float) -> None:
        if key in self._busy:
            if self._busy[key] is None:
                self._busy[key] = since
        elif key not in self._waiting:
            self._waiting[key] = min(since, self._unhurried.pop(key, since))
        self._changed.notify()
