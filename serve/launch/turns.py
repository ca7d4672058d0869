"""Turns at what all deployments of a launcher share: many at once of one kind, of another kind once those are gone."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from tuner.trial.seams import Watch

_LOOK_S = 0.2  # how soon a wait hears that it was cancelled


class Turns:
    """Who is in, by name; first come, first served, so that nobody waits for ever. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._kind: Hashable = None
        self._inside: set[str] = set()
        self._waiting: list[str] = []

    def enter(self, name: str, kind: Hashable, watch: Watch) -> None:
        """Return once all who are in are of this ``kind``; raises Cancelled as soon as the wait is."""
        with self._changed:
            self._waiting.append(name)
            told = False
            try:
                while self._waiting[0] != name or (self._inside and kind != self._kind):
                    if not told:
                        watch.progress("waiting for trials behind another front to end")
                        told = True
                    self._changed.wait(_LOOK_S)
                    watch.cancel.raise_if_cancelled()
                self._kind = kind
                self._inside.add(name)
            finally:
                self._waiting.remove(name)
                self._changed.notify_all()

    def leave(self, name: str) -> None:
        """It is gone; nothing where it was not in."""
        with self._changed:
            self._inside.discard(name)
            self._changed.notify_all()
