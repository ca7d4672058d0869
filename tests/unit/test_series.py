"""Dependence, drift and warm-up are found where they were put, and not where there are none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import BadInput
from tuner.stats.series import design_effect, effective_size, in_flight, trend, warm_up


def autoregressive(memory: float, count: int, seed: int) -> np.ndarray:
    noise, state = np.random.default_rng(seed).standard_normal(count), np.zeros(count)
    for place in range(1, count):
        state[place] = memory * state[place - 1] + noise[place]
    return state


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8, 0.9])
def test_the_design_effect_of_a_first_order_process(memory):
    found = np.mean([design_effect(autoregressive(memory, 4000, seed)) for seed in range(10)])
    assert found == pytest.approx((1 + memory) / (1 - memory), rel=0.15)


@given(values=st.lists(st.floats(-1e6, 1e6), max_size=80))
def test_no_value_is_worth_more_than_itself(values):
    assert design_effect(values) >= 1
    assert effective_size(values) <= len(values)


@pytest.mark.parametrize("value", [3.0, 0.1])  # whose mean is not quite 0.1
def test_equal_values_have_no_memory(value):
    assert design_effect([value] * 50) == 1


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_the_unit_of_the_values_does_not_matter(unit):
    values = autoregressive(0.8, 200, seed=1)
    assert design_effect(values * unit) == pytest.approx(design_effect(values))


def test_a_slope_is_found_with_its_interval():
    at_s = np.arange(400) / 10
    found = trend(at_s, 5 + 2 * at_s + np.random.default_rng(1).standard_normal(400))
    assert found.at_least_per_s < 2 < found.at_most_per_s
    assert found.per_s == pytest.approx(2, abs=0.05)
    assert found.rises
    assert not trend(at_s, -at_s).rises


@pytest.mark.slow
def test_without_a_slope_a_rise_is_claimed_as_seldom_as_its_interval_says():
    at_s = np.arange(300) / 10
    rises = sum(trend(at_s, np.random.default_rng(seed).exponential(size=300)).rises for seed in range(400))
    assert 2 <= rises <= 20  # 2.5 % of 400 is 10


def test_a_trend_needs_values():
    with pytest.raises(BadInput):
        trend(range(9), range(9))
    with pytest.raises(BadInput):
        trend(range(10), range(11))


def test_the_warm_up_is_cut_where_it_ends():
    cuts = []
    for seed in range(20):
        values = np.random.default_rng(seed).normal(100, 5, 600)
        values[:100] += np.linspace(300, 0, 100)
        cuts.append(warm_up(values))
    assert 70 <= np.median(cuts) <= 150


def test_what_is_steady_from_the_start_loses_little():
    cuts = [warm_up(np.random.default_rng(seed).exponential(size=600)) for seed in range(20)]
    assert np.median([cut for cut in cuts if cut is not None]) <= 60


def test_what_never_settles_has_no_warm_up():
    assert warm_up(np.arange(500.0)) is None
    assert warm_up(np.ones(30)) is None


@pytest.mark.slow
@given(
    sent=st.lists(st.floats(0, 10), max_size=30),
    lasts=st.lists(st.floats(0, 5), min_size=30, max_size=30),
    at_s=st.floats(-1, 20),
)
def test_in_flight_is_sent_and_not_ended(sent, lasts, at_s):
    ended = [start + last for start, last in zip(sent, lasts, strict=False)]
    expected = sum(start <= at_s < end for start, end in zip(sent, ended, strict=True))
    assert in_flight(sent, ended, [at_s]).tolist() == [expected]


def test_an_end_that_has_not_come_is_infinite():
    assert in_flight([0.0, 1.0], [2.0, np.inf], [0.5, 1.5, 3.0]).tolist() == [1, 2, 1]
