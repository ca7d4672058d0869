"""The Ray of this process: there can be one. Launchers on the same cluster share it; any other is refused.

Ray keeps its connection in the process, not in an object: whoever shut it down would take it from all others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tuner.errors import BadInput


class OneRay:
    """Who uses the Ray of this process; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._address: str | None = None
        self._users = 0

    @property
    def used(self) -> bool:
        """True while a launcher uses it."""
        return self._users > 0

    @contextmanager
    def joining(self, address: str | None) -> Iterator[bool]:
        """Use the cluster at ``address``, or a Ray of one's own (None); True where it has to be connected in the block,
        for which all others wait. Whoever has entered the block leaves, whether or not it succeeds.

        Raises BadInput where the process uses another.
        """
        with self._lock:
            if self._users and (address is None or address != self._address):
                given = "a Ray of its own" if address is None else address
                used = "a Ray of another study's own" if self._address is None else f"the cluster at {self._address}"
                allowed = f"one Ray in a process, and this one uses {used}: share its address, or use a process each"
                raise BadInput("--ray-address", given, allowed)
            self._address, self._users = address, self._users + 1
            yield self._users == 1

    def leave(self, disconnect: Callable[[], None]) -> None:
        """Use it no more; the last to leave disconnects."""
        with self._lock:
            self._users -= 1
            if not self._users:
                disconnect()


RAY = OneRay()
