"""The simulator re-ranks what the closed form leaves close, and drops nothing."""

from dataclasses import replace

import pytest

from tests.fakes import make_request
from tuner.ask.cluster import Cluster
from tuner.ask.model import load_model
from tuner.ask.request import Objective
from tuner.ask.space import load_space
from tuner.plan.prune import plan
from tuner.plan.refine import refine

SPACE = load_space({"tp": [1, 2, 4], "dp": [1, 2], "executor": ["mp", "ray"], "max_num_seqs": [64, 256]})
WORKLOAD = {"workload.prompt_tokens": 1024, "workload.output_tokens": 128}


def planned(changes=None, objective=Objective.MIN_GPUS):
    request = make_request(WORKLOAD | {"objective": objective.value} | (changes or {}))
    model, cluster = load_model(request.model), Cluster.from_spec(request.cluster)
    return request, model, cluster, plan(request, model, cluster, SPACE)


def layouts(found):
    return [candidate.layout for candidate in found.ranked]


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Objective.MIN_GPUS, Objective.MAX_GOODPUT, Objective.MIN_LATENCY])
def test_every_candidate_stays(objective):
    request, model, cluster, first = planned(objective=objective)
    second = refine(request, model, cluster, first, wanted=3)
    assert sorted(layouts(second)) == sorted(layouts(first))
    assert second.dropped == first.dropped
    assert second.candidates == first.candidates
    assert layouts(refine(request, model, cluster, first, wanted=3)) == layouts(second)


@pytest.mark.slow
def test_it_goes_on_until_enough_have_held():
    request, model, cluster, first = planned()
    second = refine(request, model, cluster, first, wanted=2)
    simulated = [candidate for candidate in second.ranked if candidate.prediction.simulated]
    engines = {replace(candidate.layout, executor="mp") for candidate in simulated if candidate.prediction.meets_slo}
    assert len(engines) == 2
    assert len(simulated) < len(second.ranked)
    for candidate in second.ranked:
        twin = replace(candidate.layout, executor="ray" if candidate.layout.executor == "mp" else "mp")
        assert [c.prediction for c in second.ranked if c.layout == twin] == [candidate.prediction]


@pytest.mark.slow
def test_what_bursts_break_gives_way_to_more_devices():
    """The closed form knows only the mean rate; the simulator sees the bursts."""
    bursts = {"workload.arrival": {"process": "gamma", "requests_per_s": 10, "burstiness": 60}}
    request, model, cluster, first = planned(bursts | {"slo.0.ms": 250})
    assert first.ranked[0].layout.devices == 1
    assert first.ranked[0].prediction.meets_slo
    second = refine(request, model, cluster, first, wanted=4)
    best = second.ranked[0]
    assert best.layout.devices > 1
    alone = next(c for c in second.ranked if c.layout == first.ranked[0].layout)
    assert alone.prediction.simulated
    assert not alone.prediction.meets_slo


@pytest.mark.slow
def test_figures_are_those_of_the_asked_rates():
    request, model, cluster, first = planned()
    best = refine(request, model, cluster, first, wanted=1).ranked[0].prediction
    assert len(best.steps) == len(request.rates_req_per_s)
    assert all(len(values) == len(request.shown_metrics) for values in best.steps)
    half, asked = best.steps
    assert half[0] < asked[0]
    assert best.ttft_ms < asked[0]
    assert best.goodput_req_per_s > request.workload.arrival.requests_per_s


def test_a_what_if_is_left_alone():
    request, model, cluster, first = planned()
    supposed = replace(first, what_if=("nvrar",))
    assert refine(request, model, cluster, supposed, wanted=3) is supposed
