"""Prices by term, the factors on them, and where rates lie on the curves that they make."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.fakes import make_request
from tuner.ask.arrivals import offered
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import Metric
from tuner.ask.space import load_space
from tuner.cost.latency import StepCosts
from tuner.cost.steady import BATCHES, Curve, Shapes, load_curve
from tuner.plan.prune import Candidate, plan
from tuner.rehearse.conditions import Conditions, TrueCosts
from tuner.search.on_curve import OnCurve, log_seen
from tuner.search.term_prices import TermPrices
from tuner.simulate import SimulationSettings, Simulator

REQUEST = make_request({
    "workload.prompt_tokens": {"mean": 1024}, "workload.output_tokens": {"mean": 128},
    "workload.arrival.requests_per_s": 4, "slo.0.ms": 400, "slo.1.ms": 30,
    "space": {"tp": [1, 8], "pp": [1], "dp": [1], "max_num_seqs": [256]},
})  # fmt: skip
MODEL, CLUSTER = load_model(REQUEST.model), Cluster.from_spec(REQUEST.cluster)


@cache
def candidates() -> tuple[Candidate, ...]:
    return plan(REQUEST, MODEL, CLUSTER, load_space(REQUEST.space)).ranked


@cache
def prices() -> TermPrices:
    return TermPrices.of(REQUEST, candidates(), MODEL, CLUSTER)


def with_factors(**factors: float) -> Curve:
    """The curves of all engines with factors on some terms."""
    row = [factors.get(name, 1.0) for name in prices().terms]
    return prices().curve(np.array([row]), np.arange(len(prices().index)))


def engine(text: str) -> int:
    return prices().index[ParallelLayout.parse(text)]


def test_a_slow_host_holds_up_an_engine_that_did_not_wait_for_it():
    usual, slow, slower = (with_factors(host=factor).idle_ttft_ms for factor in (1.0, 2.0, 4.0))
    wide = engine("tp=8")
    assert slower[wide] - slow[wide] > 1.5 * (slow[wide] - usual[wide])


def test_faster_kernels_do_not_help_an_engine_that_waits_for_its_host():
    wide = engine("tp=8")
    usual, fast, faster = (with_factors(host=4.0, gemm=factor).idle_ttft_ms[wide] for factor in (1.0, 0.5, 0.25))
    assert usual == pytest.approx(fast) == pytest.approx(faster)


@pytest.mark.parametrize("seed", range(4))
def test_factors_on_terms_make_the_curve_that_such_prices_do(seed):
    true = TrueCosts(MODEL, CLUSTER, Conditions(seed=seed, term_error=0.5), 1.0)
    curve = with_factors(**{name: true.factor_of(name) for name in prices().terms})
    for layout, row in prices().index.items():
        shapes = Shapes.of(REQUEST, np.array([float(layout.max_num_batched_tokens)]), 1)
        priced = load_curve(true, layout, shapes)
        assert curve.idle_ttft_ms[row] == pytest.approx(priced.idle_ttft_ms[0], rel=0.03)
        few = BATCHES <= 8  # what the host does for each sequence is off in no world
        assert curve.step_ms[row, few] == pytest.approx(priced.step_ms[few], rel=0.12)


def lone() -> tuple[Curve, float]:
    """The curve of one engine, and the rate in requests/s at which its batch is 60."""
    shapes = Shapes.of(REQUEST, np.array([2048.0]), 1)
    curve = load_curve(StepCosts(MODEL, CLUSTER), ParallelLayout(), shapes)
    rates = curve.rate_req_per_s
    batches = OnCurve.of(curve, np.linspace(rates[0, 0], rates[0, -1], 400)[None]).batch[0]
    return curve, float(np.interp(60, batches, np.linspace(rates[0, 0], rates[0, -1], 400)))


def simulated_tpot_ms(rate: float, requests: int) -> float:
    settings = SimulationSettings.for_slo(REQUEST.workload, REQUEST.slo, engine=REQUEST.engine)
    simulator = Simulator(
        StepCosts(MODEL, CLUSTER), ParallelLayout(), kv_tokens=400_000, longest_tokens=4096, settings=settings
    )
    return float(np.mean(simulator.run(offered(REQUEST.workload, rate, requests / rate, 7)).tpot_ms))


@pytest.mark.parametrize(("requests", "within"), [(150, 0.1), (300, 0.05), (1000, 0.1)])
def test_a_short_window_does_not_fill_the_batch_of_a_steady_load(requests, within):
    curve, rate = lone()
    keys = [(Metric.TPOT, None), (Metric.TTFT, None)]
    rates, asked = np.array([[rate]]), np.array([[float(requests)]])
    place, (tpot, ttft) = log_seen(curve, keys, 128.0, rates, asked)
    steady = place.log_of(curve.tpot_ms)
    seen = np.log(simulated_tpot_ms(rate, requests))
    assert abs(tpot[0, 0] - seen) < within
    assert abs(tpot[0, 0] - seen) < abs(steady[0, 0] - seen)
    assert ttft == pytest.approx(place.log_of(curve.ttft_ms()))


def test_an_endless_window_shows_the_steady_batch():
    curve, rate = lone()
    place = OnCurve.of(curve, np.array([[rate / 8, rate]]))
    assert place.within(np.full((1, 2), 1e9)).batch == pytest.approx(place.batch)
    assert place.within(np.full((1, 2), 300.0)).batch[0, 1] < 0.7 * place.batch[0, 1]


def test_requests_meet_more_others_than_the_mean_or_fewer():
    curve, _ = lone()
    half, most, nearly_all = (curve.at(Metric.TPOT, percentile, 128.0) for percentile in (50.0, 95.0, 99.0))
    assert half == pytest.approx(curve.tpot_ms)
    assert (nearly_all > most).all()
    assert (most > half).all()
    assert (curve.at(Metric.TPOT, 1.0, 128.0) >= curve.step_ms).all()
    assert np.isfinite(curve.at(Metric.TPOT, 100.0, 128.0)).all()
