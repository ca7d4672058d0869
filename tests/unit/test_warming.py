"""Falling latencies are found where they fall, and seldom where they do not."""

import numpy as np
import pytest

from tuner.stats.warming import ENOUGH, LEAST, Warmth, together, warmth


def noise(count: int, seed: int = 1, spread: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(0, spread, count)


def queued(busy: float, count: int, seed: int) -> np.ndarray:
    """Times in an M/M/1 queue that has run for long: Poisson arrivals, and each value depends on those before it."""
    random = np.random.default_rng(seed)
    gaps, served = random.exponential(1 / busy, count + 300), random.exponential(1, count + 300)
    ends = np.zeros(count + 300)
    arrived = np.cumsum(gaps)
    for at in range(count + 300):
        ends[at] = max(arrived[at], ends[at - 1] if at else 0.0) + served[at]
    return (ends - arrived)[300:]


def after(slow: int, rest: int, times: float = 3.0) -> np.ndarray:
    values = noise(slow + rest)
    values[:slow] *= times
    return values


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (noise(400, spread=0.1), Warmth.WARM),
        (np.ones(50), Warmth.WARM),
        (after(10, 150), Warmth.WARM),  # a slow beginning that is over
        (after(40, 12), Warmth.COLD),  # it was slow until just now
        (after(400, 100), Warmth.COLD),
        (noise(200) * (1 + 4 * np.exp(-np.arange(200) / 80)), Warmth.COLD),  # it still falls
        (noise(200) * np.linspace(1, 3, 200), Warmth.WARM),  # the queue fills: it rises
        (noise(ENOUGH - 1, spread=0.05), Warmth.UNKNOWN),  # too few
        (np.arange(LEAST - 1, 0, -1.0), Warmth.UNKNOWN),
        (noise(60, spread=1.5), Warmth.UNKNOWN),  # they differ too much to see a tenth
        ([], Warmth.UNKNOWN),
    ],
)
def test_what_latencies_say(values, expected):
    assert warmth(values) is expected
    assert warmth(np.asarray(values) * 1e-3) is expected  # whatever their unit


def test_a_fall_too_small_to_matter_is_none():
    small = noise(2000, spread=0.05)
    small[:1700] *= 1.05
    assert warmth(small) is Warmth.WARM
    small[:1700] *= 1.2
    assert warmth(small) is Warmth.COLD


def test_cold_is_who_has_one_cold_series_and_warm_who_has_none_that_is_not():
    assert together([Warmth.WARM, Warmth.COLD, Warmth.UNKNOWN]) is Warmth.COLD
    assert together([Warmth.WARM, Warmth.UNKNOWN]) is Warmth.UNKNOWN
    assert together([Warmth.WARM, Warmth.WARM]) is Warmth.WARM
    assert together([]) is Warmth.UNKNOWN


def share(expected: Warmth, draws) -> float:
    return float(np.mean([warmth(values) is expected for values in draws]))


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 20, 50, 300])
@pytest.mark.parametrize(
    ("draw", "at_most"),
    [
        (lambda n, seed: np.random.default_rng(seed).exponential(1, n), 0.07),
        (lambda n, seed: np.random.default_rng(seed).pareto(1.5, n) + 1, 0.07),
        (lambda n, seed: noise(n, seed, 0.5), 0.07),
        (lambda n, seed: queued(0.3, n, seed), 0.09),
        (lambda n, seed: queued(0.6, n, seed), 0.12),
        (lambda n, seed: queued(0.9, n, seed), 0.20),  # few values of a queue that is nearly full hardly tell
    ],
    ids=["exponential", "pareto", "lognormal", "queue 30 %", "queue 60 %", "queue 90 %"],
)
def test_steady_latencies_seldom_look_cold(draw, at_most, count):
    assert share(Warmth.COLD, (draw(count, seed) for seed in range(600))) <= at_most


@pytest.mark.slow
def test_latencies_that_fall_to_a_third_are_found_and_seldom_called_warm():
    falls = [noise(100, seed, 0.5) * np.where(np.arange(100) < 80, 3, 1) for seed in range(300)]
    slow = [noise(100, seed, 0.3) * (1 + 4 * np.exp(-np.arange(100) / 50)) for seed in range(300)]
    assert share(Warmth.COLD, falls) >= 0.95
    assert share(Warmth.COLD, slow) >= 0.7
    assert share(Warmth.WARM, falls) == 0
    assert share(Warmth.WARM, slow) <= 0.02
