"""The rate of a window is its requests ÷ its seconds, however many requests it has and wherever they lie in it."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from serve.load.endpoint import Endpoint
from serve.load.request_sample import Outcome, Sample
from serve.measure.probe import longest_served
from serve.measure.summary import figures
from tests.fakes import make_request
from tuner.app.measure.options import MeasureOptions
from tuner.app.measure.sweep import Sweep
from tuner.app.simulate import SimulateOptions, simulate_answer, simulate_tables
from tuner.ask.arrivals import OfferedLoad, offered, replay
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import SloTarget
from tuner.ask.traces import read_trace
from tuner.ask.workload import TooLong
from tuner.errors import BadInput

CASES = Path(__file__).parents[1] / "data" / "cases"
AZURE = CASES / "simulate_trace_max_rate" / "azure_code_300.csv"
BURST = CASES / "trace_window_rate" / "burst.csv"
SLO = (SloTarget.parse("ttft:p90:2000"),)


def seen(load, latency_s=0.05):
    """What a fast server shows of a load."""
    rows = enumerate(zip(load.offset_s.tolist(), load.prompt_tokens.tolist(), strict=True))
    return [
        Sample(index, at, at, at, (at + latency_s,), at + latency_s, tokens, 1, Outcome.OK)
        for index, (at, tokens) in rows
    ]


@pytest.mark.parametrize(("trace", "rate", "sent"), [(BURST, 0.2, 1), (AZURE, 2.4, 12)])
def test_a_window_of_a_trace(trace, rate, sent):
    options = MeasureOptions("http://h", trace=trace, trace_window="0..15", trace_speeds=(3.0,), warmup_seconds=0.0)
    order = Sweep(options, SLO).ask()
    assert (order.rate_req_per_s, order.duration_s) == (pytest.approx(rate), pytest.approx(5.0))
    found = figures(seen(order.load), SLO, order.duration_s)
    assert (found.sent, found.offered_s, found.wall_s) == (sent, pytest.approx(5.0), pytest.approx(5.0, abs=0.1))
    for one in (found.offered_req_per_s, found.goodput_req_per_s, found.achieved_req_per_s):
        assert one == pytest.approx(rate, rel=0.02)
    assert found.prompt_tok_per_s == pytest.approx(rate * order.load.prompt_tokens.mean(), rel=0.02)


@pytest.mark.slow
@settings(max_examples=30)
@given(start=st.floats(0, 200), length=st.floats(0.01, 100), speed=st.floats(0.1, 50))
def test_speed_changes_the_rate_in_proportion(start, length, speed):
    window_s = (start, start + length)
    expected = ((read_trace(AZURE).at_s >= window_s[0]) & (read_trace(AZURE).at_s < window_s[1])).sum()
    if not expected:
        with pytest.raises(BadInput, match="in which requests arrive; it has 216"):
            replay(AZURE, speed, window_s)
        return
    load = replay(AZURE, speed, window_s)
    assert len(load) == expected
    assert load.rate_req_per_s == pytest.approx(expected * speed / (window_s[1] - window_s[0]))
    assert load.rate_req_per_s == pytest.approx(speed * replay(AZURE, 1.0, window_s).rate_req_per_s)
    assert 0 <= load.offset_s.min() <= load.offset_s.max() <= load.duration_s


def test_a_whole_trace_lasts_a_mean_gap_beyond_its_last_request(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("timestamp,prompt_tokens,output_tokens\n0,8,1\n1,8,1\n2,8,1\n")
    load = replay(path, speed=2.0)
    assert (load.duration_s, load.rate_req_per_s) == (1.5, 2.0)
    path.write_text("timestamp,prompt_tokens,output_tokens\n7,8,1\n")
    alone = replay(path)
    assert (alone.duration_s, alone.rate_req_per_s) == (None, None)  # absent, never 1000
    order = Sweep(MeasureOptions("http://h", trace=path), ()).ask()
    found = figures(seen(order.load), (), order.duration_s)
    assert (order.rate_req_per_s, found.offered_req_per_s, found.goodput_req_per_s) == (None, None, None)
    assert replay(path, window_s=(0, 10)).rate_req_per_s == 0.1


@settings(max_examples=30)
@given(
    process=st.sampled_from(["constant", "poisson", "gamma", "ramp", "step"]),
    rate=st.floats(0.05, 200),
    duration_s=st.floats(0.5, 20),
    seed=st.integers(0, 99),
)
def test_a_drawn_load_knows_its_window(process, rate, duration_s, seed):
    arrival = {"process": process, "requests_per_s": rate}
    load = offered(make_request({"workload.arrival": arrival}).workload, rate, duration_s, seed)
    assert (load.duration_s, load.rate_req_per_s) == (duration_s, len(load) / duration_s)
    assert load.share(0, 2).duration_s == duration_s


@pytest.mark.slow
def test_a_simulated_request_alone_has_the_rate_of_its_window(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("timestamp,prompt_tokens,output_tokens\n7,64,8\n")
    request = make_request({"workload.arrival.requests_per_s": 0.5})
    answer = simulate_answer(request, SimulateOptions(ParallelLayout(), trace=path))
    assert answer.load.rate_req_per_s == 0.5
    assert answer.goodput_req_per_s == 0.5
    assert answer.output_tok_per_s == 4.0
    assert 0.5 < answer.max_rate_req_per_s < 1000  # one request alone would hold the SLO at any rate
    few = simulate_answer(request, SimulateOptions(ParallelLayout(), requests=1, rate_req_per_s=0.1))
    assert few.load.rate_req_per_s == pytest.approx(0.1 * few.load.requests)
    assert few.goodput_req_per_s == pytest.approx(0.1 * few.load.requests)


@pytest.mark.slow
def test_people_are_told_which_load_the_highest_rate_is_of():
    request = make_request()
    for options, words in (
        (SimulateOptions(ParallelLayout(), requests=50), " req/s\n"),
        (SimulateOptions(ParallelLayout(), requests=50, users=3), " req/s of Poisson arrivals\n"),
    ):
        console = Console(file=io.StringIO(), width=200)
        simulate_tables(console, simulate_answer(request, options))
        assert words in console.file.getvalue().partition("the SLO holds up to")[2]


def test_what_the_server_does_not_take_is_refused_before_the_load():
    trace = MeasureOptions("http://h", trace=AZURE, trace_window="0..60")
    with pytest.raises(
        BadInput, match=r"\d+ of \d+ requests longer than 2,000 tokens; the longest, line \d+.*--too-long"
    ):
        Sweep(trace, SLO).within(2000)
    for choice in (TooLong.SKIP, TooLong.TRUNCATE):
        source = Sweep(MeasureOptions("http://h", trace=AZURE, trace_window="0..60", too_long=choice), SLO)
        source.within(2000)
        order = source.ask()
        whole = Sweep(trace, SLO).ask()
        left = order.load.too_long if choice is TooLong.SKIP else 0
        assert len(order.load) == len(whole.load) - left
        assert order.load.too_long > 0
        assert order.rate_req_per_s == pytest.approx(len(order.load) / 60)
        assert (order.load.prompt_tokens + order.load.output_tokens).max() <= 2000
        assert f"{order.load.too_long} too long: {choice.value}" in order.name
    with pytest.raises(BadInput, match="up to 256 and 64 tokens"):
        Sweep(MeasureOptions("http://h"), SLO).within(300)
    with pytest.raises(BadInput, match="up to 256 and 64 tokens"):
        Sweep(MeasureOptions("http://h", max_model_len=300), SLO)
    Sweep(MeasureOptions("http://h", max_model_len=320), SLO).within(100)  # what the operator says comes first
    with pytest.raises(BadInput, match="with --trace only"):
        Sweep(MeasureOptions("http://h", too_long=TooLong.SKIP), SLO)


@pytest.mark.parametrize(("said", "limit"), [(4096, 4096), (None, None), ("4096", None), (0, None)])
def test_the_server_says_what_it_takes(said, limit, monkeypatch):
    models = [{"id": "other", "max_model_len": 7}, {"id": "m", "max_model_len": said}]
    monkeypatch.setattr("serve.measure.probe._listed", lambda *_, **__: models)
    assert longest_served(Endpoint("http://h", "m")) == limit


def test_a_load_without_a_window_has_no_rate():
    assert OfferedLoad(np.zeros(1), np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64)).rate_req_per_s is None
