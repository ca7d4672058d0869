"""Whether requests have become longer or shorter, in the mean of a day, than those that a layout was chosen for.

A level that moves slowly takes its own past along; what was decided for does not move. The mean of a day has busy and
idle hours in it, so that night jobs with long prompts are no drift. It is told from ``LEAST_CHANGE`` on, where that is
improbable at the level of 10^-6 beside.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from tuner.retune.detect.levels import DAY_S
from tuner.retune.load_sums import TokenSums
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look

LEAST_CHANGE = 0.1  # of a mean, as a share
_HOUR_S = 3600.0
_HOURS = int(DAY_S / _HOUR_S)
_DEVIATE = 4.9  # of the normal distribution, with 10^-6 beyond it on both sides


class Drifted:
    """Detects that. ``planned`` has the mean ``prompt_tokens`` and ``output_tokens`` that were decided for."""

    def __init__(self, planned: Mapping[str, float]) -> None:
        self._parts = [_Part(name, mean) for name, mean in planned.items()]
        self._hour: int | None = None

    def look(self, look: Look) -> tuple[Notice, ...]:
        """The parts that have drifted, as of the last full hour."""
        hour = int((look.at_s - look.seconds / 2) // _HOUR_S)
        running = hour if self._hour is None else self._hour
        for part in self._parts:
            for ended in range(max(running, hour - _HOURS - 1), hour):  # those in which nobody looked, too
                part.ended((ended + 1) * _HOUR_S)
            part.running += TokenSums.of(look.prompt if part.name == "prompt_tokens" else look.output)
        self._hour = max(hour, running)
        return tuple(part.notice for part in self._parts if part.notice is not None)

    def decided(self, at_s: float) -> None:
        """What came last was decided for."""
        for part in self._parts:
            part.decided()


class _Part:
    def __init__(self, name: str, planned: float) -> None:
        self.name, self._planned, self.running = name, planned, TokenSums()
        self.notice: Notice | None = None
        self._hours: deque[TokenSums] = deque(maxlen=_HOURS)

    def ended(self, at_s: float) -> None:
        """An hour is over."""
        self._hours.append(self.running)
        self.running = TokenSums()
        seen = sum(self._hours, TokenSums()).seen if len(self._hours) == _HOURS else None
        self.notice = None
        if seen is None:
            return
        sd = seen.mean if seen.sd is None else seen.sd
        off, chance = seen.mean - self._planned, _DEVIATE * sd / math.sqrt(seen.requests)
        if abs(off) <= max(LEAST_CHANGE * self._planned, chance):
            return
        words = self.name.replace("_", " ")
        evidence = f"{words}: {seen.mean:.0f} per request in the last day in place of {self._planned:.0f}"
        figures = {f"{self.name}_before": self._planned, self.name: seen.mean}
        self.notice = Notice(NoticeKind.WORKLOAD_SHIFT, self.name, evidence, 1.0, at_s - DAY_S, figures)

    def decided(self) -> None:
        """The last hours are what was decided for; older ones do not count any more."""
        latest = next((hour.seen for hour in reversed(self._hours) if hour.seen is not None), None)
        self._planned = latest.mean if self.notice is not None and latest is not None else self._planned
        self._hours.clear()
        self.notice = None
