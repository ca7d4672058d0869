"""The limit is found where it is, within its interval, whatever the windows' noise; and what has no limit says so."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import make_request
from tuner.ask.arrivals import offered
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec
from tuner.ask.slo import Verdict
from tuner.cost.latency import StepCosts
from tuner.errors import BadInput
from tuner.simulate import Simulator
from tuner.stats.rate_search import RateSearch, SearchEnd


def drive(search, limit, noise=0.0, seed=0):
    """Windows that meet the SLO below a limit that chance moves; returns the rates that were asked for."""
    random, asked = np.random.default_rng(seed), []
    while (rate := search.ask()) is not None:
        asked.append(rate)
        met = rate <= limit * math.exp(noise * random.standard_normal())
        search.tell(rate, Verdict.MET if met else Verdict.MISSED, certain=noise == 0)
    return asked


@pytest.mark.slow
@settings(max_examples=30)
@given(limit=st.floats(0.2, 900))
def test_without_noise_the_limit_is_found_in_few_windows(limit):
    search = RateSearch(0.1, 1000, precision=0.1)
    asked = drive(search, limit)
    found = search.found
    assert found.end is SearchEnd.FOUND
    assert len(asked) == found.windows <= 20
    assert found.at_least_req_per_s * 0.97 <= limit <= found.at_most_req_per_s * 1.03
    assert found.rate_req_per_s <= limit
    assert found.rate_req_per_s >= limit / 1.25  # the interval keeps the precision; the last rate that met may lag it


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.15])
def test_with_noise_the_interval_holds_the_limit(noise):
    held, widths = 0, []
    for seed in range(30):
        search = RateSearch(0.1, 1000, start=20, precision=0.05, windows=24)
        drive(search, 37.0, noise, seed)
        found = search.found
        held += found.at_least_req_per_s <= 37.0 <= found.at_most_req_per_s
        widths.append(found.at_most_req_per_s / found.at_least_req_per_s)
    assert held >= 24  # 27 of 30 are stated
    assert np.median(widths) < 1.25


def test_a_window_that_shows_nothing_is_counted_and_moves_nothing():
    search = RateSearch(0.1, 1000, windows=3)
    first = search.ask()
    for _ in range(3):
        assert search.ask() == first
        search.tell(first, Verdict.UNKNOWN)
    assert (search.found.windows, search.found.end) == (3, SearchEnd.NO_WINDOWS_LEFT)
    assert search.found.rate_req_per_s is None


@pytest.mark.slow
def test_a_good_guess_saves_windows_and_a_bad_one_does_not_mislead():
    counts = {start: len(drive(search := RateSearch(0.1, 1000, start=start), 40.0)) for start in (38, 0.2, None)}
    assert counts[38] < counts[None]
    assert search.found.end is SearchEnd.FOUND


def test_even_the_lowest_rate_fails():
    search = RateSearch(1, 100)
    asked = drive(search, 0.3)
    assert search.found.end is SearchEnd.LOWEST_FAILS
    assert search.found.rate_req_per_s is None
    assert search.found.at_least_req_per_s is None
    assert min(asked) == pytest.approx(1)
    assert len(asked) <= 12


def test_the_highest_allowed_rate_passes():
    search = RateSearch(1, 100)
    asked = drive(search, 1e6)
    assert search.found.end is SearchEnd.HIGHEST_PASSES
    assert search.found.rate_req_per_s == pytest.approx(100)
    assert search.found.at_most_req_per_s is None
    assert len(asked) <= 12


def test_a_client_that_saturates_ends_the_search_below_the_limit():
    search, asked = RateSearch(1, 1000), []
    while (rate := search.ask()) is not None:
        asked.append(rate)
        if rate > 50:
            search.tell_saturated(rate)
        else:
            search.tell(rate, Verdict.MET)
    assert search.found.end is SearchEnd.CLIENT_SATURATED
    assert 35 <= search.found.rate_req_per_s <= 50
    assert len(asked) <= 16


def test_a_client_that_saturates_above_the_limit_changes_nothing():
    search = RateSearch(1, 1000)
    search.tell_saturated(500)
    drive(search, 20.0)
    assert search.found.end is SearchEnd.FOUND
    assert search.found.at_least_req_per_s <= 20.5


def test_windows_of_before_are_used():
    fresh, warm = RateSearch(0.1, 1000), RateSearch(0.1, 1000)
    for rate, verdict in ((30, Verdict.MET), (50, Verdict.MISSED)):
        warm.tell(rate, verdict)
    assert len(drive(warm, 40.0)) < len(drive(fresh, 40.0)) - 2


def test_one_verdict_gone_wrong_is_outvoted():
    search = RateSearch(0.1, 1000, windows=40)
    search.tell(10.0, Verdict.MISSED)
    drive(search, 40.0)
    assert search.found.at_least_req_per_s * 0.97 <= 40 <= search.found.at_most_req_per_s * 1.03


def test_the_budget_of_windows_is_kept():
    search = RateSearch(0.1, 1000, precision=0.001, windows=7)
    assert len(drive(search, 40.0)) == 7
    assert search.found.end is SearchEnd.NO_WINDOWS_LEFT


@pytest.mark.parametrize(
    "bad",
    [{"lowest": 0}, {"lowest": 200}, {"highest": math.inf}, {"precision": 0}, {"windows": 0}, {"lowest": math.nan}],
)
def test_impossible_searches_are_refused(bad):
    with pytest.raises(BadInput):
        RateSearch(**{"lowest": 1, "highest": 100} | bad)


@pytest.mark.slow
def test_the_limit_of_a_simulated_layout_lies_in_the_interval():
    costs = StepCosts(
        load_model("meta-llama/Llama-3.1-8B"), Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=8))
    )
    simulator = Simulator(costs, ParallelLayout.parse("tp=1"), kv_tokens=400_000, longest_tokens=640)
    request = make_request({"workload.prompt_tokens": 512, "workload.output_tokens": 64, "slo.0.ms": 300})

    def met(rate, seed, seconds):
        return simulator.run(offered(request.workload, rate, seconds, seed)).verdict(request.slo) is Verdict.MET

    search, seed = RateSearch(0.5, 500, start=8, precision=0.1), 0
    while (rate := search.ask()) is not None:
        search.tell(rate, Verdict.MET if met(rate, seed, 20) else Verdict.MISSED, certain=False)
        seed += 1
    found = search.found
    assert met(found.at_least_req_per_s * 0.9, 99, 60)
    assert not met(found.at_most_req_per_s * 1.1, 99, 60)
