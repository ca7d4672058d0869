"""One rule for an SLO, with three answers; single values, arrays and counts of requests cannot contradict."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import make_request, make_step
from tuner.app.answers.trial import step_answer
from tuner.app.cli.tables import outcome
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, SloTarget
from tuner.ask.slo import Seen, Verdict, attained, met, needed, over, ratio, ratios, verdict, within, worst_ratio
from tuner.stats.intervals import percentile
from tuner.trial.results import LoadStep, TrialResult, TrialState

TTFT = SloTarget(metric=Metric.TTFT, percentile=99, ms=100)
TPOT = SloTarget(metric=Metric.TPOT, percentile=99, ms=10)
ITL = SloTarget(metric=Metric.ITL, percentile=50, ms=10)
SLO = (TTFT, TPOT)
GOOD = {TTFT.key: 100.0, TPOT.key: 9.0}


def seen(ttft_ms=100.0, tpot_ms=9.0, completed=20, **rest):
    return Seen({TTFT.key: ttft_ms, TPOT.key: tpot_ms}, completed, **rest)


@pytest.mark.parametrize(
    ("found", "attainment", "expected"),
    [
        (seen(), None, Verdict.MET),
        (seen(tpot_ms=10.1), None, Verdict.MISSED),
        (seen(tpot_ms=None), None, Verdict.UNKNOWN),
        (Seen({TTFT.key: 1.0}, 20), None, Verdict.UNKNOWN),
        (seen(ttft_ms=101.0, tpot_ms=None), None, Verdict.MISSED),
        (seen(failed=1), None, Verdict.MISSED),
        (seen(None, None, completed=0, failed=3), None, Verdict.MISSED),
        (seen(None, None, completed=0), None, Verdict.UNKNOWN),
        (seen(attainment=0.9), 0.9, Verdict.MET),
        (seen(attainment=0.89), 0.9, Verdict.MISSED),
        (seen(attainment=0.89), None, Verdict.MET),
        (seen(), 0.9, Verdict.UNKNOWN),
        (seen(tpot_ms=None, attainment=0.89), 0.9, Verdict.MISSED),
        (seen(ended_early=Verdict.MISSED), None, Verdict.MISSED),
        (seen(tpot_ms=11.0, ended_early=Verdict.MET), None, Verdict.MISSED),
        (seen(valid=False), None, Verdict.UNKNOWN),
        (seen(ttft_ms=101.0, failed=1, valid=False, ended_early=Verdict.MISSED), None, Verdict.UNKNOWN),
    ],
)
def test_what_is_seen_meets_misses_or_shows_nothing(found, attainment, expected):
    assert verdict(SLO, found, attainment) is expected
    assert expected.holds is {"met": True, "missed": False, "unknown": None}[expected.value]


def test_without_targets_there_is_no_verdict():
    assert verdict((), seen(), 0.9) is Verdict.UNKNOWN


def test_values_belong_to_their_target_whatever_the_order():
    strict = SloTarget(metric=Metric.TTFT, percentile=50, ms=20)
    values = {strict.key: 30.0, **GOOD}
    assert over((TPOT, strict, TTFT), values) == [(strict, 30.0)]
    assert ratios((TPOT, strict, TTFT), values) == [0.9, 1.5, 1.0]
    assert ratios((TPOT, ITL), GOOD) == [0.9]


@given(st.floats(1e-3, 1e6), st.floats(0, 2, exclude_max=True), st.integers(-2, 2))
def test_a_ratio_above_one_is_a_miss_and_no_other(ms, times, steps):
    """Also where the two differ by one unit in the last place."""
    target = SloTarget(metric=Metric.TTFT, percentile=99, ms=ms)
    near = ms
    for _ in range(abs(steps)):
        near = float(np.nextafter(near, np.inf if steps > 0 else 0))
    for value in (near, ms * times):
        assert (ratio(target, value) <= 1) is within(target, value)


def test_arrays_are_judged_as_single_values_are():
    values = np.array([[9.0, 10.0], [10.5, np.nan]])
    assert within(TPOT, values).tolist() == [[True, True], [False, False]]  # a load that cannot be carried
    assert within(TPOT, values, 1.5).tolist() == [[True, True], [True, False]]
    assert met(TPOT, values).tolist() == [[True, True], [False, True]]  # a request that cannot have the metric
    worst = worst_ratio(SLO, lambda target: np.array([50.0, 20.0]) if target is TTFT else np.array([1.0, np.inf]))
    assert worst.tolist() == [0.5, np.inf]


@pytest.mark.parametrize(
    ("latency_ms", "targets", "expected"),
    [
        ({Metric.TTFT: [100.0]}, [TTFT], True),
        ({Metric.TTFT: [100.1]}, [TTFT], False),
        ({Metric.TTFT: [90.0], Metric.TPOT: [11.0]}, [TTFT, TPOT], False),
        ({Metric.TTFT: [90.0], Metric.TPOT: [9.0]}, [TTFT, TPOT], True),
        ({Metric.TTFT: [90.0]}, [TTFT, TPOT], True),
        ({Metric.ITL: [5.0, 5.0, 50.0]}, [ITL], True),
        ({Metric.ITL: [5.0, 50.0, 50.0]}, [ITL], False),
        ({}, [], True),
    ],
)
def test_a_request_attains_when_it_meets_every_target(latency_ms, targets, expected):
    assert attained(latency_ms, targets) is expected


@given(
    st.lists(st.floats(0, 20), max_size=40), st.one_of(st.sampled_from([0.001, 50, 99, 99.9, 100]), st.floats(1, 100))
)
def test_a_percentile_is_within_exactly_when_enough_values_are(values, level):
    target = SloTarget(metric=Metric.ITL, percentile=level, ms=10)
    at = percentile(values, level)
    assert attained({Metric.ITL: values}, [target]) is (at is None or within(target, at))


def test_how_many_are_needed_counts_arrays_too():
    assert needed([0, 1, 100, 1000], 99.9).tolist() == [0, 1, 100, 999]


REQUEST = make_request()


def step(ttft_ms, **changes):
    return replace(make_step(LoadStep(0, 8.0, 1.0, 1), REQUEST, ttft_ms), **changes)


@pytest.mark.parametrize(
    ("steps", "expected", "words"),
    [
        ([step(50)], Verdict.MET, "meets the SLO"),
        ([step(50), step(200)], Verdict.MET, "meets the SLO"),
        ([step(200), step(50, invalid="an engine restarted")], Verdict.MISSED, "misses the SLO"),
        ([step(200, client_bound=True)], Verdict.UNKNOWN, "shows nothing of the SLO"),
        ([step(50, slo_values_ms={})], Verdict.UNKNOWN, "shows nothing of the SLO"),
        ([], Verdict.UNKNOWN, "shows nothing of the SLO"),
    ],
)
def test_a_trial_says_what_its_windows_say(steps, expected, words):
    trial = TrialResult(0, ParallelLayout(), TrialState.MEASURED, tuple(steps))
    assert trial.verdict(REQUEST) is expected
    assert outcome(trial, REQUEST) == words
    for one in steps:
        assert (one.meets(REQUEST), one.misses(REQUEST)) != (True, True)
        assert step_answer(one, REQUEST).meets_slo is one.verdict(REQUEST).holds
