"""A trial is ended while it runs once another layout is confirmed and almost certainly better."""

from dataclasses import replace

import pytest

from tests.unit.test_belief import setting, steps_of
from tuner.search.belief_strategy import BeliefStrategy
from tuner.search.choice import CLEARLY
from tuner.search.proposal import Proposal
from tuner.search.search import Search
from tuner.trial.results import Purpose, TrialResult, TrialState

pytestmark = pytest.mark.slow  # each test looks at a whole study

MIN_LATENCY = {"objective": "min_latency", "workload.arrival.requests_per_s": 4}


@pytest.fixture
def race():
    """(search, request, ranked), with nothing measured."""
    request, ranked, belief = setting(MIN_LATENCY)
    return Search(request, ranked, BeliefStrategy(request, belief)), request, ranked


def finish(search, request, candidate, factor, runs):
    """Tell of so many trials of a layout, each as fast as predicted times ``factor``."""
    for repeat in range(runs):
        steps = steps_of(request, candidate, factor)
        search.tell(TrialResult(repeat, candidate.layout, TrialState.MEASURED, steps, repeat=repeat))


def quickest_and_slowest(ranked):
    order = sorted(ranked, key=lambda c: c.prediction.steps[0])
    return order[0], next(c for c in reversed(order) if c.layout.devices != order[0].layout.devices)


def test_a_layout_that_cannot_win_any_more_is_ended(race):
    search, request, ranked = race
    leader, slow = quickest_and_slowest(ranked)
    finish(search, request, leader, 0.5, runs=2)
    why = search.report(Proposal(slow.layout, "a test"), steps_of(request, slow)[0])
    assert why is not None
    assert why.startswith(f"beats {leader.layout} by over {CLEARLY:.0%} with a probability of 0.")


def test_a_layout_that_may_still_win_goes_on(race):
    search, request, ranked = race
    quick, slow = quickest_and_slowest(ranked)
    finish(search, request, slow, 1.0, runs=2)
    assert search.report(Proposal(quick.layout, "a test"), steps_of(request, quick)[0]) is None


def test_a_leader_near_its_target_that_is_not_confirmed_ends_nobody(race):
    search, request, ranked = race
    leader, slow = quickest_and_slowest(ranked)
    near = [replace(s, slo_values_ms={t.key: t.ms * 0.98 for t in request.slo}) for s in steps_of(request, leader, 0.5)]
    search.tell(TrialResult(0, leader.layout, TrialState.MEASURED, tuple(near)))
    assert search.report(Proposal(slow.layout, "a test"), steps_of(request, slow)[0]) is None


def test_a_confirmation_is_measured_to_its_end(race):
    search, request, ranked = race
    leader, slow = quickest_and_slowest(ranked)
    finish(search, request, slow, 1.0, runs=1)
    finish(search, request, leader, 0.5, runs=2)
    again = Proposal(slow.layout, "a test", Purpose.CONFIRM, repeat=1)
    assert search.report(again, steps_of(request, slow)[0]) is None
