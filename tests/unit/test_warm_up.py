"""A warm-up ends when it is over: before its usual length, after it, and never later than it may."""

from dataclasses import replace

import numpy as np
import pytest

from serve.measure.http_meter import HttpMeter
from serve.measure.window_requests import expected_requests, order_of
from tests.fakes import make_request, make_step
from tests.load_windows import FakeDeployment, quiet_client, request, step  # noqa: F401
from tests.mock_server import MockServer
from tuner.ask.request import LONGEST_WARM_UP, Metric
from tuner.retune.known import Known
from tuner.search.rates import usual_load_s
from tuner.stats.warm_up import EARLIEST, LOOK_S, Heard, WarmUp
from tuner.stats.warming import Warmth
from tuner.study.load_steps import warm_up
from tuner.study.trial_run import _after
from tuner.trial.seams import Watch

NAN = float("nan")
FIVE = WarmUp(5.0, 20.0)


def heard(latencies_s, longest_s=0.1) -> Heard:
    return Heard({Metric.TTFT: np.asarray(latencies_s)}, longest_s)


STEADY, FEW = heard(np.full(60, 0.1)), heard(np.full(9, 0.1))
COLD = heard(np.r_[np.full(60, 0.3), np.full(12, 0.1)])
SILENT = Heard({}, 3.0)


def test_what_was_heard_by_a_moment():
    sent_s, first_s = [0.0, 1.0, 2.0, 3.0, 9.0], [2.5, 1.5, 2.2, NAN, 9.5]
    end_s, tpot_s = [6.0, 4.0, 4.5, NAN, 9.9], [0.1, 0.2, NAN, NAN, 0.3]
    found = Heard.by(5.0, sent_s, first_s, end_s, tpot_s)
    assert found.values_s[Metric.TTFT].tolist() == pytest.approx([0.5, 0.2, 2.5])  # in order of first tokens
    assert found.values_s[Metric.TPOT].tolist() == [0.2]  # the first still runs, the third has a single token
    assert found.longest_s == 5.0
    assert Heard.by(1.2, sent_s, first_s, end_s, tpot_s) == Heard({}, 1.2)


@pytest.mark.parametrize(
    ("now_s", "seen", "over"),
    [
        (2.0, STEADY, False),  # before half of it, too little was seen
        (2.5, STEADY, True),
        (2.5, replace(STEADY, longest_s=2.0), False),  # requests still come faster than they leave
        (4.0, replace(STEADY, longest_s=2.0), True),
        (4.5, FEW, False),
        (5.0, FEW, True),  # nothing speaks against its usual end
        (5.0, COLD, False),
        (5.0, SILENT, False),  # nothing has answered yet
        (19.5, COLD, False),
        (20.0, COLD, True),  # it is never cold for ever
        (20.0, SILENT, True),
    ],
)
def test_when_it_is_over(now_s, seen, over):
    assert FIVE.over(now_s, seen) is over


@pytest.mark.parametrize("seen", [STEADY, FEW, COLD, SILENT])
def test_one_of_fixed_length_hears_nothing(seen):
    fixed = WarmUp(5.0, 5.0)
    assert [fixed.over(now_s, seen) for now_s in (2.5, 4.9, 5.0)] == [False, False, True]
    assert fixed.caution(5.0, seen) is None


def test_who_ended_cold_says_so():
    assert FIVE.caution(20.0, COLD) == "not yet warm after 20 s of load: TTFT still fell (median 300 ms, then 300 ms)"
    assert FIVE.caution(20.0, SILENT) == "not yet warm after 20 s of load: no answer had begun"
    assert FIVE.caution(20.0, STEADY) is None
    assert FIVE.caution(7.0, COLD) is None  # it ended because it was over


def lasting_s(rate: float, slow, seed: int) -> float:
    """How long a warm-up lasts whose TTFT, under Poisson arrivals, is ``slow`` (at each second) times as long."""
    random = np.random.default_rng(seed)
    at_s = np.cumsum(random.exponential(1 / rate, int(rate * 40)))
    ttft_s = 0.1 * random.lognormal(0, 0.3, at_s.size) * slow(at_s)
    looks = np.arange(LOOK_S, FIVE.longest_s + LOOK_S, LOOK_S)
    arrays = at_s, at_s + ttft_s, at_s + ttft_s + 0.2, np.full(at_s.size, NAN)
    return next(float(now_s) for now_s in looks if FIVE.over(now_s, Heard.by(now_s, *arrays)))


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.5, 2, 8, 40])
def test_a_warm_engine_seldom_waits_longer_than_usual(rate):
    lasted = [lasting_s(rate, np.ones_like, seed) for seed in range(200)]
    assert np.mean([s > FIVE.usual_s for s in lasted]) <= 0.08
    assert max(lasted) <= FIVE.longest_s
    assert np.mean(lasted) <= 5.2
    assert (np.median(lasted) < FIVE.usual_s) == (rate == 40)  # many answers are steady before


