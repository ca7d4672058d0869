"""Histograms lose nothing by merging, and little by counting in buckets."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import BadInput
from tuner.histogram import Histogram, merged
from tuner.stats import percentile

LATENCIES = st.lists(st.floats(0, 1e7), max_size=60)


def same(one: Histogram, other: Histogram) -> bool:
    return one.written() == other.written()


@given(values_ms=LATENCIES.filter(bool), level=st.floats(0.1, 100))
def test_a_percentile_is_known_to_a_twentieth_of_a_percent(values_ms, level):
    exact_ms = percentile(values_ms, level)
    assert abs(Histogram.of(values_ms).percentile_ms(level) - exact_ms) <= max(0.0005, exact_ms / 2000) + 0.0005


@given(parts=st.lists(LATENCIES, max_size=4))
def test_parts_merge_to_the_whole(parts):
    whole = merged(Histogram.of(part) for part in parts)
    assert same(whole, Histogram.of([value for part in parts for value in part]))
    assert whole.total == sum(map(len, parts))


@given(values_ms=LATENCIES)
def test_what_is_written_is_read_again(values_ms):
    found = Histogram.of(values_ms)
    assert same(Histogram.read(json.loads(json.dumps(found.written()))), found)


@pytest.mark.parametrize(
    ("value_us", "lowest_us"), [(0, 0), (2047, 2047), (2048, 2048), (2049, 2048), (4099, 4096), (1_000_001, 999_936)]
)
def test_buckets_are_those_of_three_digits(value_us, lowest_us):
    assert Histogram.of([value_us / 1e3]).written() == [(lowest_us, 1)]


def test_many_values_are_few_buckets():
    values_ms = np.random.default_rng(0).lognormal(np.log(50), 0.5, 200_000)
    assert Histogram.of(values_ms).lowest_us.size < 5000


def test_nothing_has_no_percentile():
    assert merged([]).percentile_ms(50) is None
    assert Histogram.of([]).total == 0


@pytest.mark.parametrize("value_ms", [-0.1, float("nan"), float("inf"), 1e10])
def test_what_is_no_latency_is_refused(value_ms):
    with pytest.raises(BadInput, match="values_ms"):
        Histogram.of([1.0, value_ms])


@pytest.mark.parametrize("level", [0, -1, 100.5])
def test_levels_lie_between_0_and_100(level):
    with pytest.raises(BadInput, match="percentile"):
        Histogram.of([1.0]).percentile_ms(level)


@pytest.mark.parametrize(
    "rows", [[(2049, 1)], [(-1, 1)], [(5, 0)], [(5, 1), (5, 1)], [(7, 1), (5, 1)], [(1 << 50, 1)], [(1,)], [("5", 1)]]
)
def test_other_buckets_are_refused(rows):
    with pytest.raises(BadInput, match="histogram"):
        Histogram.read(rows)
