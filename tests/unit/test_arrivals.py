"""Schedules are what they claim to be, and the same for every layout."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from tuner.ask.arrivals import closed_load, lengths, offered, replay, schedule
from tuner.ask.request import Arrival, TokenLengths, Workload
from tuner.errors import BadInput

RATES = st.floats(0.1, 200)
DURATIONS = st.floats(0.1, 20)
SEEDS = st.integers(0, 2**40)
UNIFORM = TokenLengths(mean=100, min=50, max=150)


def test_constant_is_evenly_spaced_from_zero():
    assert schedule("constant", 4, 1.0, seed=1).tolist() == [0.0, 0.25, 0.5, 0.75]


def test_constant_does_not_depend_on_the_seed():
    np.testing.assert_array_equal(schedule("constant", 3, 7, 1), schedule("constant", 3, 7, 2))


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_poisson_gaps_are_exponential(seed):
    gaps_s = np.diff(schedule("poisson", 50, 100, seed), prepend=0.0)
    assert scipy_stats.kstest(gaps_s, scipy_stats.expon(scale=1 / 50).cdf).pvalue > 0.01
    assert abs(np.corrcoef(gaps_s[:-1], gaps_s[1:])[0, 1]) < 0.05


@pytest.mark.parametrize("bin_s", [0.1, 1.0, 5.0])
def test_poisson_counts_vary_as_much_as_their_mean(bin_s):
    offset_s = schedule("poisson", 20, 2000, seed=7)
    counts = np.histogram(offset_s, np.arange(0, 2000 + bin_s / 2, bin_s))[0]
    spread = 5 * np.sqrt(2 / len(counts))  # five standard errors of the index of dispersion
    assert counts.var(ddof=1) / counts.mean() == pytest.approx(1, abs=spread)


def test_schedules_of_several_seeds_superpose_to_poisson():
    merged_s = np.sort(np.concatenate([schedule("poisson", 10, 200, seed) for seed in range(8)]))
    gaps_s = np.diff(merged_s, prepend=0.0)
    assert scipy_stats.kstest(gaps_s, scipy_stats.expon(scale=1 / 80).cdf).pvalue > 0.01


@given(process=st.sampled_from(["constant", "poisson", "gamma"]), rate=RATES, duration_s=DURATIONS, seed=SEEDS)
def test_schedules_ascend_within_the_window_and_repeat(process, rate, duration_s, seed):
    offset_s = schedule(process, rate, duration_s, seed)
    assert (np.diff(offset_s) >= 0).all()
    assert ((offset_s >= 0) & (offset_s < duration_s)).all()
    np.testing.assert_array_equal(offset_s, schedule(process, rate, duration_s, seed))


@given(rate=RATES, duration_s=DURATIONS, seed=SEEDS)
def test_poisson_at_twice_the_rate_is_the_same_schedule_at_twice_the_speed(rate, duration_s, seed):
    slow_s = schedule("poisson", rate, duration_s, seed)
    fast_s = schedule("poisson", 2 * rate, duration_s / 2, seed)
    np.testing.assert_allclose(slow_s, 2 * fast_s)


@given(seed=SEEDS)
def test_a_longer_window_begins_like_the_shorter_one(seed):
    short_s, long_s = (schedule("poisson", 100, duration_s, seed) for duration_s in (5, 60))
    np.testing.assert_array_equal(short_s, long_s[: len(short_s)])


@given(count=st.integers(0, 500), seed=SEEDS)
def test_lengths_keep_their_bounds_and_repeat(count, seed):
    drawn = lengths(UNIFORM, count, seed)
    assert drawn.shape == (count,)
    assert ((drawn >= 50) & (drawn <= 150)).all()
    np.testing.assert_array_equal(drawn, lengths(UNIFORM, count, seed))


def test_lengths_reach_both_bounds_evenly():
    drawn = lengths(UNIFORM, 20_000, seed=3)
    counts = np.bincount(drawn)[50:]
    assert len(counts) == 101
    assert scipy_stats.chisquare(counts).pvalue > 0.01


def test_a_fixed_length_is_fixed():
    assert set(lengths(TokenLengths(mean=7), 50, seed=1).tolist()) == {7}


def test_prompt_and_output_lengths_of_one_seed_are_independent():
    workload = Workload(prompt_tokens=UNIFORM, output_tokens=UNIFORM, arrival=Arrival(requests_per_s=5))
    load = offered(workload, 500, 10, seed=11)
    assert len(load) == len(load.prompt_tokens) == len(load.output_tokens) > 4000
    assert abs(np.corrcoef(load.prompt_tokens, load.output_tokens)[0, 1]) < 0.05


def test_a_window_in_which_nothing_arrives_gets_one_request():
    workload = Workload(prompt_tokens=UNIFORM, output_tokens=UNIFORM, arrival=Arrival(requests_per_s=5))
    assert schedule("poisson", 1e-6, 1, seed=0).size == 0
    assert offered(workload, 1e-6, 1, seed=0).offset_s.tolist() == [0.0]


@pytest.mark.parametrize(
    ("process", "rate", "duration_s", "seed", "where"),
    [
        ("gauss", 1, 1, 0, "process"),
        ("poisson", 0, 1, 0, "rate_req_per_s"),
        ("poisson", float("nan"), 1, 0, "rate_req_per_s"),
        ("constant", 1, -1, 0, "duration_s"),
        ("constant", 1, float("inf"), 0, "duration_s"),
        ("poisson", 1e9, 30, 0, "load"),
        ("poisson", 1, 1, -1, "seed"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_by_name(process, rate, duration_s, seed, where):
    with pytest.raises(BadInput) as caught:
        schedule(process, rate, duration_s, seed)
    assert where in caught.value.where


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gaps_have_the_asked_spread(burstiness):
    gaps_s = np.diff(schedule("gamma", 20, 2000, seed=3, burstiness=burstiness))
    assert gaps_s.mean() == pytest.approx(1 / 20, rel=0.05)
    assert gaps_s.var() / gaps_s.mean() ** 2 == pytest.approx(burstiness, rel=0.1)
    shape = 1 / burstiness
    assert scipy_stats.kstest(gaps_s, scipy_stats.gamma(shape, scale=burstiness / 20).cdf).pvalue > 0.01


def test_a_request_says_how_bursty():
    arrival = Arrival(process="gamma", requests_per_s=5, burstiness=4)
    workload = Workload(prompt_tokens=10, output_tokens=10, arrival=arrival)
    np.testing.assert_array_equal(offered(workload, 5, 60, 1).offset_s, schedule("gamma", 5, 60, 1, burstiness=4))
    with pytest.raises(ValueError, match="gamma only"):
        Arrival(process="poisson", requests_per_s=5, burstiness=4)


def test_a_closed_loop_has_the_lengths_of_the_workload():
    workload = Workload(prompt_tokens=UNIFORM, output_tokens=7, arrival=Arrival(requests_per_s=1))
    load = closed_load(workload, users=3, requests=200, seed=5)
    assert len(load) == 200
    assert load.users == 3
    np.testing.assert_array_equal(load.prompt_tokens, lengths(UNIFORM, 200, seed=5))
    assert set(load.output_tokens) == {7}
    with pytest.raises(BadInput, match="requests"):
        closed_load(workload, users=3, requests=0, seed=5)


def test_a_trace_is_replayed_in_order_of_time(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("output_tokens,timestamp,prompt_tokens\n5,12.5,100\n6,10,200\n7,11,300\n")
    load = replay(path)
    assert load.offset_s.tolist() == [0.0, 1.0, 2.5]
    assert load.prompt_tokens.tolist() == [200, 300, 100]
    assert load.output_tokens.tolist() == [6, 7, 5]
    assert load.prefix_group is None
    path.write_text("timestamp,prompt_tokens,output_tokens,prefix_group\n3,1,1,0\n2,1,1,4\n")
    assert replay(path).prefix_group.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timestamp,prompt_tokens,output_tokens\n", "0 requests"),
        ("timestamp,prompt_tokens\n1,2\n", "a trace with the columns timestamp, prompt_tokens, output_tokens; or"),
        ("timestamp,prompt_tokens,output_tokens\n1,2\n", "line 2, output_tokens"),
        ("timestamp,prompt_tokens,output_tokens\n1,2,3\n2,0,3\n", "line 3, prompt_tokens: got '0'"),
        ("timestamp,prompt_tokens,output_tokens\nnoon,2,3\n", "line 2, timestamp: got 'noon'"),
        ("timestamp,prompt_tokens,output_tokens\nnan,2,3\n", "line 2, timestamp"),
    ],
)
def test_what_is_no_trace_is_refused_by_line_and_column(tmp_path, text, message):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        replay(path)


def test_a_trace_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="readable CSV"):
        replay(tmp_path / "none.csv")


@pytest.mark.parametrize("start_share", [0.0, 0.5, 1.0, 1.7, 2.0])
@pytest.mark.parametrize("process", ["ramp", "step"])
def test_a_changing_rate_is_a_poisson_process_of_that_rate(process, start_share):
    """By time-rescaling: sent through its expected count, the process must be an even one."""
    offset_s = schedule(process, 50, 200, seed=4, start_share=start_share)
    assert len(offset_s) == pytest.approx(50 * 200, abs=5 * np.sqrt(50 * 200))
    t = offset_s / 200
    if process == "ramp":
        expected = start_share * t + (1 - start_share) * t**2
    else:
        expected = np.where(t < 0.5, start_share * t, start_share / 2 + (2 - start_share) * (t - 0.5))
    gaps = np.diff(expected * 50 * 200, prepend=0.0)
    assert scipy_stats.kstest(gaps, scipy_stats.expon.cdf).pvalue > 0.01
    counts = np.histogram(expected, 200)[0]
    assert counts.var(ddof=1) / counts.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / 200))


@given(
    process=st.sampled_from(["ramp", "step"]), rate=RATES, duration_s=DURATIONS, seed=SEEDS, start_share=st.floats(0, 2)
)
def test_changing_rates_ascend_within_the_window_and_repeat(process, rate, duration_s, seed, start_share):
    offset_s = schedule(process, rate, duration_s, seed, start_share=start_share)
    assert (np.diff(offset_s) >= 0).all()
    assert ((offset_s >= 0) & (offset_s < duration_s)).all()
    np.testing.assert_array_equal(offset_s, schedule(process, rate, duration_s, seed, start_share=start_share))


def poisson_load(rate=100, seconds=100, process="poisson", seed=9):
    workload = Workload(
        prompt_tokens=UNIFORM, output_tokens=UNIFORM, arrival=Arrival(process=process, requests_per_s=rate)
    )
    return offered(workload, rate, seconds, seed)


@pytest.mark.parametrize("process", ["poisson", "constant", "ramp", "step"])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_shares_of_all_workers_are_the_schedule(process, workers):
    load = poisson_load(process=process)
    shares = [load.share(worker, workers) for worker in range(workers)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    order = np.argsort(np.concatenate([share.offset_s for share in shares]), kind="stable")
    for name in ("offset_s", "prompt_tokens", "output_tokens"):
        together = np.concatenate([getattr(share, name) for share in shares])[order]
        np.testing.assert_array_equal(together, getattr(load, name))
    with pytest.raises(BadInput, match="worker"):
        load.share(workers, workers)


@pytest.mark.parametrize("workers", [2, 4])
def test_what_several_workers_send_together_is_poisson(workers):
    load = poisson_load()
    merged_s = np.sort(np.concatenate([load.share(worker, workers).offset_s for worker in range(workers)]))
    gaps_s = np.diff(merged_s, prepend=0.0)
    assert scipy_stats.kstest(gaps_s, scipy_stats.expon(scale=1 / 100).cdf).pvalue > 0.01
    counts = np.histogram(merged_s, np.arange(0, 100.05, 0.1))[0]
    assert counts.var(ddof=1) / counts.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / len(counts)))
    own_gaps_s = np.diff(load.share(0, workers).offset_s)  # of one worker, every so many-th: Erlang gaps
    assert scipy_stats.kstest(own_gaps_s, scipy_stats.gamma(workers, scale=1 / 100).cdf).pvalue > 0.01


def test_gamma_counts_vary_by_their_burstiness():
    offset_s = schedule("gamma", 20, 4000, seed=7, burstiness=4)
    counts = np.histogram(offset_s, np.arange(0, 4001, 20.0))[0]
    assert counts.var(ddof=1) / counts.mean() == pytest.approx(4, rel=0.5)  # of many events per bin, as of renewals


@pytest.mark.parametrize("distribution", ["normal", "lognormal"])
def test_lengths_follow_their_distribution_between_their_bounds(distribution):
    wide = TokenLengths(mean=1000, min=1, max=100_000, distribution=distribution, sd=200)
    drawn = lengths(wide, 20_000, seed=2)
    assert drawn.mean() == pytest.approx(1000, rel=0.01)
    assert drawn.std() == pytest.approx(200, rel=0.05)
    values = drawn if distribution == "normal" else np.log(drawn)
    assert abs(scipy_stats.skew(values)) < 0.1
    narrow = lengths(wide.model_copy(update={"min": 900, "max": 1300}), 5000, seed=2)
    assert narrow.min() >= 900
    assert narrow.max() <= 1300
    assert np.bincount(narrow)[[900, 1300]].max() < 100  # cut off, not heaped up at the bounds


def test_a_closed_loop_offers_no_rate():
    arrival = Arrival(process="closed_loop", requests_per_s=5, users=3, think_s=1.0)
    with pytest.raises(BadInput, match="closed loop"):
        offered(Workload(prompt_tokens=10, output_tokens=10, arrival=arrival), 5, 10, 1)


@pytest.mark.parametrize(
    ("arrival", "message"),
    [
        ({"process": "closed_loop"}, "users, with process closed_loop"),
        ({"process": "trace"}, "trace, with process trace"),
        ({"users": 3}, "users with process closed_loop only"),
        ({"start_share": 0.2}, "start_share with process ramp or step only"),
        ({"process": "ramp", "start_share": 2.5}, "less than or equal to 2"),
    ],
)
def test_keys_belong_to_their_process(arrival, message):
    with pytest.raises(ValueError, match=message):
        Arrival(**{"requests_per_s": 5} | arrival)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"distribution": "normal"}, "sd, min and max"),
        ({"distribution": "lognormal", "sd": 5, "mean": 10}, "sd, min and max"),
        ({"sd": 5}, "sd with distribution"),
        ({"distribution": "normal", "sd": 1e9, "min": 9, "max": 11}, "part of the distribution"),
    ],
)
def test_lengths_that_make_no_distribution_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        TokenLengths(**{"mean": 10} | given)
