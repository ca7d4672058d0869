"""More, or longer, requests than were decided for: against the plan, where a level that moves takes its past along."""

import numpy as np
import pytest

from tuner.retune.detect.drifted import Drifted
from tuner.retune.detect.surge import Surge
from tuner.retune.seen import Look, Tokens


def told_after(*rates, planned=10.0, each_s=60.0):
    """Minutes until the first notice; None where there is none."""
    surge, random = Surge(planned), np.random.default_rng(1)
    for i, rate in enumerate(rates):
        if surge.look(Look((i + 1) * each_s, each_s, float(random.poisson(rate * each_s)))):
            return i + 1
    return None


@pytest.mark.parametrize(
    ("times", "minutes"), [(2.0, (4, 7)), (1.5, (9, 15)), (4.0, (1, 3))], ids=["twice", "half more", "four times"]
)
def test_the_more_the_sooner(times, minutes):
    found = told_after(*[10.0 * times] * 60)
    assert minutes[0] <= found <= minutes[1]


@pytest.mark.slow
def test_neither_a_burst_nor_a_week_at_what_was_planned_is_told():
    assert told_after(*[10.0] * 30, *[15.0] * 8, *[10.0] * 30) is None
    assert told_after(*[10.0] * 10_080) is None
    assert told_after(*[0.05] * 10_080, planned=0.05) is None


def test_it_ends_with_the_surge_and_a_decision_raises_what_is_planned():
    surge = Surge(10.0)
    for i in range(20):
        found = surge.look(Look((i + 1) * 60.0, 60.0, 1200.0))
    assert found[0].figures == {"req_per_s_before": 10.0, "req_per_s": 20.0}
    assert found[0].since_s == 0.0
    assert not surge.look(Look(21 * 60.0, 60.0, 500.0))
    for i in range(21, 41):
        surge.look(Look((i + 1) * 60.0, 60.0, 1200.0))
    surge.decided(41 * 60.0)
    assert not any(surge.look(Look((i + 1) * 60.0, 60.0, 1200.0)) for i in range(41, 101))


def test_twice_the_usual_is_told_within_minutes_at_any_hour_if_it_is_more_than_was_to_be_carried():
    for usual, planned, told in ((8.0, 15.0, (4, 7)), (8.0, 17.0, None), (5.0, 9.0, (4, 7))):
        surge, random = Surge(planned), np.random.default_rng(2)
        for i in range(7 * 24 * 12):
            assert not surge.look(Look((i + 1) * 300.0, 300.0, float(random.poisson(usual * 300))))
        begin_s = 7 * 86400.0
        looks = (Look(begin_s + (i + 1) * 60, 60.0, float(random.poisson(2 * usual * 60))) for i in range(30))
        first = next((i + 1 for i, look in enumerate(looks) if surge.look(look)), None)
        assert (first is None) if told is None else (told[0] <= first <= told[1])


def test_a_burst_of_ten_minutes_is_nothing_unusual():
    surge, random = Surge(10.0), np.random.default_rng(3)
    for i in range(7 * 24 * 12 + 24):
        usual = 9.5 * (1.5 if i >= 7 * 24 * 12 and i % 12 in (4, 5) else 1.0)
        assert not surge.look(Look((i + 1) * 300.0, 300.0, float(random.poisson(usual * 300))))


def hourly(drifted, hours, prompt, begin=0):
    """Notices after each hour of prompts whose mean is a function of the hour."""
    found = []
    for hour in range(begin, begin + hours):
        seen = Tokens(5000.0, float(prompt(hour)), 300.0)
        found.append(drifted.look(Look((hour + 1) * 3600.0, 3600.0, 5000.0, 0.0, prompt=seen)))
    return found


def test_lengths_that_creep_are_told_once_the_mean_of_a_day_is_a_tenth_off():
    found = hourly(Drifted({"prompt_tokens": 1000.0}), 24 * 6, lambda hour: 1000 * 1.005**hour)
    first = next(i for i, told in enumerate(found) if told)
    assert 24 <= first <= 36
    assert found[first][0].of == "prompt_tokens"
    assert all(found[first:])


def test_night_jobs_with_long_prompts_are_no_drift():
    by_day = hourly(Drifted({"prompt_tokens": 1000.0}), 24 * 14, lambda hour: 1600 if hour % 24 < 6 else 800)
    assert not any(by_day)


def test_after_a_decision_the_lengths_of_then_are_the_plan():
    drifted = Drifted({"prompt_tokens": 1000.0})
    assert hourly(drifted, 30, lambda hour: 1500)[-1]
    drifted.decided(30 * 3600.0)
    assert not any(hourly(drifted, 60, lambda hour: 1500, begin=30))
    assert hourly(drifted, 30, lambda hour: 1000, begin=90)[-1]


def test_a_day_is_one_of_the_clock_though_nobody_looked_for_hours_of_it():
    drifted = Drifted({"prompt_tokens": 1000.0})
    assert hourly(drifted, 23, lambda _: 2000)[-1] == ()
    (found,) = hourly(drifted, 3, lambda _: 2000, begin=23)[-1]
    assert found.figures["prompt_tokens"] == 2000
    (found,) = hourly(drifted, 1, lambda _: 1000, begin=26 + 22)[-1]  # of the last day two hours alone were seen
    assert found.figures["prompt_tokens"] == 2000
    assert hourly(drifted, 2, lambda _: 1000, begin=49)[-1] == ()  # those are over a day ago
