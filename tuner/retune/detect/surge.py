"""Whether more requests come than a layout was chosen for, whatever the hour.

Against its season a rate needs a slot or two to be judged; that more comes than ever was to be carried is seen in
minutes. The rate of the last minutes is over the limit for certain where so many requests are improbable at the limit:
by the normal approximation of a Poisson count, at a level of 10^-6 a look, which is a false alarm in a hundred weeks
of a look a minute at the very limit, and none in practice below it.
"""

from __future__ import annotations

import math
from collections import deque

from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look

LEAST_S = 300.0
OVER = 1.15  # times what was to be carried
_DEVIATE = 4.75  # of the normal distribution, with 10^-6 beyond it


class Surge:
    """Detects that. ``planned_req_per_s`` is what the layout was chosen for; None: nothing is told."""

    def __init__(self, planned_req_per_s: float | None) -> None:
        self._planned = planned_req_per_s
        self._looks: deque[tuple[float, float, float]] = deque()  # begin, seconds, arrived
        self._since_s: float | None = None
        self._rate = 0.0

    def look(self, look: Look) -> tuple[Notice, ...]:
        """A shift of the rate, while it is over the limit."""
        if look.arrived is None or self._planned is None:
            return ()
        self._looks.append((look.at_s - look.seconds, look.seconds, look.arrived))
        while len(self._looks) > 1 and self._looks[1][0] <= look.at_s - LEAST_S:
            self._looks.popleft()
        seconds, arrived = (sum(one[i] for one in self._looks) for i in (1, 2))
        self._rate = arrived / seconds
        limit = OVER * self._planned * seconds
        if seconds < LEAST_S or arrived - limit <= _DEVIATE * math.sqrt(limit):
            self._since_s = None
            return ()
        if self._since_s is None:
            self._since_s = self._looks[0][0]
        evidence = f"rate: {self._rate:.3g} requests/s, and {self._planned:.3g} were to be carried"
        figures = {"req_per_s_before": self._planned, "req_per_s": self._rate}
        return (Notice(NoticeKind.WORKLOAD_SHIFT, "rate", evidence, 1.0, self._since_s, figures),)

    def decided(self, at_s: float) -> None:
        """What came last was decided for, where it was more than was planned for."""
        if self._planned is not None:
            self._planned = max(self._planned, self._rate)
        self._since_s = None
