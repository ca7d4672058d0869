"""Whether more requests come than a layout was chosen for, whatever the hour.

Against its season a rate needs a slot or two to be judged; that far more comes than was to be carried is seen in
minutes. What is over the limit is added up (a CUSUM; Page 1954, "Continuous inspection schemes", Biometrika 41): it is
told once the requests beyond it are as many as come in ``EXCESS_S`` at the limit. Twice the limit takes as long as
that, a quarter more four times as long, and a burst of minutes is none. It has to be improbable at the limit as well,
by the normal approximation of a Poisson count, which matters where few requests come.
"""

from __future__ import annotations

import math

from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look

EXCESS_S = 240.0
OVER = 1.1  # times what was to be carried
_DEVIATE = 4.75  # of the normal distribution, with 10^-6 beyond it


class Surge:
    """Detects that. ``planned_req_per_s`` is what the layout was chosen for."""

    def __init__(self, planned_req_per_s: float) -> None:
        self._planned = planned_req_per_s
        self._arrived = self._seconds = 0.0  # since the sum was 0 last
        self._since_s = 0.0
        self._standing = False

    def look(self, look: Look) -> tuple[Notice, ...]:
        """A shift of the rate, until it is below the limit on average since it began."""
        if look.arrived is None:
            return ()
        limit = OVER * self._planned
        if not self._seconds:
            self._since_s = look.at_s - look.seconds
        self._arrived, self._seconds = self._arrived + look.arrived, self._seconds + look.seconds
        excess = self._arrived - limit * self._seconds
        if excess <= 0 or (self._standing and look.arrived < limit * look.seconds):
            self._clear()
            return ()
        improbable = excess > _DEVIATE * math.sqrt(limit * self._seconds)
        self._standing = self._standing or (improbable and excess >= limit * EXCESS_S)
        if not self._standing:
            return ()
        rate = self._arrived / self._seconds
        evidence = f"rate: {rate:.3g} requests/s, and {self._planned:.3g} were to be carried"
        figures = {"req_per_s_before": self._planned, "req_per_s": rate}
        return (Notice(NoticeKind.WORKLOAD_SHIFT, "rate", evidence, 1.0, self._since_s, figures),)

    def decided(self, at_s: float) -> None:
        """What came last was decided for, where it was more than was planned for."""
        if self._standing:
            self._planned = max(self._planned, self._arrived / self._seconds)
        self._clear()

    def _clear(self) -> None:
        self._arrived = self._seconds = 0.0
        self._standing = False
