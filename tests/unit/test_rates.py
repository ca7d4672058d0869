"""Which load step a trial measures next."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fakes import make_request, make_step
from tuner.search.rates import next_rate, windows
from tuner.study.load_steps import step_at

GPUS = make_request({"objective": "min_gpus", "workload.arrival.requests_per_s": 10.0})
GOODPUT = make_request({"objective": "max_goodput", "workload.arrival.requests_per_s": 10.0})


def step(request, rate, met):
    """One load step whose latencies are half of their targets, or twice them."""
    limit = min(target.ms for target in request.slo)
    return make_step(step_at(request, rate), request, (0.5 if met else 100.0) * limit)


def measured(request, limit, to_beat=0.0, held=None):
    """The rates that a trial of a layout which holds ``limit`` requests/s measures, in order."""
    seen = []
    while (rate := next_rate(request, seen, to_beat, held)) is not None:
        seen.append(step(request, rate, rate <= limit))
    return [one.step.rate_req_per_s for one in seen]


@pytest.mark.parametrize(("limit", "to_beat", "rates"), [(10, 0, [10]), (10, 10, [10]), (9, 10, [10]), (9, 0, [10, 5])])
def test_the_asked_rate_decides_and_a_lower_one_counts_while_nothing_meets_the_slo(limit, to_beat, rates):
    assert measured(GPUS, limit, to_beat) == rates
    assert windows(GPUS) == 1


@pytest.mark.parametrize("limit", [0, 5, 10, 15, 20])
@pytest.mark.parametrize("held", [None, np.array([2, 3] * 50), np.array([0, 1, 2, 3, 4] * 20)])
def test_goodput_is_bracketed(limit, held):
    """Of four rates three at most, whatever was believed; what it holds was met, unless that is certain."""
    rates = measured(GOODPUT, limit, held=held)
    assert len(rates) == len(set(rates)) <= 3
    if held is None or 0 in held:
        assert not limit or limit in rates
        assert limit == 20 or limit + 5 in rates


def test_the_first_rate_is_the_one_that_halves_what_is_believed():
    assert next_rate(GOODPUT, [], 0.0, np.array([1] * 10 + [2] * 40 + [3] * 45 + [4] * 5)) == 15.0
    assert next_rate(GOODPUT, [step(GOODPUT, 15.0, True)], 0.0, np.array([3] * 200)) is None  # 20 is sure to be missed


def test_only_rates_above_what_the_best_holds_can_win():
    assert measured(GOODPUT, 10, to_beat=10.0) == [15.0]
    assert measured(GOODPUT, 20, to_beat=10.0) == [15.0, 20.0]
    assert measured(GOODPUT, 20, to_beat=20.0) == [20.0]


def test_listed_rates_are_all_measured_to_the_first_miss():
    listed = make_request({"objective": "min_gpus", "load.rates_req_per_s": [2.0, 4.0, 8.0]})
    assert measured(listed, 8) == [2.0, 4.0, 8.0]
    assert measured(listed, 2, to_beat=8.0) == [2.0, 4.0]
    assert windows(listed) == 3
