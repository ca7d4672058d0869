"""Asking something that runs to end: a value that is handed down to whatever waits, in any thread.

The one who asks sets the handle; the one who works looks at it, or waits by it, and ends with ``Cancelled`` after it
has cleaned up. Nothing is interrupted from outside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tuner.errors import Cancelled, Cause


class CancelHandle:
    """Set once, by the first who asks; safe to use from any thread.

    Not from within a signal handler, which may find its own thread inside the lock: a handler asks in a new thread.
    """

    def __init__(self) -> None:
        self._lock, self._set = threading.Lock(), threading.Event()
        self._asked: Cancelled | None = None
        self._listeners: list[Callable[[Cause, str], None]] = []

    def cancel(self, cause: Cause, words: str = "") -> None:
        """Ask for the end; only the first to ask is heard."""
        with self._lock:
            if self._asked is not None:
                return
            self._asked = Cancelled(cause, words)
            told = list(self._listeners)
        self._set.set()
        for call in told:
            call(cause, words)

    @property
    def cause(self) -> Cause | None:
        """Who asked, or None while nobody has."""
        asked = self._asked
        return None if asked is None else asked.cause

    @property
    def words(self) -> str | None:
        """What was said when it was asked, or None while nobody has."""
        asked = self._asked
        return None if asked is None else asked.words

    def raise_if_cancelled(self) -> None:
        """Raise Cancelled where somebody has asked."""
        if (asked := self._asked) is not None:
            raise Cancelled(asked.cause, asked.words)

    def wait(self, seconds: float) -> None:
        """Let so many seconds go by; raises Cancelled as soon as somebody asks."""
        self._set.wait(max(0.0, seconds))
        self.raise_if_cancelled()

    @contextmanager
    def listening(self, call: Callable[[Cause, str], None]) -> Iterator[None]:
        """Have ``call`` told when somebody asks, in the thread that does; at once where somebody has already."""
        with self._lock:
            self._listeners.append(call)
            asked = self._asked
        try:
            if asked is not None:
                call(asked.cause, asked.words)
            yield
        finally:
            with self._lock:
                self._listeners.remove(call)
