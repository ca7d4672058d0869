"""The test of levels: how rarely it is wrong, how soon it is right, and what it is deaf to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tuner.retune.detect.departure import Departure
from tuner.retune.detect.levels import WEEK_S, Bin, Change, LevelSettings, LevelTest, normal_deviate

BIN_S = 300.0
WEEK_BINS = int(WEEK_S / BIN_S)
Floats = NDArray[np.float64]


def bins(values: Floats, variance: float = 0.0) -> list[Bin]:
    return [Bin(n * BIN_S, (n + 1) * BIN_S, BIN_S, float(value), variance) for n, value in enumerate(values)]


def alarms(test: LevelTest, values: Floats, variance: float = 0.0) -> list[tuple[int, Change]]:
    found = ((n, test.add(one)) for n, one in enumerate(bins(values, variance)))
    return [(n, change) for n, change in found if change is not None]


def noise(seed: int, count: int, sd: float, memory: float) -> Floats:
    """Normal noise, first-order autoregressive: correlated by ``memory`` from bin to bin."""
    draw = np.random.default_rng(seed).normal(size=count) * sd * math.sqrt(1 - memory**2)
    values, last = np.empty(count), float(draw[0]) / math.sqrt(1 - memory**2)
    for n, shock in enumerate(draw):
        last = memory * last + shock
        values[n] = last
    return values


# t, degrees of freedom, and the normal deviate as improbable, by numerical integration of both densities
TAILS = [(2.0, 8.0, 1.748), (5.041, 8.0, 3.290), (6.442, 20.0, 4.686), (3.552, 20.0, 3.090), (12.0, 12.0, 5.457)]


@pytest.mark.parametrize(("t", "freedom", "deviate"), TAILS)
def test_a_deviate_of_students_is_as_improbable(t: float, freedom: float, deviate: float) -> None:
    assert normal_deviate(t, freedom) == pytest.approx(deviate, rel=0.01)
    assert normal_deviate(-t, freedom) == -normal_deviate(t, freedom)


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0.0, 0.9, 0.98])
def test_false_alarms_are_as_rare_as_stated(memory: float) -> None:
    """Allowed: one in two weeks, so that some are seen. Nothing is too small to be told, and nothing is taken as known
    beforehand: no ``wander``. Noise that hangs together may not make more of them."""
    weeks, episodes = 4, 8
    strict = LevelSettings(least_change=0.0, false_per_week=0.5, wander=0.0)
    found = [len(alarms(LevelTest(strict), noise(seed, weeks * WEEK_BINS, 0.1, memory))) for seed in range(episodes)]
    assert sum(found) <= 0.5 * weeks * episodes + 3 * math.sqrt(0.5 * weeks * episodes)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_shift_of_a_few_deviations_is_found_soon(seed: int) -> None:
    values = noise(seed, 2 * WEEK_BINS, 0.1, 0.5)
    values[WEEK_BINS:] += 0.5
    found = alarms(LevelTest(LevelSettings(least_change=0.1)), values)
    assert len(found) == 1
    at, change = found[0]
    assert WEEK_BINS < at < WEEK_BINS + 24
    assert abs(change.since_s / BIN_S - WEEK_BINS) <= 6
    assert change.after - change.before == pytest.approx(0.5, abs=0.25)


def test_a_great_shift_is_found_in_a_young_series() -> None:
    values = noise(1, 60, 0.05, 0.0)
    values[40:] += math.log(4)
    (at, change), *_ = alarms(LevelTest(LevelSettings(least_change=0.1)), values, 0.01)
    assert at < 46
    assert change.since_s == 40 * BIN_S


@pytest.mark.parametrize("spike", [1.0, -1.0, 100.0])
def test_one_wild_bin_is_no_change(spike: float) -> None:
    values = noise(2, 400, 0.05, 0.0)
    values[301] += spike
    assert alarms(LevelTest(LevelSettings(least_change=0.1)), values) == []


def test_what_is_too_small_to_matter_is_not_told() -> None:
    values = noise(3, 1000, 0.001, 0.0)
    values[500:] += 0.09
    assert alarms(LevelTest(LevelSettings(least_change=0.1, wander=0.0)), values) == []


def test_a_known_level_needs_no_begin_to_compare_with() -> None:
    values = noise(4, 40, 0.02, 0.0) + 0.8
    assert alarms(LevelTest(LevelSettings(least_change=0.1)), values) == []
    found = alarms(LevelTest(LevelSettings(least_change=0.1), 0.0), values)
    assert found
    assert found[0][1].since_s == 0.0


def test_a_fall_does_not_matter_where_only_rises_do() -> None:
    upward = LevelSettings(least_change=0.1, upward=True)
    values = noise(5, 200, 0.02, 0.0)
    values[100:] -= 1.0
    assert alarms(LevelTest(upward), values) == []
    assert alarms(LevelTest(upward), -values)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.floats(-5, 5), st.integers(0, 5), st.sampled_from([0.0, 1.0, -1.0]))
def test_in_other_units_the_same_is_told(offset: float, seed: int, shift: float) -> None:
    """Levels are logarithms: tokens in thousands or milliseconds in seconds move all of them alike."""
    values = noise(seed, 200, 0.05, 0.3)
    values[120:] += shift
    plain, moved = (alarms(LevelTest(LevelSettings(least_change=0.1)), series) for series in (values, values + offset))
    assert [(n, c.since_s) for n, c in plain] == [(n, c.since_s) for n, c in moved]
    mirrored = alarms(LevelTest(LevelSettings(least_change=0.1)), -values)
    assert [n for n, _ in mirrored] == [n for n, _ in plain]


def departed(values: Floats, decided_at: int | None = None) -> list[tuple[float, float] | None]:
    """By bin: since when, and the level, where it is away."""
    series, found = Departure(LevelSettings(least_change=0.1)), []
    for n, one in enumerate(bins(values, 0.001)):
        series.add(one)
        if n == decided_at:
            series.decided()
        found.append((series.departed.since_s, series.departed.level) if series.departed else None)
    return found


def test_it_stands_while_the_level_is_away_and_ends_as_it_comes_back() -> None:
    values = noise(6, 1200, 0.03, 0.0)
    values[400:800] += 1.0
    told = departed(values)
    away = [n for n, one in enumerate(told) if one is not None]
    assert away == list(range(away[0], away[-1] + 1))
    assert 400 < away[0] < 410 < 800 <= away[-1] < 840
    assert {one[0] for one in told if one} == {400 * BIN_S}


def test_what_was_heeded_is_the_reference() -> None:
    values = noise(7, 1200, 0.03, 0.0)
    values[400:800] += 1.0
    told = departed(values, decided_at=600)
    assert told[599] is not None
    assert told[600] is None
    assert told[799] is None
    assert told[-1] is not None  # what was usual once is not any more
