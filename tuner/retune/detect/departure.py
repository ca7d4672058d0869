"""Whether a series has left the level that a decision rests on, since when, and whether it has come back."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.retune.detect.levels import Bin, LevelSettings, LevelTest


@dataclass(frozen=True, slots=True)
class Departed:
    """The level is ``level`` in place of ``reference``, since ``since_s``; accidents as great come about ``per_week``
    times a week."""

    since_s: float
    reference: float
    level: float
    per_week: float

    @property
    def confidence(self) -> float:
        """The chance that a week without such a change has none like it."""
        return max(0.0, 1.0 - self.per_week)


class Departure:
    """A series, its reference and what the test of levels says. ``reference``: None where its first level says."""

    def __init__(self, settings: LevelSettings, reference: float | None = None) -> None:
        self._settings, self._reference = settings, reference
        self._test = LevelTest(settings, reference)
        self._departed: Departed | None = None

    @property
    def departed(self) -> Departed | None:
        """None while the level is that of the reference, as far as is known."""
        return self._departed

    def add(self, one: Bin) -> None:
        """Take in the next bin."""
        change = self._test.add(one)
        if change is not None:
            self._changed(change.since_s, change.before, change.per_week)
        elif self._departed is not None:
            self._level(self._departed.since_s, self._departed.reference, self._departed.per_week)

    def _changed(self, since_s: float, before: float, per_week: float) -> None:
        reference = before if self._reference is None else self._reference
        self._reference = reference
        was = self._departed
        self._level(since_s if was is None else was.since_s, reference, per_week)

    def _level(self, since_s: float, reference: float, per_week: float) -> None:
        """It stands while the level since the last change is away from the reference; else it has come back."""
        level = self._test.level
        off = 0.0 if level is None else level - reference
        far = (off if self._settings.upward else abs(off)) >= self._settings.least_change
        self._departed = Departed(since_s, reference, level, per_week) if far and level is not None else None

    def decided(self) -> None:
        """The present level is the reference from now on."""
        if self._departed is not None:
            self._reference, self._departed = None, None
