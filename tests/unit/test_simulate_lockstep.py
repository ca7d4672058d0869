"""Replicas that share experts step together: all wait for the slowest."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import make_request
from tests.unit.test_simulate import ROOMY, assert_same, load, loads
from tuner.ask.arrivals import closed_load
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec
from tuner.cost.latency import StepCosts
from tuner.cost.step_batch import StepShape, total
from tuner.simulate import SimulationSettings, simulate

CLUSTER = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", nodes=1, gpus_per_node=8))
# Without a front end that reads one prompt after the other, so that what is sent at once reaches the engines at once.
AT_ONCE = replace(CLUSTER.profile, engine=replace(CLUSTER.profile.engine, prompt_token_us=0.0))
COSTS = StepCosts(load_model("Qwen/Qwen3-30B-A3B"), replace(CLUSTER, profile=AT_ONCE))
SHARED = ParallelLayout.parse("tp=1,dp=2,ep=true,max_num_batched_tokens=8192")
APART = replace(SHARED, ep=False)
IN_TURN = SimulationSettings(router="round_robin", asynchronous=False, gap_limits_ms=(30.0,))


def serve(layout, sent, made=IN_TURN, kv_tokens=ROOMY):
    return simulate(COSTS, layout, sent, kv_tokens=kv_tokens, settings=made)


def test_a_prompt_on_one_replica_delays_the_tokens_of_the_other():
    sent = load([0.0, 0.5], [200, 8000], [200, 2])
    together, alone = serve(SHARED, sent), serve(SHARED, load([0.0], [200], [200]))
    np.testing.assert_array_equal(together.replica, [0, 1])
    prefill_ms = (together.first_token_s[1] - together.scheduled_s[1]) * 1e3
    assert prefill_ms > 30
    assert together.slow_gaps[0, 0] == 1
    delay_ms = (together.end_s[0] - alone.end_s[0]) * 1e3
    assert delay_ms == pytest.approx(prefill_ms - alone.tpot_ms[0], rel=0.1)
    assert serve(APART, sent).slow_gaps[0, 0] == 0


def test_who_comes_to_an_idle_replica_waits_for_the_step_of_the_other():
    sent = load([0.0, 0.05], [8000, 100], [2, 2])
    run = serve(SHARED, sent)
    assert sent.offset_s[1] < run.first_token_s[0]
    assert run.scheduled_s[1] == run.first_token_s[0]
    assert serve(APART, sent).scheduled_s[1] < run.scheduled_s[1]


def test_equal_batches_take_what_their_price_says():
    """Two prompts of 500 tokens, priced as a batch of 500 on every replica."""
    run = serve(SHARED, load([0.0, 0.0], [500, 500], [1, 1]))
    (terms,) = COSTS.stages(SHARED, StepShape("prefill", np.full(1, 500.0), np.zeros(1), np.ones(1)))
    np.testing.assert_allclose((run.end_s - run.scheduled_s) * 1e3, float(total(terms)[0]), rtol=1e-3)


@pytest.mark.parametrize("prompt", [500, 8000])
def test_experts_serve_the_tokens_that_all_replicas_bring(prompt):
    one, two = (serve(SHARED, load([0.0] * n, [prompt] * n, [1] * n)) for n in (1, 2))
    (terms,) = COSTS.stages(SHARED, StepShape("prefill", np.full(1, float(prompt)), np.zeros(1), np.ones(1)))
    saved_ms = float((two.end_s[0] - one.end_s[0]) * 1e3)
    of_experts_ms = sum(float(ms[0]) for name, ms in terms.items() if name == "experts" or " expert " in name)
    assert 0.02 * of_experts_ms < saved_ms < 0.6 * of_experts_ms
    np.testing.assert_allclose(one.prefill_share[0] * one.end_s[0], one.end_s[0] - one.scheduled_s[0])


def test_tensor_parallel_ranks_alone_do_not_wait_for_replicas():
    """One replica has nobody to wait for."""
    sent = load(np.arange(20) * 0.02, [700] * 20, [40] * 20)
    single = replace(SHARED, dp=1)
    assert_same(serve(single, sent), serve(single, sent, replace(IN_TURN, skip=False)))


@pytest.mark.slow
@settings(max_examples=80)
@given(
    sent=loads(),
    dp=st.sampled_from([2, 4]),
    made=st.builds(
        SimulationSettings,
        asynchronous=st.booleans(),
        router=st.sampled_from(["round_robin", "power_of_two", "least_loaded"]),
    ),
    kv_tokens=st.sampled_from([3200, ROOMY]),
)
def test_every_request_is_served_once_and_steps_are_shared(sent, dp, made, kv_tokens):
    run = serve(replace(SHARED, dp=dp), sent, made, kv_tokens)
    assert (run.arrival_s <= run.scheduled_s).all()
    assert (run.scheduled_s < run.first_token_s).all()
    assert ((run.first_token_s < run.end_s) == (run.output_tokens > 1)).all()
    assert run.gap_counts.sum() == (run.output_tokens - 1).sum()
    assert (run.prefill_share + run.decode_share <= 1 + 1e-9).all()
    # No token comes while another replica's step is under way: a replica's steps end when all end.
    assert len(np.unique(np.concatenate([run.first_token_s, run.end_s]))) <= run.steps.sum()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_closed_loop_keeps_its_users_busy(asynchronous):
    request = make_request({"workload.prompt_tokens": {"mean": 500, "min": 300, "max": 700}})
    sent = closed_load(request.workload, 9, 60, seed=1)
    run = serve(SHARED, sent, replace(IN_TURN, asynchronous=asynchronous))
    in_flight = [((run.arrival_s <= t) & (run.end_s > t)).sum() for t in run.arrival_s]
    assert max(in_flight) == 9
    np.testing.assert_allclose(np.sort(run.arrival_s)[9:], np.sort(run.end_s)[:51])
