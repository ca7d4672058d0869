"""Layouts that are alike: what one shows holds of the other, and a launch of it would teach nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from tests.fakes import make_candidate, make_request, make_step, steps_of
from tuner.ask.cluster import requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import Objective
from tuner.ask.space import load_space
from tuner.plan.prune import Candidate, plan
from tuner.search.belief import Belief, Forecast, Kin
from tuner.search.belief_strategy import BeliefStrategy
from tuner.search.choice import outlook, tied
from tuner.search.search import Search
from tuner.search.term_prices import TermPrices, kin_of
from tuner.trial.results import Purpose, TrialResult, TrialState

REQUEST = make_request({
    "model": "Qwen/Qwen3-32B", "workload.prompt_tokens": 1024, "workload.output_tokens": 128,
    "workload.arrival.requests_per_s": 6, "slo.0.ms": 400, "slo.1.ms": 26, "objective": "min_latency",
    "space": {"tp": [2, 4], "max_num_batched_tokens": [2048, 8192], "max_num_seqs": [64], "executor": ["mp", "ray"]},
})  # fmt: skip


def trial(layout: str, share: float) -> TrialResult:
    """A measured trial whose TPOT is a share of its target at every rate, its TTFT ten times that."""
    steps = tuple(make_step(step, REQUEST, share * 260) for step in steps_of(REQUEST))
    return TrialResult(0, ParallelLayout.parse(layout), TrialState.MEASURED, steps, seconds=60.0)


@cache
def candidates() -> tuple[Candidate, ...]:
    return plan(REQUEST, load_model(REQUEST.model), requested_cluster(REQUEST), load_space(REQUEST.space)).ranked


def made(kin: Kin = kin_of, most: int | None = None) -> Belief:
    """The belief without the simulator, of the first candidates alone where ``most`` says so."""
    kept = candidates()[:most]
    prices = TermPrices.of(REQUEST, kept, load_model(REQUEST.model), requested_cluster(REQUEST))
    return Belief(REQUEST, kept, prices, {}, kin=kin)


@pytest.mark.parametrize(
    ("one", "other", "kin"),
    [
        ("tp=4", "tp=4,max_num_batched_tokens=8192", True),
        ("tp=4", "tp=4,executor=ray,max_num_seqs=64", True),
        ("tp=4", "tp=4,dp=2", False),
        ("tp=4", "tp=2", False),
    ],
)
def test_kin_run_the_same_kernels_under_the_same_load(one, other, kin):
    assert (kin_of(ParallelLayout.parse(one)) == kin_of(ParallelLayout.parse(other))) is kin


def test_what_one_engine_shows_is_known_of_its_kin():
    """How the other chunk size stands to the measured one is known better where they share most of a residual."""
    measured = trial("tp=4,max_num_seqs=64", 0.6)
    other = ParallelLayout.parse("tp=4,max_num_batched_tokens=8192,max_num_seqs=64")
    spread = []
    for belief in (made(), made(kin=lambda engine: engine)):
        belief.observe({measured.layout: measured.steps})
        layouts = [c.layout for c in belief.candidates]
        e2e = np.log(belief.forecast().e2e_ms)
        spread.append(float((e2e[:, layouts.index(other)] - e2e[:, layouts.index(measured.layout)]).std()))
    assert spread[0] < 0.6 * spread[1]


def test_latencies_are_compared_in_the_same_draw():
    """Both are twice as fast in one draw and half as fast in the other: neither beats the other in any."""
    candidates = [make_candidate("tp=2"), make_candidate("tp=4"), make_candidate("pp=2")]
    e2e = np.array([[100.0, 100.0, 90.0], [400.0, 400.0, 360.0]])
    belief = SimpleNamespace(
        candidates=candidates, forecast=lambda: Forecast(np.full((2, 3), 2), e2e, np.full((2, 3), -1.0))
    )
    best = [trial("tp=2", 0.5)]
    seen = outlook(REQUEST, belief, np.array([False, True, True]), {Objective.MIN_LATENCY: best})
    assert list(seen.better) == [0.0, 0.0, 1.0]
    assert seen.gain[2] == pytest.approx(0.1)
    assert list(tied(REQUEST, belief, best)) == [True, True, False]


def test_what_is_served_as_a_measured_layout_is_not_launched():
    same = ParallelLayout.parse("tp=4,max_num_seqs=64,executor=ray")
    belief = made()
    assert same in {c.layout for c in belief.candidates}
    search = Search(REQUEST, belief.candidates, BeliefStrategy(REQUEST, belief))
    search.tell(trial("tp=4,max_num_seqs=64", 0.95))
    proposal = search.ask(fits=lambda layout: str(layout) == str(same))
    assert proposal is None


def test_a_second_run_measures_the_rate_that_decides():
    belief = made(most=1)
    search = Search(REQUEST, belief.candidates, BeliefStrategy(REQUEST, belief))
    first = trial(str(belief.candidates[0].layout), 0.97)
    search.tell(first)
    again = search.ask()
    assert again is not None
    assert (again.purpose, again.layout, again.rate_req_per_s) == (Purpose.CONFIRM, first.layout, 6.0)
    assert search.next_rate(again, ()) == 6.0
    assert search.next_rate(again, first.steps[:1]) is None


def test_a_winner_near_its_target_is_measured_again_before_its_engine_is_torn_down():
    belief = made(most=1)
    search = Search(REQUEST, belief.candidates, BeliefStrategy(REQUEST, belief))
    first = trial(str(belief.candidates[0].layout), 0.97)
    (again,) = search.on_its_engine(first)
    assert (again.purpose, again.deployment, again.repeat, again.engine_of) == (Purpose.CONFIRM, first.deployment, 1, 0)
    assert search.next_rate(again, []) == again.rate_req_per_s == 6.0
    assert search.next_rate(again, first.steps) is None
    assert search.on_its_engine(trial(str(first.layout), 0.5)) == []  # it has much to spare
    search.tell(first)
    assert search.on_its_engine(replace(first, number=1, repeat=1, engine_of=0)) == []
