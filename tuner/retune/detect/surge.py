"""Whether more requests come than a layout was chosen for, whatever the hour.

Against its season a rate needs a slot or two to be judged; that far more comes than was to be carried is seen in
minutes. What is over the limit is added up (a CUSUM; Page 1954, "Continuous inspection schemes", Biometrika 41): it is
told once the requests beyond it are as many as come in ``EXCESS_S`` at the limit. Twice the limit takes as long as
that, a quarter more four times as long, and a burst of minutes is none. It has to be improbable at the limit as well,
by the normal approximation of a Poisson count, which matters where few requests come.

Off the busiest hours twice the usual may be little more than was to be carried, and would be told late, though the
busiest hour will not be carried. So what is beyond ``UNUSUAL`` times the same time of the week before is added up too,
and told once it is as much as usually comes in ``UNUSUAL_S``, if that is more than was to be carried: twice the usual
within five minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.retune.detect.season import Season, Slots
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look

EXCESS_S = 240.0
OVER = 1.1  # times what was to be carried
UNUSUAL_S = 180.0
UNUSUAL = 1.4  # times what comes at this time of the week
_DEVIATE = 4.75  # of the normal distribution, with 10^-6 beyond it


@dataclass(slots=True)
class _Sum:
    """What came since it was beyond a limit, and how much more than that; begins anew where it is less on average."""

    since_s: float = 0.0
    seconds: float = 0.0
    arrived: float = 0.0
    limit: float = 0.0  # requests

    def add(self, look: Look, arrived: float, limit: float) -> None:
        """A look in which ``limit`` requests/s are the limit."""
        if not self.seconds:
            self.since_s = look.at_s - look.seconds
        self.seconds, self.arrived = self.seconds + look.seconds, self.arrived + arrived
        self.limit += limit * look.seconds
        if self.arrived <= self.limit:
            self.clear()

    def reaches(self, seconds: float) -> bool:
        """Is it more than what comes at the limit in so many seconds, and more than chance?"""
        excess = self.arrived - self.limit
        enough = self.limit * seconds / self.seconds if self.seconds else math.inf
        return excess >= enough and excess > _DEVIATE * math.sqrt(self.limit)

    @property
    def rate(self) -> float:
        """Requests/s since it began."""
        return self.arrived / self.seconds if self.seconds else 0.0

    def clear(self) -> None:
        self.since_s = self.seconds = self.arrived = self.limit = 0.0


class Surge:
    """Detects that. ``planned_req_per_s`` is what the layout was chosen for; ``seasonal``: load follows weeks."""

    def __init__(self, planned_req_per_s: float, seasonal: bool = True) -> None:
        self._planned = planned_req_per_s
        self._season, self._slots = (Season() if seasonal else None), Slots()
        self._over, self._unusual = _Sum(), _Sum()
        self._standing: _Sum | None = None

    def look(self, look: Look) -> tuple[Notice, ...]:
        """A shift of the rate, until it is below the limit on average since it began."""
        if look.arrived is None:
            return ()
        limit, usual = OVER * self._planned, self._usual(look, look.arrived)
        self._over.add(look, look.arrived, limit)
        if usual is not None:
            self._unusual.add(look, look.arrived, UNUSUAL * usual)
        ends = limit if self._standing is self._over else self._planned
        if self._standing is not None and look.arrived < ends * look.seconds:
            self._clear()
        if self._standing is None or not self._standing.seconds:
            self._standing = self._found()
        if self._standing is None:
            return ()
        rate = self._standing.rate
        evidence = f"rate: {rate:.3g} requests/s, and {self._planned:.3g} were to be carried"
        figures = {"req_per_s_before": self._planned, "req_per_s": rate}
        return (Notice(NoticeKind.WORKLOAD_SHIFT, "rate", evidence, 1.0, self._standing.since_s, figures),)

    def _found(self) -> _Sum | None:
        if self._over.reaches(EXCESS_S):
            return self._over
        unusual = self._unusual.reaches(UNUSUAL_S / UNUSUAL) and self._unusual.rate > self._planned
        return self._unusual if unusual else None

    def _usual(self, look: Look, arrived: float) -> float | None:
        """What comes at this time, in requests/s; None where nobody knows."""
        if self._season is None:
            return None
        slot = self._slots.add(look.at_s, look.seconds, arrived)
        if slot is not None and self._standing is None:  # what is not usual is no season
            self._season.learn(slot.begin_s, slot.value)
        known = self._season.expected(look.at_s - look.seconds / 2)
        return None if known is None else math.exp(known)

    def decided(self, at_s: float) -> None:
        """What came last was decided for, where it was more than was planned for."""
        if self._standing is not None:
            self._planned = max(self._planned, self._standing.rate)
        self._clear()

    def _clear(self) -> None:
        self._over.clear()
        self._unusual.clear()
        self._standing = None
