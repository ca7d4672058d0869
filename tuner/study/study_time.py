"""A study's own time: it goes by while a driver works on it, not while all it does is to wait for others' devices."""

from __future__ import annotations

from collections.abc import Callable


class StudyTime:
    """As one driver counts it, beginning with ``began_s``; ``clock`` in s."""

    def __init__(self, clock: Callable[[], float], began_s: float) -> None:
        self._clock, self._shift_s = clock, began_s - clock()
        self._stopped_s: float | None = None

    def now_s(self) -> float:
        """The study's time, in s."""
        stopped_s = self._stopped_s  # read once: another thread may ask
        return self._clock() + self._shift_s if stopped_s is None else stopped_s

    def wait(self, waiting: bool) -> None:
        """Say whether the study does nothing but wait."""
        if waiting and self._stopped_s is None:
            self._stopped_s = self.now_s()
        elif not waiting and self._stopped_s is not None:
            self._shift_s, self._stopped_s = self._stopped_s - self._clock(), None
