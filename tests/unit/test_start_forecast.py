"""What earlier starts say of the next one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes import make_request
from tuner.ask.layout import ParallelLayout
from tuner.study.start_forecast import CACHED_SHARE, StartForecast
from tuner.trial.launched import Launched, NoEngine
from tuner.trial.results import TrialResult, TrialState
from tuner.trial.start_up import StartPhase, StartUp

ONE = ParallelLayout(tp=1)
P = StartPhase


def came_up(number: int, layout: ParallelLayout, anew: bool | None = True, **phases_s: float) -> TrialResult:
    up = StartUp({StartPhase(name): seconds for name, seconds in phases_s.items()}, anew)
    launched = Launched("ray-serve", {}, "m", NoEngine("x"), up)
    return TrialResult(number, layout, TrialState.MEASURED, ready_after_s=up.seconds, launched=launched)


def forecast(*trials: TrialResult) -> StartForecast:
    return StartForecast(make_request(), trials)


def test_before_anything_came_up_nothing_is_known() -> None:
    assert forecast().expected_s(ONE) is None
    assert forecast().least_s(ONE) == 0.0


def test_without_phases_it_starts_as_others_did() -> None:
    plain = [TrialResult(n, ONE, TrialState.MEASURED, ready_after_s=s) for n, s in enumerate((60.0, 100.0))]
    assert forecast(*plain).expected_s(ONE) == 80.0
    assert forecast(*plain).least_s(ONE) == 60.0


def test_weights_go_with_the_bytes_of_a_device_and_the_session_is_there_already() -> None:
    found = forecast(came_up(0, ONE, session=18.0, scheduling=9.0, weights=40.0))
    assert found.expected_s(ONE) == 49.0
    assert found.expected_s(replace(ONE, tp=2)) == pytest.approx(29.0, rel=0.02)
    assert found.expected_s(replace(ONE, dp=2)) == 49.0


def test_the_same_graph_comes_from_the_cache() -> None:
    cold = came_up(0, ONE, compile=20.0)
    assert forecast(cold).expected_s(replace(ONE, dp=2, max_num_seqs=64)) == 20.0 * CACHED_SHARE
    assert forecast(cold).expected_s(replace(ONE, max_num_batched_tokens=4096)) == 20.0
    warm = came_up(1, replace(ONE, dp=2), False, compile=3.0)
    assert forecast(cold, warm).expected_s(ONE) == 3.0
    assert forecast(cold, warm).expected_s(replace(ONE, tp=2)) == 20.0
    assert forecast(warm).expected_s(replace(ONE, tp=2)) == 3.0


def test_capture_goes_with_the_number_of_graphs() -> None:
    found = forecast(came_up(0, replace(ONE, max_num_seqs=256), capture=51.0))
    assert found.expected_s(replace(ONE, max_num_seqs=8)) == 5.0


def test_the_least_takes_each_phase_from_its_fastest_start() -> None:
    found = forecast(came_up(0, ONE, imports=30.0, front=1.0), came_up(1, ONE, imports=20.0, front=3.0))
    assert found.expected_s(ONE) == 27.0
    assert found.least_s(ONE) == 21.0
