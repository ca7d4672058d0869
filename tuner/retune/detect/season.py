"""How a rate of requests compares with what it was at the same time of the day, or of the week.

Load follows days and weeks, so that a rate says nothing by itself. Time is cut into slots of a quarter of an hour; the
rate of one is compared with the mean of that slot of the week in up to four weeks before. Before a week has been seen,
nobody knows whether its weekends are different: then a slot is compared with the same time of the day alone while it is
Monday noon to Friday noon UTC, a working day wherever the users are, and with days of those alone. Else, and on the
first day, there is nothing to compare with, and nothing is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tuner.retune.detect.levels import DAY_S, WEEK_S, Bin

SLOT_S = 900.0
_MOST_WEEKS = 4  # of which a slot's mean is made: one that follows for ever would follow a change as well
_NEAR = (0, 1, -1, 2, -2)  # slots that stand for one that was not seen, in this order
_COVERED = 0.5  # part of a slot that has to be seen
_MONDAY_S = 4 * DAY_S  # since 1970, which began with a Thursday
_NOON_S = DAY_S / 2


@dataclass(slots=True)
class _Mean:
    first_s: float
    count: int = 0
    mean: float = 0.0

    def add(self, value: float) -> None:
        if self.count < _MOST_WEEKS:
            self.count += 1
            self.mean += (value - self.mean) / self.count


@dataclass(slots=True)
class Season:
    """Logarithms of rates by slot of the week, and of the working days."""

    _week: dict[int, _Mean] = field(default_factory=dict)
    _day: dict[int, _Mean] = field(default_factory=dict)

    def expected(self, at_s: float) -> float | None:
        """What it was at this time, as a logarithm; None where that has not been seen."""
        found = _near(self._week, at_s, WEEK_S)
        if found is None and working_day(at_s):
            found = _near(self._day, at_s, DAY_S)
        return found.mean if found else None

    def learn(self, at_s: float, value: float) -> None:
        """Take in a slot."""
        self._week.setdefault(_slot(at_s, WEEK_S), _Mean(at_s)).add(value)
        if working_day(at_s):
            self._day.setdefault(_slot(at_s, DAY_S), _Mean(at_s)).add(value)


def working_day(at_s: float) -> bool:
    """True where it is Monday to Friday at every place on earth."""
    since_monday_s = (at_s - _MONDAY_S) % WEEK_S
    return _NOON_S <= since_monday_s < 4 * DAY_S + _NOON_S


def _near(means: dict[int, _Mean], at_s: float, season_s: float) -> _Mean | None:
    """That of its slot, or of one nearby; what was seen a moment ago is no season."""
    for step in _NEAR:
        found = means.get(_slot(at_s + step * SLOT_S, season_s))
        if found is not None and at_s - found.first_s > season_s / 2:
            return found
    return None


def _slot(at_s: float, season_s: float) -> int:
    return int(at_s % season_s // SLOT_S)


class Slots:
    """Requests by slot: ``add`` says the rate of a slot once it is over, as a ``Bin`` of its logarithm."""

    def __init__(self) -> None:
        self._slot = -math.inf
        self._requests = self._seconds = 0.0

    def add(self, at_s: float, seconds: float, requests: float) -> Bin | None:
        """Requests that came in the ``seconds`` before ``at_s``; they count where the middle of that lies."""
        slot = (at_s - seconds / 2) // SLOT_S
        ended = self._ended() if slot > self._slot else None
        if slot > self._slot:
            self._slot, self._requests, self._seconds = slot, 0.0, 0.0
        self._requests, self._seconds = self._requests + requests, self._seconds + seconds
        return ended

    def _ended(self) -> Bin | None:
        if self._seconds < _COVERED * SLOT_S:
            return None
        begin_s, count = self._slot * SLOT_S, self._requests + 0.5  # a half: no request has a logarithm too
        return Bin(begin_s, begin_s + SLOT_S, SLOT_S, math.log(count / self._seconds), 1 / count)
