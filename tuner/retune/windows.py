"""Maintenance windows: whether one is open, and when the next one opens. All in UTC, which knows no summer time."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.retune.policy import MaintenanceWindow

DAY_S = 86400
_DAYS = ("thu", "fri", "sat", "sun", "mon", "tue", "wed")  # 1970 began on a Thursday


def is_open(windows: Sequence[MaintenanceWindow], at_s: float) -> bool:
    """May a change begin at ``at_s`` (s since 1970)? Without windows, always. A window that ends when it begins, or
    earlier, ends on the next day; its days are those on which it begins."""
    return not windows or any(begin_s <= at_s < end_s for one in windows for begin_s, end_s in _around(one, at_s))


def next_opening(windows: Sequence[MaintenanceWindow], at_s: float) -> float:
    """When a change may begin, at ``at_s`` or later (s since 1970)."""
    if is_open(windows, at_s):
        return at_s
    return min(begin_s for one in windows for begin_s, _ in _around(one, at_s) if begin_s > at_s)


def _around(window: MaintenanceWindow, at_s: float) -> list[tuple[float, float]]:
    """When it is open, from the day before to a week later, as (begin, end) in s since 1970."""
    begin_s, end_s = _of_day_s(window.begin), _of_day_s(window.end)
    lasts_s = end_s - begin_s + (DAY_S if end_s <= begin_s else 0)
    today = int(at_s // DAY_S)
    days = (day for day in range(today - 1, today + 8) if not window.days or _DAYS[day % 7] in window.days)
    return [(day * DAY_S + begin_s, day * DAY_S + begin_s + lasts_s) for day in days]


def _of_day_s(time: str) -> int:
    hours, minutes = time.split(":")
    return int(hours) * 3600 + int(minutes) * 60