@pytest.mark.slow
def test_a_cold_engine_is_waited_for():
    lasted = [lasting_s(40, lambda at_s: 1 + 9 * np.exp(-at_s / 3), seed) for seed in range(100)]
    assert np.median(lasted) >= 9  # where latencies are within half of what they will be
    assert np.percentile(lasted, 10) > FIVE.usual_s
    assert max(lasted) <= FIVE.longest_s


@pytest.mark.parametrize(
    ("changes", "longest_s"),
    [
        ({}, LONGEST_WARM_UP * 5.0),
        ({"load.warmup": "fixed"}, None),
        ({"workload.arrival.process": "ramp"}, None),  # its latencies change by design
    ],
)
def test_an_operator_may_fix_its_length(changes, longest_s):
    (first,) = warm_up(make_request({"load.warmup_seconds": 5.0, **changes}))
    assert (first.duration_s, first.longest_s, first.warmup) == (5.0, longest_s, True)
    order = order_of(first, make_request(changes))
    assert order.warm_up == WarmUp(5.0, longest_s or 5.0)
    assert order.end_s == (longest_s or 5.0)
    assert expected_requests(order) is None


def test_the_length_of_a_trial_has_one_owner():
    asked = make_request({"load.warmup_seconds": 5, "load.seconds": 30, "objective": "min_gpus"})
    assert usual_load_s(asked) == 35  # of its two rates one decides
    assert usual_load_s(asked, warm=True) == 30
    assert usual_load_s(make_request({"load.seconds": 30, "load.rates_req_per_s": [1, 2, 3]})) == 91
    known = Known(asked)
    assert known.tuning_gpu_hours(2) == pytest.approx(2 * 4 * (35 + known.start_s) / 3600)


def test_the_first_load_step_says_how_the_warm_up_went():
    (first,) = warm_up(make_request())
    ended = replace(make_step(first, make_request(), 20), offered_s=3.5, cautions=("not yet warm",))
    found = replace(make_step(step(), make_request(), 20), cautions=("tokens",))
    assert _after([], found) is found
    assert _after([ended], found) == replace(found, warm_up_s=3.5, cautions=("not yet warm", "tokens"))


def measured(server, monkeypatch, says, **changes):
    monkeypatch.setattr("tuner.stats.warm_up.warmth", lambda values: says)
    asked = replace(step(seconds=1.0, warmup=True), **{"longest_s": 2.5} | changes)
    return HttpMeter().measure(FakeDeployment(server.url), asked, request(), Watch())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("says", "at_least_s", "below_s", "words"),
    [
        (Warmth.WARM, EARLIEST, 2.5, ""),
        (Warmth.UNKNOWN, 1.0, 2.5, ""),
        (Warmth.COLD, 2.5, 2.6, "not yet warm after 2.5 s of load: TTFT still fell"),
    ],
)
def test_a_real_window_ends_as_it_says(monkeypatch, says, at_least_s, below_s, words):
    with MockServer() as server:
        found = measured(server, monkeypatch, says)
    assert at_least_s <= found.offered_s < below_s
    assert found.sent == found.completed == len(server.served)  # what was in flight is waited for
    assert found.sent <= 20 * found.offered_s + 1
    assert [caution[: len(words)] for caution in found.cautions] == ([words] if words else [])


@pytest.mark.slow
def test_a_window_of_fixed_length_is_as_long_whatever_it_sees(monkeypatch):
    with MockServer() as server:
        found = measured(server, monkeypatch, Warmth.COLD, longest_s=None)
    assert (found.offered_s, found.sent, found.cautions) == (1.0, 20, ())


@pytest.mark.slow
def test_a_cold_miss_does_not_end_the_warm_up(monkeypatch):
    """All of its answers miss the SLO: that would end a window that counts."""
    with MockServer(ttft_s=0.7) as server:
        found = measured(server, monkeypatch, Warmth.COLD, rate_req_per_s=60.0)
    assert found.offered_s > 2.0  # what then waits too long is dropped
    assert found.ended_early is None
