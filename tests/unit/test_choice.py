"""The last launches: what was measured near its targets may not be confirmed, so the surest layout is measured too."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fakes import make_request, make_step
from tuner.ask.cluster import requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.space import load_space
from tuner.plan.prune import plan
from tuner.search.belief import Belief
from tuner.search.belief_strategy import BeliefStrategy
from tuner.search.choice import confirmation_chance, holding, surest
from tuner.search.search import Search
from tuner.trial.results import LoadStep, Purpose, TrialResult, TrialState

REQUEST = make_request({
    "model": "Qwen/Qwen3-32B", "workload.prompt_tokens": 1024, "workload.output_tokens": 128,
    "workload.arrival.requests_per_s": 6, "slo.0.ms": 400, "slo.1.ms": 26, "budget.launches": 5,
    "space": {"tp": [1, 2, 4, 8], "max_num_seqs": [128]},
})  # fmt: skip


def trial(number: int, layout: str, share: float, repeat: int = 0) -> TrialResult:
    """A measured trial whose TPOT is a share of the target at every rate, its TTFT ten times that."""
    steps = [LoadStep(i, rate, 10.0, i) for i, rate in enumerate(REQUEST.rates_req_per_s)]
    results = tuple(make_step(step, REQUEST, share * 260) for step in steps)
    return TrialResult(
        number, ParallelLayout.parse(layout), TrialState.MEASURED, results, repeat=repeat, seconds=60.0
    )  # fmt: skip


@pytest.mark.parametrize(("share", "least", "most"), [(0.5, 0.999, 1.0), (0.9, 0.95, 0.97), (1.0, 0.5, 0.5)])
def test_a_confirmation_is_likelier_the_more_is_to_spare(share, least, most):
    assert least <= confirmation_chance(REQUEST, [trial(0, "tp=2", share)]) <= most
    assert confirmation_chance(REQUEST, [trial(0, "tp=2", share), trial(1, "tp=2", share, 1)]) == 1.0


def made() -> Belief:
    model, cluster = load_model(REQUEST.model), requested_cluster(REQUEST)
    return Belief.of(REQUEST, plan(REQUEST, model, cluster, load_space(REQUEST.space)).ranked, model, cluster)


@pytest.mark.slow
def test_the_surest_is_the_smallest_of_the_likeliest():
    belief = made()
    holds, everything = holding(REQUEST, belief), np.ones(len(belief.candidates), dtype=bool)
    chosen = surest(belief, everything, holds)
    assert holds[chosen] >= holds.max() - 0.05
    assert belief.devices[chosen] == belief.devices[holds >= holds.max() - 0.05].min()
    without = everything.copy()
    without[chosen] = False
    assert surest(belief, without, holds) != chosen


@pytest.mark.slow
@pytest.mark.parametrize(("share", "purpose"), [(0.99, Purpose.EXPLORE), (0.85, Purpose.CONFIRM)])
def test_the_last_launch_but_one_goes_to_what_will_hold(share, purpose):
    """A leader that barely met the SLO is no winner yet; one with something to spare is confirmed."""
    belief, small = made(), "tp=2,max_num_seqs=128"
    search = Search(REQUEST, belief.candidates, BeliefStrategy(REQUEST, belief))
    other = "tp=1,max_num_seqs=128"
    search.recall([trial(0, other, 1.3), trial(1, other, 1.3, repeat=1), trial(2, small, share)])
    proposal = search.ask()
    assert proposal.purpose is purpose
    assert (str(proposal.layout) != str(ParallelLayout.parse(small))) is (purpose is Purpose.EXPLORE)
    if purpose is Purpose.EXPLORE:
        assert proposal.layout.devices > 2
        assert "none is as sure" in proposal.why
