"""What a detector is: it is shown looks at what serves, one after the other, and says what it notices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tuner.retune.notice import Notice
from tuner.retune.seen import Look


class Detector(Protocol):
    """Something that notices. It has no clock and draws nothing: the same looks make the same notices."""

    def look(self, look: Look) -> tuple[Notice, ...]:
        """All that holds as of this look, which is later than those before: a notice comes back with every look until
        it does not hold any more."""

    def decided(self, at_s: float) -> None:
        """What serves was decided anew at ``at_s``: what was noticed so far was heeded, and is the reference now."""


class Detectors:
    """Several detectors as one, their notices in the order of the detectors.

    A look that is not later than the one before (told twice, or out of order) changes nothing.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = tuple(detectors)
        self._at_s: float | None = None
        self._notices: tuple[Notice, ...] = ()

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What held as of the last look."""
        return self._notices

    def look(self, look: Look) -> tuple[Notice, ...]:
        """All that any of them notices."""
        if self._at_s is None or look.at_s > self._at_s:
            self._at_s = look.at_s
            self._notices = tuple(notice for one in self._detectors for notice in one.look(look))
        return self._notices

    def decided(self, at_s: float) -> None:
        """Tell it to all."""
        for one in self._detectors:
            one.decided(at_s)
        self._notices = ()
