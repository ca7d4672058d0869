"""Techniques along the tokens change what they act on and nothing else, each by the formula of its source."""

from dataclasses import replace

import numpy as np
import pytest

from tests.fakes import make_request
from tests.techniques import MODELS, cluster, costs, falls, idle, parsed
from tuner.ask.request import Engine
from tuner.ask.rules import DropReason, illegal
from tuner.cost.memory import estimate_memory
from tuner.cost.step_batch import StepShape, total
from tuner.cost.techniques import parse_techniques
from tuner.cost.techniques.sequence import hiding_tokens, kv_bytes, kv_message_threshold, passes_kv, query_bytes


@pytest.mark.parametrize("slices", [2, 3, 8, 32])
def test_hpipe_fills_the_pipeline(slices):
    """Σ c_s + (M − 1)·max c_s over the stages' times of one slice."""
    layout, prompt = parsed("tp=2,pp=4,dp=1,max_num_batched_tokens=8192"), 4096
    one, new = np.ones(1), np.full(1, prompt / slices)
    priced = costs("70B")
    stages = [float(total(t)[0]) for t in priced.stages(layout, StepShape("prefill", new, (prompt - new) / 2, one))]
    expected_ms = sum(stages) + (slices - 1) * max(stages) + priced.cluster.profile.engine.handling_ms(prompt)
    assert idle("70B", layout, f"hpipe={slices}")[0] == pytest.approx(expected_ms)


def test_hpipe_shortens_a_long_prompt_and_leaves_decode():
    layout = "tp=1,pp=8,dp=1,max_num_batched_tokens=8192"
    whole, sliced = idle("70B", layout), idle("70B", layout, "hpipe=8")
    assert 1.5 < whole[0] / sliced[0] < 8
    assert sliced[1] == whole[1]
    assert idle("70B", replace(parsed(layout), max_num_batched_tokens=512), "hpipe=8") == idle(
        "70B", replace(parsed(layout), max_num_batched_tokens=512)
    )  # the scheduler cuts it as small already


def test_the_figures_of_ring_attention():
    """arXiv 2411.01783: Llama 3 405B, 128 heads of 128, 8 KV heads."""
    heads, kv_heads, head_dim = MODELS["405B"].heads, MODELS["405B"].kv_heads, MODELS["405B"].head_dim
    assert kv_message_threshold(heads, kv_heads) == 0.125
    assert query_bytes(np.array([1000.0]), heads, head_dim)[0] == 32_768_000
    assert kv_bytes(np.array([10_000.0]), kv_heads, head_dim)[0] == 40_960_000
    assert hiding_tokens(16, heads, kv_heads, 8e14, 5e10) == 16_000


@pytest.mark.parametrize(
    ("new_tokens", "cached_tokens", "kv"),
    [
        (1000, 9000, False),
        (1000, 0, True),
        (1250, 8750, True),  # 0.125 of 10,000
        (1180, 8820, True),  # below it, but pass-Q pays for its all-to-all
        (1150, 8850, False),
        (15_999, 10**12, False),
        (16_000, 10**12, True),  # attention hides it
    ],
)
def test_what_a_ring_passes(new_tokens, cached_tokens, kv):
    found = passes_kv(np.array([float(new_tokens)]), np.array([float(cached_tokens)]), 16, 128, 8, 8e14, 5e10)
    assert bool(found[0]) is kv


RING = "tp=8,pp=1,dp=1,pcp={c},executor=ray,max_num_batched_tokens=131072"


def test_rings_shorten_prefill_and_lengthen_decode():
    """405B, 128K tokens: measured 42 s on one node of 8 and 5.85 s on 8 nodes, TTIT 46 ms and with 4 nodes 71 ms."""
    long = make_request({"workload.prompt_tokens": 128_000, "workload.output_tokens": 128})
    found = [idle("405B", RING.format(c=c), "ring-attention", request=long, on=cluster(8)) for c in (1, 2, 4, 8)]
    speedup = found[0][0] / found[3][0]
    assert 0.7 * 42 / 5.85 < speedup < 8
    assert 30_000 < found[0][0] < 50_000
    assert falls([ttft for ttft, _ in found])
    assert falls([tpot for _, tpot in reversed(found)])


@pytest.mark.parametrize(
    ("context_tokens", "exchanged"), [(0, False), (200_000, True)], ids=["a fresh prompt", "a turn after many"]
)
def test_a_ring_that_passes_queries_exchanges_outputs(context_tokens, exchanged):
    one = np.ones(1)
    step = StepShape("prefill", 512 * one, context_tokens * one, one)
    (terms,) = costs("405B", "ring-attention").stages(parsed(RING.format(c=4)), step)
    assert bool(terms["alltoall prefill context between nodes"][0] > 0) is exchanged


@pytest.mark.parametrize(
    ("short", "layout", "reason"),
    [
        ("405B", RING.format(c=4), None),
        ("405B", "tp=8,pp=1,dp=1,pcp=8,executor=ray", DropReason.PLACEMENT),
        ("405B", "tp=8,pp=1,dp=1,pcp=4", DropReason.EXECUTOR),
        ("405B", "tp=8,pp=1,dp=1,pcp=4,dcp=2,executor=ray", DropReason.CONTEXT_PARALLEL),
        ("405B", "tp=8,pp=1,dp=1,dcp=2,executor=ray", DropReason.CONTEXT_PARALLEL),
        ("405B", "tp=8,pp=1,pcp=4,dp=1,executor=ray,max_num_seqs=512,max_num_batched_tokens=256", DropReason.SCHEDULER),
    ],
)
def test_rings_make_legal_what_lacked_them_and_nothing_else(short, layout, reason):
    layout = parsed(layout)
    drop = illegal(MODELS[short], layout, cluster())
    assert drop is not None
    found = parse_techniques(["ring-attention"]).verdict(MODELS[short], layout, drop)
    assert (found.reason if found else None) is reason


def test_a_ring_shares_the_cache():
    layout, engine = parsed(RING.format(c=4)), Engine()
    whole = estimate_memory(MODELS["70B"], layout, cluster(), engine, np.array([8192.0]), np.array([256.0]))
    found = parse_techniques(["ring-attention"]).memory(MODELS["70B"], layout, engine, whole)
    assert found.kv_tokens[0] == 4 * whole.kv_tokens[0]
    assert found.kv_tokens[0] * found.kv_bytes_per_token == whole.kv_tokens[0] * whole.kv_bytes_per_token
