"""Which trial's samples become whose metrics."""

import threading

import pytest
from prometheus_client import generate_latest

from tests.fakes import FakeLauncher, FakeMeter, copy_of_empty_store, make_request, make_step
from tuner.app.tune.telemetry import Telemetry
from tuner.app.tune.telemetry_observer import TelemetryObserver
from tuner.ask.request import Metric
from tuner.study.runner import StudyOrder, run_study
from tuner.study.store import Store

RATES = [4.0, 8.0]


class Mixing(FakeMeter):
    """Two trials side by side; the samples of both come from one thread of neither, those of the second trial first."""

    def __init__(self, trials=2):
        super().__init__(lambda layout, step: 10.0)
        self._lock, self._waiting, self._turn = threading.Lock(), [], threading.Barrier(trials)

    def measure(self, deployment, step, request, watch):
        samples_s = {Metric.TTFT: [float(deployment.layout.tp)] * (3 * deployment.layout.tp)}
        with self._lock:
            self._waiting.append((deployment.layout.tp, watch, samples_s))
        if self._turn.wait(20) == 0:
            told, self._waiting = sorted(self._waiting, key=lambda one: -one[0]), []
            teller = threading.Thread(target=lambda: [watch.samples(samples) for _, watch, samples in told])
            teller.start()
            teller.join()
        self._turn.wait(20)
        return make_step(step, request, 10.0)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_samples_of_trials_side_by_side_reach_their_own_layout_from_whatever_thread(tmp_path):
    request = make_request(
        {
            "objective": "max_goodput", "isolation": "none", "budget.launches": 2, "load.rates_req_per_s": RATES,
            "space": {"tp": [1, 2], "dp": [1], "executor": ["mp"]},
        }
    )  # fmt: skip
    telemetry, store = Telemetry(), Store(copy_of_empty_store(tmp_path / "store.db"))
    observer = TelemetryObserver("s", request, telemetry)
    run_study(StudyOrder("s", request, tmp_path), store, FakeLauncher(parallel=2), Mixing(), [observer])
    store.close()
    shown = generate_latest(telemetry.registry).decode()
    for tp in (1, 2):
        labels = f'{{layout="tp={tp},pp=1,dp=1",study="s"}}'
        count = 3 * tp * len(RATES)  # the warm-up is not shown
        assert f"parlay_time_to_first_token_seconds_count{labels} {count:.1f}" in shown
        assert f"parlay_time_to_first_token_seconds_sum{labels} {tp * count:.1f}" in shown
