"""The interval of a percentile of values that follow each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.stats.intervals import percentile
from tuner.stats.serial import serial_interval


def queued(load: float, count: int, seed: int) -> np.ndarray:
    """Waits and services of a single server: what comes late stays late for a while (Lindley's recursion)."""
    random = np.random.default_rng(seed)
    service = random.gamma(4, 0.25, count)
    steps = np.concatenate([[0.0], np.cumsum(service[:-1] - random.exponential(1 / load, count - 1))])
    return np.asarray(steps - np.minimum.accumulate(steps) + service)


@pytest.mark.parametrize("level", [50, 90, 95])
@pytest.mark.parametrize("load", [0.3, 0.6])
def test_it_holds_the_long_run_value_of_a_queue(load: float, level: float) -> None:
    long_run = percentile(queued(load, 200_000, 1), level)
    assert long_run is not None
    found = [serial_interval(queued(load, 400, 100 + seed), level) for seed in range(40)]
    known = [one for one in found if one is not None]
    assert len(known) >= 36
    assert sum(low <= long_run <= high for low, high in known) / len(known) >= 0.9


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1e4), max_size=200), st.sampled_from([50.0, 90.0, 99.0, 100.0]))
def test_it_holds_what_was_seen(values: list[float], level: float) -> None:
    found = serial_interval(values, level)
    seen = percentile(values, level)
    assert found is None or (seen is not None and found[0] <= seen <= found[1])


def test_of_too_few_or_of_a_queue_that_only_grows_nothing_is_said() -> None:
    random = np.random.default_rng(2)
    assert serial_interval([], 50) is None
    assert serial_interval(random.exponential(size=9), 50) is None
    assert serial_interval(random.exponential(size=30), 90) is None
    assert serial_interval(random.exponential(size=200), 90) is not None
    assert serial_interval(np.arange(500.0), 50) is None


def test_values_that_are_all_alike_are_known() -> None:
    assert serial_interval(np.full(100, 7.0), 50) == (7.0, 7.0)
    assert serial_interval(np.zeros(100), 50) == (0.0, 0.0)
