"""What trials teach of candidates that were not tried, and which of those is worth a launch."""

from dataclasses import replace

import numpy as np
import pytest

from tests.fakes import make_request
from tuner.ask.cluster import Cluster
from tuner.ask.model import load_model
from tuner.ask.request import Metric
from tuner.ask.space import load_space
from tuner.cost.front_path import Path
from tuner.plan.prune import plan
from tuner.search.belief import Belief
from tuner.search.belief_strategy import BeliefStrategy
from tuner.search.choice import choose, outlook, value_of
from tuner.search.history import History
from tuner.search.priors import OFFSET_SD, TERM_SD
from tuner.stats.intervals import Quantiles
from tuner.trial.results import LoadStep, StepResult, TrialResult, TrialState

LOAD = {
    "workload.prompt_tokens": {"mean": 1024},
    "workload.output_tokens": {"mean": 128},
    "workload.arrival.requests_per_s": 40,
    "slo.0.ms": 150,
    "slo.1.ms": 12,
    "space": {"tp": [1, 2, 4], "pp": [1, 2], "dp": [1, 2, 4], "executor": ["mp", "ray"], "max_num_seqs": [64, 256],
              "front": ["ray_direct"]},  # at 40 requests/s no other path of Ray Serve carries what the engines emit
}  # fmt: skip


def setting(changes=None):
    """(request, ranked candidates, fresh belief)."""
    request = make_request({**LOAD, **(changes or {})})
    model, cluster = load_model(request.model), Cluster.from_spec(request.cluster)
    ranked = plan(request, model, cluster, load_space(request.space)).ranked
    return request, ranked, Belief.of(request, ranked, model, cluster)


def steps_of(request, candidate, factor=1.0, count=500):
    """Load steps in which every latency was ``factor`` times the prediction."""
    found = []
    for i, (rate, values) in enumerate(zip(request.rates_req_per_s, candidate.prediction.steps, strict=True)):
        if None in values:
            break
        ttft, tpot = (value * factor for value in values)
        e2e = ttft + tpot * 127
        latency = {
            metric: Quantiles(count, ms, ms, ms, ms, ms)
            for metric, ms in ((Metric.TTFT, ttft), (Metric.TPOT, tpot), (Metric.E2E, e2e))
        }
        step = LoadStep(i, rate, 10.0, i)
        values = dict(zip(request.shown_metrics, (ttft, tpot), strict=True))
        found.append(StepResult(step, count, count, 0, 10.0, latency, values, 1.0, rate, None, None, {}))
    return tuple(found)


@pytest.mark.slow
def test_before_any_trial_every_factor_is_one_and_unsure():
    _, _, belief = setting()
    assert {"gemm", "attention", "host", "ttft", "tpot"} <= set(belief.factors)
    for name, (factor, sd) in belief.factors.items():
        assert factor == 1.0
        assert sd == pytest.approx({m.value: s for m, s in OFFSET_SD.items()}.get(name, TERM_SD))


@pytest.mark.slow
def test_the_belief_centres_on_the_predictions():
    _, ranked, belief = setting({"workload.arrival.requests_per_s": 4})
    e2e_ms = np.median(belief.forecast().e2e_ms, axis=0)
    for candidate, ms in zip(ranked, e2e_ms, strict=True):
        predicted = candidate.prediction.ttft_ms + candidate.prediction.tpot_ms * 127
        assert ms == pytest.approx(predicted, rel=0.12), candidate.layout


@pytest.mark.slow
def test_a_measured_layout_teaches_of_its_kin():
    forecasts = []
    for factor in (0.6, 1.6):
        request, ranked, belief = setting({"workload.arrival.requests_per_s": 4, "load.seconds": 125})
        before = belief.forecast().e2e_ms
        seen = ranked[0]
        belief.observe({seen.layout: steps_of(request, seen, factor)})
        forecasts.append(belief.forecast().e2e_ms)
    fast, slow = forecasts
    moved = np.median(slow, axis=0) / np.median(fast, axis=0)
    own = [i for i, c in enumerate(ranked) if c.layout.shape == seen.layout.shape]
    kin = [i for i, c in enumerate(ranked) if c.layout.shape != seen.layout.shape]
    assert moved[own] == pytest.approx(1.6 / 0.6, rel=0.1)
    assert moved[kin].min() > 1.2
    assert (slow.std(axis=0) / slow.mean(axis=0))[own].max() < (before.std(axis=0) / before.mean(axis=0))[own].min()


@pytest.mark.slow
def test_nothing_is_learnt_of_warm_up_invalid_windows_and_strangers():
    request, ranked, belief = setting()
    steps = steps_of(request, ranked[0], 3.0)
    silent = [replace(s, invalid="the client fell behind") for s in steps]
    silent += [replace(s, step=replace(s.step, warmup=True)) for s in steps]
    belief.observe({ranked[0].layout: silent, replace(ranked[0].layout, tp=16): steps})
    assert all(factor == 1.0 for factor, _ in belief.factors.values())


