"""How long one waits for a database that is away: a while, and after that not again until it was there once more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

WORKING_S = 60.0  # for whoever has a trial to lose
_FIRST_S, _LONGEST_S = 0.1, 5.0  # between two tries

_Had = TypeVar("_Had")


class Patience:
    """At most ``most_s`` seconds from the first failure on, over all calls and threads; ``hurry`` ends it."""

    def __init__(self, most_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most_s, self._clock = most_s, clock
        self._away_at: float | None = None
        self._hurried = threading.Event()

    def hurry(self) -> None:
        """Wait no more, from now on."""
        self._hurried.set()

    def having(self, get: Callable[[], _Had], failure: type[Exception]) -> _Had:
        """What ``get`` gives, tried again where it raises a ``failure``; raises the last of them."""
        pause_s = _FIRST_S
        while True:
            try:
                found = get()
            except failure:
                now, hurried = self._clock(), self._hurried.is_set()
                self._away_at = now if self._away_at is None else self._away_at
                left_s = self._away_at + self.most_s - now
                if left_s <= 0 or hurried:
                    raise
                self._hurried.wait(min(pause_s, left_s))
                pause_s = min(2 * pause_s, _LONGEST_S)
            else:
                self._away_at = None
                return found
