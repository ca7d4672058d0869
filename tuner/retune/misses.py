"""Whether targets of the SLO are missed for certain: just now, and for how long of the last week."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from tuner.ask.request import TargetKey
from tuner.retune.seen import Look
from tuner.stats.buckets import NOTHING, Within

_NOW_S = 600.0
_JUST_S = (60.0, 180.0)  # a load that has just doubled is not what came in three minutes on average
_DEVIATE = 4.75  # of the normal distribution, with 10^-6 beyond it


class Misses:
    """Counts within targets: of the last minutes, and by slots of ``slot_s``. Not for several threads at once."""

    def __init__(self, slot_s: float) -> None:
        self._slot_s = slot_s
        self._latest: deque[Look] = deque()
        self._counts: dict[TargetKey, Within] = {}  # of the running slot
        self._missed: deque[int] = deque()  # slots in which a target was missed

    def add(self, look: Look) -> None:
        """One more look, the newest."""
        for key, one in look.within.items():
            self._counts[key] = self._counts.get(key, NOTHING) + one
        self._latest.append(look)
        while self._latest[0].at_s <= look.at_s - _NOW_S:
            self._latest.popleft()

    def ended(self, slot: int, oldest: int) -> None:
        """A slot is over; those before the ``oldest`` are forgotten."""
        if over(self._counts):
            self._missed.append(slot)
        self._counts.clear()
        while self._missed and self._missed[0] < oldest:
            self._missed.popleft()

    @property
    def now(self) -> bool:
        """Is a target missed just now, over some minutes: by more requests for certain than its percentile allows, and
        than chance does?"""
        counts: dict[TargetKey, Within] = {}
        for look in self._latest:
            for key, one in look.within.items():
                counts[key] = counts.get(key, NOTHING) + one
        return over(counts)

    def seconds(self, after_s: float) -> float:
        """For how long since then a target was missed, by slots that are over; each as ``now`` says it."""
        return self._slot_s * sum(at * self._slot_s >= after_s for at in self._missed)

    def rate_now(self, at_s: float) -> float | None:
        """Requests/s of the last minute or minutes, at least: two deviations below what came."""
        rates = [self._rate(at_s - seconds) for seconds in _JUST_S]
        return max((rate for rate in rates if rate is not None), default=None)

    def _rate(self, after_s: float) -> float | None:
        looks = [one for one in self._latest if one.arrived is not None and one.at_s > after_s]
        arrived, seconds = sum(one.arrived or 0.0 for one in looks), sum(one.seconds for one in looks)
        return max(arrived - 2 * math.sqrt(arrived), 0.0) / seconds if seconds else None


def over(counts: Mapping[TargetKey, Within]) -> bool:
    """Is a target missed for certain: by more requests than its percentile allows, and than chance does?"""
    allowed = ((1 - key[1] / 100) * one.total for key, one in counts.items())
    each = zip(counts.values(), allowed, strict=True)
    return any(one.total - one.most - may > _DEVIATE * math.sqrt(max(may, 1.0)) for one, may in each)