@pytest.mark.slow
def test_a_forecast_depends_on_the_trials_alone():
    request, ranked, one = setting()
    _, _, other = setting()
    first, second = ({c.layout: steps_of(request, c, 1.2)} for c in (ranked[0], ranked[-1]))
    one.observe(first)
    one.observe(first | second)
    other.observe(second | first)
    assert np.allclose(one.forecast().e2e_ms, other.forecast().e2e_ms, rtol=1e-6)


@pytest.mark.slow
def test_executors_are_forecast_alike():
    _, ranked, belief = setting()
    held = belief.forecast().held
    place = {c.layout: i for i, c in enumerate(ranked)}
    pairs = [(i, place[replace(c.layout, executor="ray")]) for c, i in zip(ranked, range(len(ranked)), strict=True)
             if c.layout.executor == "mp"]  # fmt: skip
    assert pairs
    for one, other in pairs:
        assert (held[:, one] == held[:, other]).all()


@pytest.mark.slow
def test_a_limit_that_the_load_does_not_reach_makes_a_twin():
    _, ranked, belief = setting({"workload.arrival.requests_per_s": 4})
    twins = {c.layout: belief.twins[i] for i, c in enumerate(ranked)}
    for layout, twin in twins.items():
        assert twin == twins[replace(layout, max_num_seqs=64)]
        assert all(
            twin != twins[other]
            for other in twins
            if (other.tp, other.pp, other.dp) != (layout.tp, layout.pp, layout.dp)
        )
    _, ranked, belief = setting({"space": LOAD["space"] | {"max_num_seqs": [2, 256]}})
    twins = {c.layout: belief.twins[i] for i, c in enumerate(ranked)}
    reached = [layout for layout in twins if layout.max_num_seqs == 2 and replace(layout, max_num_seqs=256) in twins]
    assert reached
    assert all(twins[layout] != twins[replace(layout, max_num_seqs=256)] for layout in reached)


@pytest.mark.slow
def test_the_twin_of_a_measured_layout_is_not_launched():
    request, ranked, belief = setting({"workload.arrival.requests_per_s": 4})
    strategy = BeliefStrategy(request, belief)
    history = History(request)
    first = strategy.ask(history, (), lambda layout: True)
    candidate = next(c for c in ranked if c.layout == first.layout)
    history.add(TrialResult(0, first.layout, TrialState.MEASURED, steps_of(request, candidate, 30.0)))
    twins = {c.layout: belief.twins[i] for i, c in enumerate(ranked)}
    following = strategy.ask(history, (), lambda layout: True)
    assert sum(twin == twins[first.layout] for twin in twins.values()) > 1
    assert twins[following.layout] != twins[first.layout]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["min_gpus", "max_goodput", "min_latency", "min_cost"])
def test_the_first_choice_is_likely_and_stands_high(objective):
    request, ranked, belief = setting({"objective": objective})
    left = np.ones(len(ranked), dtype=bool)
    seen = outlook(request, belief, left, {})
    chosen = choose(belief, left, seen)
    assert seen.chance[chosen] >= 0.2 * seen.chance.max() > 0
    assert (seen.chance <= seen.meets + 1e-12).all()
    assert seen.chance.max() <= seen.anything <= 1


@pytest.mark.slow
def test_a_measured_winner_leaves_nothing_to_win():
    request, ranked, belief = setting()
    smallest = min(ranked, key=lambda c: c.layout.devices)
    easy = steps_of(request, ranked[0], 0.01)
    best = TrialResult(0, smallest.layout, TrialState.MEASURED, easy)
    seen = outlook(request, belief, np.ones(len(ranked), dtype=bool), {request.objective: [best]})
    assert value_of(request, request.objective, [best]) == smallest.layout.devices
    assert seen.anything == 0 == seen.chance.max()


@pytest.mark.slow
def test_where_nothing_can_meet_the_slo_the_nearest_is_chosen():
    request, ranked, belief = setting({"slo.1.ms": 4.5, "workload.arrival.requests_per_s": 1})
    left = np.ones(len(ranked), dtype=bool)
    belief.observe({c.layout: steps_of(request, c, 4.0) for c in ranked[::5]})
    seen = outlook(request, belief, left, {})
    assert seen.anything == 0
    assert seen.miss[choose(belief, left, seen)] == seen.miss.min() > 0
    assert choose(belief, ~left, seen) is None


@pytest.mark.slow
def test_prices_add_up_to_the_model():
    request, ranked, belief = setting()
    cluster = Cluster.from_spec(request.cluster)
    ones = np.ones((1, len(belief._prices.terms)))
    curve = belief._prices.curve(ones, np.arange(len(belief._prices.index)))
    for i, candidate in enumerate(ranked):
        engine = belief._engine_of[belief._place_of[i]]
        path = Path.of(candidate.layout, cluster).load(0.0, 128.0, candidate.prediction.idle_tpot_ms)
        predicted_ms = candidate.prediction.idle_ttft_ms - float(path.idle_ms)
        assert curve.idle_ttft_ms[engine] == pytest.approx(predicted_ms)
        assert curve.step_ms[engine, 0] == pytest.approx(candidate.prediction.idle_tpot_ms)
