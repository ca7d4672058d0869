"""What a launch is worth beside what it costs, by hand: 2 devices at 3 US dollars per hour, launches of 60 s, 24 h."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.fakes import make_candidate, make_request, make_step
from tuner.ask.layout import ParallelLayout
from tuner.search.belief import Forecast
from tuner.search.choice import Outlook
from tuner.search.worth import START_S, Trade, launch_s
from tuner.trial.results import LoadStep, TrialResult, TrialState

REQUEST = make_request({"cluster.usd_per_gpu_hour": 3.0, "objective": "min_cost", "slo.0.ms": 400, "slo.1.ms": 26})
RUNNING_USD = 2 * 3.0 * 24


def trial(number: int = 0, layout: str = "tp=2", share: float = 0.5, repeat: int = 0) -> TrialResult:
    """A measured trial of 60 s whose TPOT is a share of its target at every rate, its TTFT ten times that."""
    steps = [LoadStep(i, rate, 10.0, i) for i, rate in enumerate(REQUEST.rates_req_per_s)]
    results = tuple(make_step(step, REQUEST, share * 260) for step in steps)
    state = TrialState.MEASURED
    return TrialResult(number, ParallelLayout.parse(layout), state, results, seconds=60.0, repeat=repeat)


def believing(layouts: list[str], held: list[int], e2e_ms: list[float]) -> SimpleNamespace:
    """A belief of one draw."""
    forecast = Forecast(np.array([held]), np.array([e2e_ms]), np.zeros((1, len(held))))
    return SimpleNamespace(candidates=[make_candidate(text) for text in layouts], forecast=lambda: forecast)


def seeing(better: list[float], gain: list[float]) -> Outlook:
    nothing = np.zeros(len(gain))
    return Outlook(nothing, nothing, nothing, max(better), np.array(better), np.array(gain))


def test_a_launch_is_predicted_before_the_first_and_learnt_after():
    load = REQUEST.load
    assert launch_s(REQUEST, []) == START_S + load.warmup_seconds + load.seconds
    failed = TrialResult(1, ParallelLayout.parse("tp=1"), TrialState.FAILED, seconds=5.0)
    assert launch_s(REQUEST, [trial(), replace(trial(), seconds=80.0), failed]) == pytest.approx(70.0)


@pytest.mark.parametrize(("share", "wanted"), [(0.5, False), (0.8, False), (0.9, True), (0.99, True)])
def test_a_second_run_is_worth_the_chance_that_the_winner_fails(share, wanted):
    """It costs 2 × 60 s = 0.10 US dollars, of 144 that the winner costs to run: worth it above 0.07 %. At 0.9 of the
    target, log(0.9) / 0.06 = 1.76 standard deviations are left, so that it fails with 4 %; at 0.8, 0.01 %."""
    best = [trial(share=share)]
    assert Trade(REQUEST, best, best).confirming() is wanted
    left = Trade(REQUEST, best, best).stopped(
        believing([], [], []), np.zeros(0, bool), seeing([0.0], [0.0]), np.zeros(0, bool)
    )
    assert left.unconfirmed is not None
    assert left.unconfirmed.costs.usd == pytest.approx(2 * 60 / 3600 * 3.0)
    assert left.unconfirmed.worth.usd == pytest.approx(RUNNING_USD * left.unconfirmed.fails)
    if share == 0.9:
        assert left.unconfirmed.fails == pytest.approx(0.0396, abs=1e-4)


def test_a_launch_pays_where_its_share_of_the_running_cost_exceeds_its_own():
    """One device for 60 s costs 0.05 US dollars, 0.035 % of 144; four cost 0.14 %."""
    best = [trial()]
    belief = believing(["tp=1", "tp=1,pp=4", "tp=1,pp=4"], [2, 2, 2], [1.0, 1.0, 1.0])
    seen = seeing([0.01, 0.01, 0.01], [0.0004, 0.0004, 0.0015])
    assert list(Trade(REQUEST, best, best).worthwhile(belief, seen)) == [True, False, True]


def test_everything_is_worth_a_launch_while_nothing_meets_the_slo():
    missing = [trial(share=1.5)]
    belief = believing(["tp=1", "tp=4"], [0, 0], [1.0, 1.0])
    assert Trade(REQUEST, missing, missing).worthwhile(belief, seeing([0.0, 0.0], [0.0, 0.0])).all()


def test_a_longer_horizon_is_worth_more_launches():
    best, belief, seen = [trial()], believing(["tp=1"], [2], [1.0]), seeing([0.01], [0.0002])
    month = make_request({**_changes(), "budget.horizon_hours": 720})
    assert not Trade(REQUEST, best, best).worthwhile(belief, seen).any()
    assert Trade(month, best, best).worthwhile(belief, seen).all()


def test_the_end_names_the_launch_that_was_worth_most():
    """Half of the cost is saved with 0.05 %: 3 US dollars per hour, worth 0.036 over the day, for a launch of 0.05."""
    best = [trial()]
    belief = believing(["tp=1", "tp=2"], [2, 2], [1.0, 1.0])
    seen, left = seeing([0.0005, 0.0], [0.00025, 0.0]), np.array([True, False])
    found = Trade(REQUEST, best, best).stopped(belief, left, seen, left)
    assert found.launch is not None
    assert (found.launch.chance, found.launch.gain) == (0.0005, pytest.approx(3.0))
    assert found.launch.costs.usd == pytest.approx(0.05)
    assert found.launch.worth.usd == pytest.approx(0.036)


@pytest.mark.parametrize(
    ("objective", "unit_gain"),
    [("min_gpus", 1.0), ("min_cost", 3.0), ("min_latency", 195.0), ("max_goodput", 20.0)],
)
def test_a_gain_is_told_in_the_unit_of_the_objective(objective, unit_gain):
    """Half of 2 devices, of 6 US dollars per hour, of 390 ms; twice the 20 requests/s that are held."""
    request = make_request({**_changes(), "objective": objective, "load": {"rates_req_per_s": [10, 20]}})
    steps = tuple(make_step(LoadStep(i, rate, 10.0, i), request, 130.0) for i, rate in enumerate((10.0, 20.0)))
    best = [replace(trial(), steps=steps)]
    seen = seeing([0.1], [0.05])
    one = np.ones(1, bool)
    found = Trade(request, best, best).stopped(believing(["tp=1"], [2], [1.0]), one, seen, ~one)
    assert found.launch is not None
    assert found.launch.gain == pytest.approx(unit_gain)


def test_layouts_that_cost_the_same_are_ties_where_they_hold_the_rate():
    best = [trial()]
    belief = believing(["tp=2", "pp=2", "tp=1,dp=2", "tp=4"], [2, 2, 0, 2], [1.0] * 4)
    untried = np.array([False, True, True, True])
    found = Trade(REQUEST, best, best).stopped(belief, np.zeros(4, bool), seeing([0.0] * 4, [0.0] * 4), untried)
    assert found.ties == 1


def test_without_a_price_all_is_told_in_gpu_hours():
    request = make_request({"cluster": {"gpu": "cpu", "nodes": 1, "gpus_per_node": 2}})
    best = [trial()]
    found = Trade(request, best, best)._second_run()
    assert found.costs.usd is None
    assert found.costs.gpu_hours == pytest.approx(2 / 60)


def _changes() -> dict[str, object]:
    return {"cluster.usd_per_gpu_hour": 3.0, "objective": "min_cost", "slo.0.ms": 400, "slo.1.ms": 26}
