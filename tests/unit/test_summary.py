"""From samples to figures: every request counts, chance has its interval, and a cut-off window is judged fairly."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.load.request_sample import Outcome, Sample
from serve.measure.summary import figures, judged, latency, latency_s, unsteady, warm_up_left_s
from tuner.ask.request import Metric, SloTarget
from tuner.ask.slo import Verdict

SLO = (SloTarget.parse("ttft:p99:500"), SloTarget.parse("tpot:p90:50"))


def sample(index=0, ttft_s=0.1, tpot_s=0.01, tokens=3, outcome=Outcome.OK, lag_s=0.0, sent_s=0.0):
    chunks = tuple(sent_s + ttft_s + tpot_s * number for number in range(tokens))
    return Sample(index, sent_s - lag_s, sent_s, sent_s, chunks, chunks[-1], 16, tokens, outcome)


def waiting(index, sent_s, end_s):
    """A request that had no token when the window was cut off."""
    return Sample(index, sent_s, sent_s, None, (), end_s, 16, None, Outcome.CUT_OFF)


def test_attainment_is_of_all_requests_and_goodput_of_the_time_that_was_offered():
    samples = [sample(0), sample(1, ttft_s=0.6), sample(2, tpot_s=0.06), sample(3, outcome=Outcome.RESET)]
    samples.append(sample(4, tokens=1))
    found = figures(samples, SLO, offered_s=2.0)
    assert (found.sent, found.completed, found.failed, found.errors) == (5, 4, 1, {"reset": 1})
    assert (found.attainment, found.goodput_req_per_s, found.offered_req_per_s) == (0.4, 1.0, 2.5)
    assert found.attainment_interval == pytest.approx((0.118, 0.769), abs=1e-3)
    ttft, tpot = found.targets
    assert (ttft.value_ms, ttft.met, ttft.attainment) == (pytest.approx(600), False, 0.6)
    assert (tpot.value_ms, tpot.met) == (pytest.approx(60), False)
    assert found.latency[Metric.TPOT].count == 3
    assert (found.verdict, found.certain) == (Verdict.MISSED, True)


def test_nothing_is_claimed_of_nothing():
    nothing = figures([], SLO, 1.0)
    assert (nothing.attainment, nothing.goodput_req_per_s, nothing.schedule_lag_p99_ms) == (None, None, None)
    assert (nothing.verdict, nothing.latency, nothing.ttft_from_intended) == (Verdict.UNKNOWN, {}, None)
    failed = figures([sample(outcome=Outcome.TIMEOUT)], SLO, 1.0)
    assert (failed.attainment, failed.output_tok_per_s, failed.latency) == (0.0, None, {})
    assert [target.value_ms for target in failed.targets] == [None, None]
    assert failed.verdict is Verdict.MISSED
    assert figures([sample()], (), 1.0).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("count", "ttft_s", "verdict", "certain"),
    [
        (400, 0.1, Verdict.MET, True),
        (100, 0.1, Verdict.MET, False),  # p99 of a hundred requests has no upper bound
        (400, 0.6, Verdict.MISSED, True),
        (100, 0.6, Verdict.MISSED, False),
    ],
)
def test_a_verdict_says_whether_chance_could_turn_it(count, ttft_s, verdict, certain):
    found = figures([sample(index, ttft_s=ttft_s) for index in range(count)], SLO[:1], 1.0)
    assert (found.verdict, found.certain) == (verdict, certain)


@pytest.mark.parametrize(
    ("asked", "verdict", "certain"),
    [
        (None, Verdict.MET, True),
        (0.5, Verdict.MET, True),
        (0.85, Verdict.MET, False),
        (0.87, Verdict.MISSED, False),
        (0.99, Verdict.MISSED, True),
    ],
)
def test_attainment_decides_beside_the_targets(asked, verdict, certain):
    """Of 400 requests, 28 are over the one target and 28 others over the other; a fifth of them may be."""
    slo = (SloTarget.parse("ttft:p80:500"), SloTarget.parse("tpot:p80:50"))
    places = np.random.default_rng(1).permutation(400)
    samples = [
        sample(index, ttft_s=0.6 if place < 28 else 0.1, tpot_s=0.06 if 28 <= place < 56 else 0.01)
        for index, place in enumerate(places)
    ]
    found = figures(samples, slo, 1.0, attainment=asked)
    assert found.attainment == 0.86
    assert (found.verdict, found.certain) == (verdict, certain)


def test_a_target_without_a_value_is_neither_met_nor_missed():
    found = figures([sample(index, tokens=1) for index in range(400)], SLO, 1.0)
    assert (found.verdict, found.certain, found.targets[1].met) == (Verdict.UNKNOWN, False, None)


def test_a_wait_counts_from_the_intended_send_too():
    found = figures([sample(lag_s=0.25, sent_s=1.0)], SLO, 1.0)
    assert found.latency[Metric.TTFT].at_ms[50] == pytest.approx(100)
    assert found.ttft_from_intended is not None
    assert found.ttft_from_intended.at_ms[50] == pytest.approx(350)
    assert found.schedule_lag_max_ms == pytest.approx(250)


def test_a_cut_off_request_counts_once_its_age_alone_misses():
    samples = [sample(0), waiting(1, 0.1, 1.0), waiting(2, 0.2, 1.0), waiting(3, 0.8, 1.0), waiting(4, 0.9, 1.0)]
    assert [one.index for one in judged(samples, SLO)] == [0, 1, 2]
    found = figures(samples, SLO, offered_s=1.0)
    assert (found.sent, found.completed, found.cut_off, found.failed) == (3, 1, 2, 0)
    assert (found.offered_s, found.attainment, found.verdict) == (0.8, pytest.approx(1 / 3), Verdict.MISSED)
    assert found.latency[Metric.TTFT].at_ms[99] == pytest.approx(900)  # at least


def test_a_cut_off_request_counts_once_its_tokens_are_too_late():
    """What ended the window is in its figures: a slow answer misses TPOT long before its last token."""
    samples = [sample(0, tokens=11)]
    samples += [replace(waiting(index, 0.0, 1.0), chunk_s=(0.1, 0.3), asked_output_tokens=11) for index in (1, 2)]
    samples += [replace(waiting(3, 0.6, 1.0), chunk_s=(0.7, 0.8), asked_output_tokens=11)]
    found = figures(samples, SLO, offered_s=1.0)
    assert (found.sent, found.completed, found.cut_off, found.verdict) == (3, 1, 2, Verdict.MISSED)
    assert found.attainment == pytest.approx(1 / 3)
    assert found.latency[Metric.TPOT].at_ms[99] == pytest.approx(90)  # at least


def test_fast_answers_after_an_undecided_request_do_not_count():
    samples = [waiting(0, 0.8, 1.0), sample(1, sent_s=0.85), sample(2, sent_s=0.85)]
    assert judged(samples, SLO) == []
    assert figures(samples, SLO, 1.0).verdict is Verdict.UNKNOWN


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 3)), min_size=1, max_size=40), st.floats(0.1, 8))
def test_cutting_off_never_hides_a_miss_before_it(arrivals, cut_s):
    """What was sent early enough to be decided by the cut is judged as if nothing had been cut."""
    arrivals = sorted(arrivals)
    whole = [sample(index, ttft_s=ttft_s, tokens=1, sent_s=at_s) for index, (at_s, ttft_s) in enumerate(arrivals)]
    seen = [
        one if one.end_s <= cut_s else waiting(one.index, one.sent_s, cut_s) for one in whole if one.sent_s <= cut_s
    ]
    kept = judged(seen, SLO)
    expected = [one for one in whole if one.index < len(kept)]
    assert sum(one.ttft_s > 0.5 for one in expected if one.ttft_s is not None) == sum(
        not one.ok or (one.ttft_s or 0.0) > 0.5 for one in kept
    )


def test_samples_are_those_of_whole_answers():
    found = latency_s([sample(0), sample(1, tokens=1), sample(2, outcome=Outcome.TRUNCATED)])
    assert {metric: len(values) for metric, values in found.items()} == {
        Metric.TTFT: 2,
        Metric.TPOT: 1,
        Metric.E2E: 2,
        Metric.ITL: 2,
    }
    assert latency_s([]) == {}


def test_rates_of_no_time_do_not_exist():
    one = figures([sample(tokens=1, ttft_s=0.0)], SLO, 0.0)
    assert one.wall_s == 0
    assert (one.achieved_req_per_s, one.output_tok_per_s, one.offered_req_per_s) == (None, None, None)
    assert not math.isnan(one.attainment or 0.0)


def load(ttft_s, count=200, seconds=20.0):
    """Requests at an even rate whose TTFT is a function of the time, with some noise."""
    random = np.random.default_rng(3)
    times = np.linspace(0, seconds, count)
    return [
        sample(number, ttft_s=float(ttft_s(at_s) * random.uniform(0.7, 1.3)), sent_s=float(at_s))
        for number, at_s in enumerate(times)
    ]


@pytest.mark.parametrize(
    ("ttft_s", "grows"),
    [
        (lambda at_s: 0.4, False),
        (lambda at_s: 0.1 + 0.1 * at_s, True),
        (lambda at_s: 3.0 - 0.1 * at_s, False),  # a queue that empties
        (lambda at_s: 0.5 + 0.4 * np.sin(at_s), False),
        (lambda at_s: 0.0005 * at_s, False),  # beyond chance, but never two requests
    ],
    ids=["even", "growing", "falling", "waves", "a little"],
)
def test_a_queue_that_grows_throughout_is_named(ttft_s, grows):
    words = unsteady(load(ttft_s))
    assert (words is not None) is grows
    if words:
        assert "requests in flight rose by" in words


@pytest.mark.slow
@pytest.mark.parametrize(("level", "quantile"), [(50, 0.0), (90, 1.2816)])
@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_intervals_hold_as_often_as_they_say_where_neighbours_are_alike(memory, level, quantile):
    """Lognormal values with a first-order memory; independent ones would hold the median in 42 % at 0.9."""
    random, held, found = np.random.default_rng(5), 0, 0
    for _ in range(200):
        state = random.standard_normal(1500) * math.sqrt(1 - memory**2)
        state[0] = random.standard_normal()
        for place in range(1, state.size):
            state[place] += memory * state[place - 1]
        interval_ms = latency(np.exp(state)).interval_ms[level]
        found += interval_ms is not None
        held += interval_ms is not None and interval_ms[0] <= math.exp(quantile) <= interval_ms[1]
    assert found >= 190
    assert held / found >= 0.92


def test_gaps_stand_in_the_order_of_time():
    slow, quick = sample(0, tpot_s=0.4), sample(1, tpot_s=0.1, sent_s=0.05)
    assert latency_s([slow, quick])[Metric.ITL] == pytest.approx([0.1, 0.1, 0.4, 0.4])
    both = latency_s([slow, sample(2, sent_s=0.2)])[Metric.ITL]
    assert both == pytest.approx([0.01, 0.01, 0.4, 0.4])


def test_few_answers_show_no_trend():
    assert unsteady(load(lambda at_s: 0.1 + 0.1 * at_s, count=60)) is None
    assert unsteady([]) is None


@pytest.mark.slow
def test_a_steady_load_is_rarely_called_unsteady():
    """M/M/1 at 70 % of its capacity, from an empty start."""
    random, alarms = np.random.default_rng(11), 0
    for _ in range(100):
        arrived = np.cumsum(random.exponential(1 / 7, 400))
        ended = 0.0
        made = []
        for number, at_s in enumerate(arrived):
            ended = max(ended, at_s) + random.exponential(0.1)
            made.append(sample(number, ttft_s=float(ended - at_s), tokens=1, sent_s=float(at_s)))
        alarms += unsteady(made) is not None
    assert alarms <= 3


def answers(ttft_s, every_s=0.1):
    return [sample(place, ttft_s=float(one), tokens=1, sent_s=place * every_s) for place, one in enumerate(ttft_s)]


@pytest.mark.slow
def test_a_warm_up_that_counts_is_named_with_its_length():
    found = []
    for seed in range(40):
        ttft_s = np.random.default_rng(seed).lognormal(np.log(0.1), 0.3, 340)
        ttft_s[:40] *= np.linspace(5, 1.5, 40)
        found.append(warm_up_left_s(answers(ttft_s)))
    seen_s = [one for one in found if one is not None]
    assert len(seen_s) >= 36
    assert 2.5 <= np.median(seen_s) <= 6


@pytest.mark.slow
def test_what_is_alike_throughout_has_no_warm_up():
    steady = [np.random.default_rng(seed).exponential(0.1, 400) for seed in range(50)]
    assert sum(warm_up_left_s(answers(ttft_s)) is not None for ttft_s in steady) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("busy", "at_most"), [(0.3, 1 / 25), (0.9, 1 / 8)])
def test_a_steady_queue_seldom_looks_like_a_warm_up(busy, at_most):
    """M/M/1 in its steady state: 300 windows of 600 requests."""
    random, alarms = np.random.default_rng(3), 0
    for _ in range(300):
        gaps_s, served_s = random.exponential(0.1 / busy, 900), random.exponential(0.1, 900)
        walk_s = np.r_[0.0, np.cumsum(served_s[:-1] - gaps_s[1:])]
        ttft_s = walk_s - np.minimum.accumulate(walk_s) + served_s  # Lindley's recursion, solved
        alarms += warm_up_left_s(answers(ttft_s[300:])) is not None
    assert alarms / 300 <= at_most


@pytest.mark.parametrize(
    "ttft_s",
    [np.linspace(0.1, 1, 300), np.full(300, 0.1), np.r_[np.full(30, 0.01), np.full(270, 0.1)], np.full(40, 0.1), []],
    ids=["slower and slower", "constant", "faster at first", "too few", "nothing"],
)
def test_only_a_slow_beginning_is_a_warm_up(ttft_s):
    assert warm_up_left_s(answers(ttft_s)) is None
