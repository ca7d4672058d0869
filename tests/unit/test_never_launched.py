"""What was never launched, held against the winner: the factor by which the model would have to err."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes import document, make_step
from tests.free_path import free_path  # noqa: F401
from tuner.app.answers.explain import never_launched_answer
from tuner.ask.cluster import requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request_document import parse_request
from tuner.ask.space import load_space
from tuner.decide.layout_summary import layout_summaries
from tuner.explain.never_launched import FACTORS, NeverLaunched, never_launched
from tuner.plan.prune import plan
from tuner.trial.results import LoadStep, TrialResult, TrialState

pytestmark = pytest.mark.usefixtures("free_path")

AXES = {"tp": [1, 2, 4, 8], "dp": [1, 2, 4, 8], "max_num_seqs": [128, 1024]}


def held(objective: str, layout: str, held_req_per_s: float, rate: float = 300.0) -> tuple[NeverLaunched, set[str]]:
    """Everything else held against a layout that was measured to hold a rate, and the layouts that the model expects to
    win over it."""
    request = parse_request(
        document({"space": AXES, "objective": objective, "workload.arrival.requests_per_s": rate, "slo.0.ms": 200.0})
    )
    rates = [r for r in request.rates_req_per_s if r <= held_req_per_s]
    steps = tuple(make_step(LoadStep(i, r, 1.0, 0), request, ttft_ms=50.0) for i, r in enumerate(rates))
    trial = TrialResult(0, ParallelLayout.parse(layout), TrialState.MEASURED, steps)
    winner = layout_summaries(request, [trial])[0]
    model, space = load_model(request.model), load_space(request.space)
    found = never_launched(request, model, space, winner, {trial.layout})
    ranked = plan(request, model, requested_cluster(request), space, keep=10_000).ranked
    fewer = {str(c.layout) for c in ranked if c.prediction.meets_slo and c.layout.devices < winner.layout.devices}
    return found, fewer


def test_what_the_plan_expects_to_win_wins_at_factor_one():
    found, fewer = held("min_gpus", "tp=2,pp=1,dp=4,max_num_seqs=128", 300.0)
    assert fewer
    assert found.rivals[0].factor == 1
    assert found.rivals[0].count == len(fewer)
    assert found.rivals[0].layout in fewer
    assert "The search ended before them" in found.lines()[0]


def test_a_winner_on_one_device_cannot_be_beaten_in_devices():
    found, _ = held("min_gpus", "tp=1,pp=1,dp=1,max_num_seqs=128", 300.0)
    assert found.rivals == ()
    assert f"Even {FACTORS[-1]:g} × faster than the model says, none would beat the winner." in found.lines()[0]


def test_it_names_the_factor_that_it_would_take():
    found, fewer = held("min_gpus", "tp=1,pp=1,dp=4,max_num_seqs=1024", 300.0)
    assert not fewer
    assert [r.factor for r in found.rivals] == sorted(r.factor for r in found.rivals)
    assert found.rivals[0].factor > 1
    assert f"{found.rivals[0].factor:g} × faster" in found.lines()[0]
    assert never_launched_answer(found).would_win[0].layout == found.rivals[0].layout


@pytest.mark.slow
def test_the_highest_step_held_cannot_be_beaten_in_goodput():
    assert held("max_goodput", "tp=1,pp=1,dp=8,max_num_seqs=128", 600.0)[0].rivals == ()
    lower, _ = held("max_goodput", "tp=1,pp=1,dp=8,max_num_seqs=128", 300.0)
    assert lower.rivals


def test_the_latency_to_beat_is_the_measured_one():
    found, _ = held("min_latency", "tp=4,pp=1,dp=2,max_num_seqs=128", 300.0)  # 150 ms of E2E by make_step
    assert found.rivals
    assert ParallelLayout.parse(found.rivals[0].layout).devices <= 8


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["min_gpus", "min_cost", "max_goodput", "min_latency"])
def test_a_correction_shifts_the_factor_by_as_much(objective):
    request = parse_request(document({"space": AXES, "objective": objective, "slo.0.ms": 200.0}))
    step = make_step(LoadStep(0, 8.0, 1.0, 0), request, ttft_ms=20.0)
    trial = TrialResult(0, ParallelLayout.parse("tp=2,max_num_seqs=128"), TrialState.MEASURED, (step,))
    winner = layout_summaries(request, [trial])[0]
    model, space = load_model(request.model), load_space(request.space)
    as_is = never_launched(request, model, space, winner, {trial.layout})
    half = never_launched(request, model, space, winner, {trial.layout}, slower=2.0)
    counts = {rival.factor: rival.count for rival in as_is.rivals}
    if 1.0 in counts:  # who wins as the model is needs twice the speed where the model is half as slow as the truth
        assert [r.count for r in half.rivals if r.factor <= 2.0][-1:] == [counts[1.0]]
    assert half.fitting == as_is.fitting
    assert replace(half, slower=1.0).lines() != half.lines() or not half.rivals
