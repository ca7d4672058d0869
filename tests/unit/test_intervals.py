"""Percentiles that were seen, and intervals that cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from tuner.errors import BadInput
from tuner.stats.intervals import lag_limit_ms, percentile, percentile_interval, quantiles, wilson

SAMPLES = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)
LEVELS = st.one_of(st.sampled_from([1, 50, 90, 95, 99, 99.9, 100]), st.integers(1, 100))


@pytest.mark.parametrize(
    ("count", "level", "rank"),
    [
        (100, 99, 99),
        (100, 50, 50),
        (1000, 99.9, 999),
        (10, 99, 10),
        (1, 1, 1),
        (3, 50, 2),
        (100, 100, 100),
        (100, 7, 7),
    ],
)
def test_percentile_is_the_nearest_rank(count, level, rank):
    assert percentile(np.arange(1, count + 1)[::-1], level) == rank


@given(samples=SAMPLES, level=LEVELS)
def test_percentile_is_a_sample_as_numpy_finds_it(samples, level):
    value = percentile(samples, level)
    assert value in samples
    assert value == max(np.percentile(samples, level - 1e-9, method="inverted_cdf"), min(samples))


@given(samples=SAMPLES, level=LEVELS, limit=st.floats(0, 1e6))
def test_percentile_within_a_limit_means_that_this_share_is(samples, level, limit):
    within = sum(sample <= limit for sample in samples)
    value = percentile(samples, level)
    assert value is not None
    assert (value <= limit) == (within * 100 >= level * len(samples) - 1e-9)


def test_no_samples_have_no_figures():
    assert percentile([], 50) is None
    assert quantiles([]) is None
    assert wilson(0, 0) is None


@pytest.mark.slow
@given(samples=SAMPLES)
def test_quantiles_rise_and_count(samples):
    found = quantiles(samples)
    assert found is not None
    assert found.count == len(samples)
    assert found.p50_ms <= found.p90_ms <= found.p95_ms <= found.p99_ms <= max(samples)
    assert found.mean_ms == pytest.approx(np.mean(samples))


@pytest.mark.parametrize("level", [0, -1, 100.1, float("nan")])
def test_levels_outside_their_range_are_refused(level):
    with pytest.raises(BadInput):
        percentile([1.0], level)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_sample_that_is_no_number_is_refused(bad):
    with pytest.raises(BadInput):
        quantiles([1.0, bad, 2.0])


@given(total=st.integers(1, 500), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_as_scipy_has_it(total, share, confidence):
    successes = round(share * total)
    expected = scipy_stats.binomtest(successes, total).proportion_ci(confidence, method="wilson")
    assert wilson(successes, total, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("successes", "total", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0), (1, 5, 0.0)])
def test_wilson_refuses_what_is_no_share(successes, total, confidence):
    with pytest.raises(BadInput):
        wilson(successes, total, confidence)


@pytest.mark.parametrize(("ttft_p50_ms", "limit_ms"), [(None, 20), (100, 20), (400, 20), (1000, 50)])
def test_lag_limit(ttft_p50_ms, limit_ms):
    assert lag_limit_ms(ttft_p50_ms) == pytest.approx(limit_ms)


@pytest.mark.parametrize(
    ("count", "level", "ranks"),
    [
        (100, 50, (40, 61)),  # the binomial quantiles 40 and 60, and one rank more
        (20, 50, (6, 15)),
        (5, 50, None),
        (6, 50, (1, 6)),
        (367, 99, None),
        (368, 99, (360, 368)),
        (1000, 100, None),
        (0, 50, None),
    ],
)
def test_an_interval_of_a_percentile_is_a_pair_of_ranks(count, level, ranks):
    found = percentile_interval(np.arange(1, count + 1), level)
    assert found == ranks


@pytest.mark.parametrize(
    ("count", "size", "ranks"),
    [
        (100, 100, (40, 61)),
        (100, 1000, (40, 61)),  # never more than they are
        (1000, 100, (400, 610)),
        (1000, 100.9, (400, 610)),
        (1000, 5, None),
        (1000, 0, None),
    ],
)
def test_what_is_worth_fewer_has_the_interval_of_fewer(count, size, ranks):
    assert percentile_interval(np.arange(1, count + 1), 50, size=size) == ranks


@given(successes=st.integers(0, 40), size=st.floats(1, 40))
def test_a_share_of_fewer_independent_cases_is_less_certain(successes, size):
    low, high = wilson(successes, 40)
    wider_low, wider_high = wilson(successes, 40, size=size)
    assert wider_low <= low + 1e-12
    assert high <= wider_high + 1e-12


@pytest.mark.parametrize(("level", "count"), [(50, 30), (90, 200), (99, 1000)])
def test_an_interval_holds_the_true_percentile_as_often_as_it_says(level, count):
    random = np.random.default_rng(7)
    true = -np.log1p(-level / 100)
    held = sum(
        low <= true <= high
        for low, high in (percentile_interval(random.exponential(size=count), level) for _ in range(1000))
    )
    assert 0.94 <= held / 1000 <= 0.995
