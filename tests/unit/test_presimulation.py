"""What the simulator says of candidates before a study: at which rates, of which, and what a belief makes of it."""

import numpy as np
import pytest

from tests.unit.test_belief import setting
from tuner.ask.cluster import Cluster
from tuner.ask.model import load_model
from tuner.search.belief import Belief
from tuner.search.presimulation import presimulate

SPACE = {"tp": [1, 2], "dp": [1, 2], "executor": ["mp", "ray"]}


@pytest.fixture(scope="module")
def calm():
    """(request at a low rate, some candidates, model, cluster)."""
    request, ranked, _ = setting({"workload.arrival.requests_per_s": 4, "space": SPACE})
    return request, ranked, load_model(request.model), Cluster.from_spec(request.cluster)


@pytest.mark.slow
def test_every_candidate_is_simulated_once_whatever_its_executor(calm):
    request, ranked, _, _ = calm
    found = presimulate(*calm)
    assert {c.layout.served for c in ranked} == set(found)
    assert len(found) < len(ranked)
    for logs in found.values():
        assert logs.shape == (len(request.rates_req_per_s), len(request.shown_metrics) + 1)
        assert np.isfinite(logs).all()
        assert (logs[:, -1] > logs[:, 0]).all()  # the whole takes longer than the first token


def test_rates_beyond_a_target_missed_by_far_are_not_simulated(calm):
    request, ranked, model, cluster = calm
    strict = request.model_copy(update={"slo": tuple(t.model_copy(update={"ms": 0.5}) for t in request.slo)})
    for logs in presimulate(strict, ranked[:2], model, cluster).values():
        assert np.isfinite(logs[0]).all()
        assert np.isnan(logs[1:]).all()


@pytest.mark.slow
def test_a_belief_centres_on_the_simulator(calm):
    request, ranked, model, cluster = calm
    found = presimulate(*calm)
    e2e_ms = np.median(Belief.of(request, ranked, model, cluster).forecast().e2e_ms, axis=0)
    simulated_ms = [np.exp(found[c.layout.served][-1, -1]) for c in ranked]
    assert e2e_ms == pytest.approx(simulated_ms, rel=0.1)
