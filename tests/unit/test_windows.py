"""Maintenance windows: UTC, over midnight, by the day on which they begin."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.retune.policy import MaintenanceWindow
from tuner.retune.windows import is_open, next_opening


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NIGHT = MaintenanceWindow(begin="22:00", end="04:00")
SATURDAY_NIGHT = MaintenanceWindow(days=("sat",), begin="22:00", end="04:00")
SUNDAY = MaintenanceWindow(days=("sun",))

OPEN = {
    "no window": ((), "2026-11-25 12:00", True),
    "a whole day": ((SUNDAY,), "2026-11-29 23:59", True),
    "the next day": ((SUNDAY,), "2026-11-30 00:00", False),
    "before midnight": ((NIGHT,), "2026-11-25 22:00", True),
    "after midnight": ((NIGHT,), "2026-11-26 03:59", True),
    "its end": ((NIGHT,), "2026-11-26 04:00", False),
    "begun on Saturday": ((SATURDAY_NIGHT,), "2026-11-29 03:00", True),
    "begun on Friday": ((SATURDAY_NIGHT,), "2026-11-28 03:00", False),
    "from noon to noon": ((MaintenanceWindow(begin="12:00", end="12:00"),), "2026-11-25 11:00", True),
    "one of two": ((SUNDAY, NIGHT), "2026-11-25 23:00", True),
    "where clocks are changed": ((MaintenanceWindow(begin="02:00", end="03:00"),), "2026-03-29 02:30", True),
}


@pytest.mark.parametrize(("windows", "when", "expected"), OPEN.values(), ids=OPEN)
def test_whether_one_is_open(windows, when, expected):
    assert is_open(windows, at(when)) is expected


@pytest.mark.parametrize(
    ("windows", "when", "opens"),
    [
        ((SUNDAY,), "2026-11-25 12:00", "2026-11-29 00:00"),
        ((SUNDAY,), "2026-11-30 00:00", "2026-12-06 00:00"),
        ((SATURDAY_NIGHT, NIGHT), "2026-11-25 12:00", "2026-11-25 22:00"),
        ((), "2026-11-25 12:00", "2026-11-25 12:00"),
    ],
)
def test_when_the_next_one_opens(windows, when, opens):
    assert next_opening(windows, at(when)) == at(opens)


TIMES = st.integers(0, 23).map(lambda hour: f"{hour:02}:00")
DAYS = st.lists(st.sampled_from(["mon", "wed", "sat"]), unique=True).map(tuple)
WINDOWS = st.lists(st.builds(MaintenanceWindow, days=DAYS, begin=TIMES, end=TIMES), min_size=1, max_size=3)


@given(WINDOWS, st.floats(0, 4e9))
def test_the_next_opening_is_open_and_none_is_before_it(windows, now_s):
    opens_s = next_opening(windows, now_s)
    assert is_open(windows, opens_s)
    assert now_s <= opens_s <= now_s + 8 * 86400
    assert opens_s == now_s or not is_open(windows, (now_s + opens_s) / 2)
