"""Whether one rank or engine is slower than its peers, for good.

Of each the logarithm of its step time over the median of the others is a series whose level has to be 0 (``levels``);
a median, because peers may straggle too. Load that all share cancels out, and so does its season. Among many ranks one
is slow by chance more often: the allowed false alarms are divided by their number. Ranks of different GPUs are no
peers: ``group_of`` says which are. Of one alone nothing can be said; of two nobody knows which of them is to blame, and
the slower one is named.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median

from tuner.retune.detect.departure import Departed, Departure
from tuner.retune.detect.levels import Bin, LevelSettings
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look

SETTINGS = LevelSettings(least_change=math.log(1.15), wander=0.02, upward=True)
_LEAST_S = 60.0  # of a bin
GroupOf = Callable[[str], str]


def _all_alike(rank: str) -> str:
    return ""


class Straggler:
    """Detects that; see above."""

    def __init__(self, group_of: GroupOf = _all_alike) -> None:
        self._group_of = group_of
        self._series: dict[str, Departure] = {}
        self._sums: dict[str, float] = defaultdict(float)
        self._looks: dict[str, int] = defaultdict(int)
        self._begin_s: float | None = None
        self._seconds = 0.0

    def look(self, look: Look) -> tuple[Notice, ...]:
        """The ranks that are slower than their peers."""
        if look.step_ms_by_rank:
            self._add(look)
        ranks = look.step_ms_by_rank.keys() or self._series.keys()
        departed = ((rank, one.departed) for rank, one in self._series.items() if rank in ranks)
        return tuple(_notice(rank, one) for rank, one in departed if one is not None)

    def _add(self, look: Look) -> None:
        self._begin_s = look.at_s - look.seconds if self._begin_s is None else self._begin_s
        for rank, value in over_peers(look.step_ms_by_rank, self._group_of).items():
            self._sums[rank] += value
            self._looks[rank] += 1
        self._seconds += look.seconds
        if self._seconds < _LEAST_S:
            return
        for rank, total in self._sums.items():
            if rank not in self._series:
                shared = replace(SETTINGS, false_per_week=SETTINGS.false_per_week / len(self._sums))
                self._series[rank] = Departure(shared, 0.0)
            # A step takes what it takes: nothing is drawn, so sampling alone gives no variance.
            self._series[rank].add(Bin(self._begin_s, look.at_s, self._seconds, total / self._looks[rank], 0.0))
        self._clear()

    def decided(self, at_s: float) -> None:
        """Another deployment has other ranks."""
        self._series = {}
        self._clear()

    def _clear(self) -> None:
        self._sums.clear()
        self._looks.clear()
        self._begin_s, self._seconds = None, 0.0


def over_peers(step_ms: Mapping[str, float], group_of: GroupOf = _all_alike) -> dict[str, float]:
    """By rank the logarithm of its step time over the median of its peers'; those without peers are left out."""
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for rank, ms in step_ms.items():
        if 0 < ms < math.inf:
            groups[group_of(rank)][rank] = math.log(ms)
    found = {}
    for group in groups.values():
        ordered = sorted(group.values())
        for rank, value in group.items():
            others = list(ordered)
            others.remove(value)
            if others:
                found[rank] = value - median(others)
    return found


def _notice(rank: str, departed: Departed) -> Notice:
    factor = math.exp(departed.level)
    evidence = f"{rank} takes {factor - 1:.0%} longer for a step than its peers"
    figures = {"step_over_peers_ratio": factor, "false_per_week": departed.per_week}
    return Notice(NoticeKind.STRAGGLER, rank, evidence, departed.confidence, departed.since_s, figures)
