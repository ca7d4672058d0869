"""Pools for prefill and decode: nothing is lost between them, and prompts no longer delay tokens."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import make_request
from tuner.ask.arrivals import OfferedLoad, closed_load, offered
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, Metric
from tuner.ask.slo import Verdict
from tuner.cost.breakdown import breakdown
from tuner.cost.latency import StepCosts
from tuner.errors import BadInput
from tuner.simulate import DisaggregatedSimulator, Pool, SimulationSettings, max_rate, simulate
from tuner.simulate.disaggregated import transfer_ms

MODEL = load_model("meta-llama/Llama-3.1-8B")


def costs(inter_node_gb_per_s=50.0):
    spec = ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8, inter_node_gb_per_s=inter_node_gb_per_s)
    return StepCosts(MODEL, Cluster.from_spec(spec))


COSTS = costs()
AT_REST = SimulationSettings()
ALONE = ParallelLayout()


def pool(text="tp=1", kv_tokens=400_000):
    return Pool(ParallelLayout.parse(text), kv_tokens)


def load(offsets_s, prompts, outputs):
    return OfferedLoad(np.asarray(offsets_s, float), np.asarray(prompts), np.asarray(outputs))


def apart(priced, prefill, decode, sent, made=AT_REST):
    longest = int((sent.prompt_tokens + sent.output_tokens).max())
    return DisaggregatedSimulator(priced, prefill, decode, longest_tokens=longest, settings=made).run(sent)


def poisson(rate, seconds=20.0, prompt=2000, output=100):
    request = make_request({"workload.prompt_tokens": prompt, "workload.output_tokens": output})
    return offered(request.workload, rate, seconds, seed=2)


@pytest.mark.parametrize("texts", [("tp=1", "tp=1"), ("tp=4", "tp=1"), ("tp=2,pp=2", "tp=8")])
def test_one_request_alone_is_prefill_then_transfer_then_decode(texts):
    prefill, decode = (ParallelLayout.parse(text) for text in texts)
    prompt, output = 1500, 50
    computed, decoded = (
        breakdown(COSTS, one, make_request({"workload.prompt_tokens": prompt, "workload.output_tokens": output}))
        for one in (prefill, decode)
    )
    found = apart(COSTS, pool(texts[0]), pool(texts[1]), load([0.0], [prompt], [output]))
    request_ms = COSTS.cluster.profile.engine.handling_ms(prompt)  # the second engine's; TTFT has the first's
    prefill_ms = sum(ms for name, ms in computed.ttft_ms.items() if not name.startswith("path: "))
    step_ms = sum(decoded.tpot_ms.values())
    transfer = transfer_ms(COSTS, prefill, decode, np.array([prompt]))[0]
    assert found.ttft_ms[0] == pytest.approx(prefill_ms + transfer + request_ms + step_ms, rel=0.01)
    assert found.tpot_ms[0] == pytest.approx(step_ms, rel=0.01)
    np.testing.assert_array_equal(found.replica, [1])


def test_the_transfer_carries_every_byte_over_the_link():
    tokens = np.array([1000, 2000])
    far = ParallelLayout(dp=8)  # with another such pool, more than one node
    slow, fast = (transfer_ms(costs(speed), far, far, tokens) for speed in (10.0, 40.0))
    kv_bytes = 32 * 2 * 8 * 128 * 2 * 1000
    assert slow[1] - slow[0] == pytest.approx(kv_bytes / 10e9 * 1e3, rel=0.25)
    assert (slow > 2 * fast).all()
    sharded = transfer_ms(costs(10.0), ParallelLayout(tp=4, dp=2), ParallelLayout(tp=2, dp=4), tokens)
    assert sharded[1] - sharded[0] == pytest.approx((slow[1] - slow[0]) / 2, rel=0.1)
    near = transfer_ms(costs(10.0), ALONE, ALONE, tokens)  # by NVLink, which the network's speed does not touch
    assert (near < fast).all()


def test_a_slow_link_delays_first_tokens_alone():
    runs = [apart(costs(speed), pool("tp=1,dp=8"), pool("tp=1,dp=8"), poisson(4.0)) for speed in (2.0, 50.0)]
    assert runs[0].ttft_ms.mean() > runs[1].ttft_ms.mean() + 50
    assert runs[0].tpot_ms.mean() == pytest.approx(runs[1].tpot_ms.mean(), rel=0.05)


def test_prompts_no_longer_delay_tokens():
    sent = poisson(10.0)
    together = simulate(COSTS, ParallelLayout(dp=2), sent, kv_tokens=400_000)
    found = apart(COSTS, pool(), pool(), sent)
    assert found.at(Metric.ITL, 99) < 0.5 * together.at(Metric.ITL, 99)
    assert found.prefill_share[1] < 0.01 < found.prefill_share[0]
    assert found.decode_share[0] == 0


@pytest.mark.slow
@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.floats(0, 0.3), st.integers(2, 2500), st.integers(1, 80)), min_size=1, max_size=20),
    texts=st.tuples(st.sampled_from(["tp=1", "tp=2,pp=2", "tp=1,dp=3"]), st.sampled_from(["tp=1", "tp=1,dp=2"])),
    kv_tokens=st.sampled_from([3000, 400_000]),
    skip=st.booleans(),
)
def test_every_request_is_served_once(rows, texts, kv_tokens, skip):
    gaps, prompts, outputs = zip(*rows, strict=True)
    sent = load(np.cumsum(gaps), prompts, outputs)
    made = SimulationSettings(skip=skip)
    run = apart(COSTS, pool(texts[0], kv_tokens), pool(texts[1], kv_tokens), sent, made)
    assert (run.arrival_s <= run.scheduled_s).all()
    assert (run.scheduled_s < run.first_token_s).all()
    assert (run.first_token_s <= run.end_s).all()
    np.testing.assert_array_equal(run.output_tokens, outputs)
    np.testing.assert_allclose(run.arrival_s, sent.offset_s)
    assert run.gap_counts.sum() == (run.output_tokens - 1).sum()
    assert (run.kv_peak_share <= 1).all()
    other = apart(COSTS, pool(texts[0], kv_tokens), pool(texts[1], kv_tokens), sent, replace(made, skip=not skip))
    np.testing.assert_allclose(run.end_s, other.end_s, rtol=1e-9)


def test_a_rate_is_found_for_two_pools_and_closed_loops_are_refused():
    request = make_request({"workload.prompt_tokens": 2000, "workload.output_tokens": 50})
    served = DisaggregatedSimulator(COSTS, pool(), pool(), longest_tokens=2050)
    rate = max_rate(served, request.workload, request.slo, requests=100)
    assert served.run(offered(request.workload, rate, 100 / rate, 0)).verdict(request.slo) is Verdict.MET
    with pytest.raises(BadInput, match="closed loop"):
        served.run(closed_load(request.workload, 4, 10, seed=0))
