"""Techniques of experts change what they act on and nothing else, each by the formula of its source."""

import numpy as np
import pytest

from tests.techniques import EXPERTS_32, MODELS, cluster, costs, falls, idle, parsed
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Engine
from tuner.cost.memory import estimate_memory
from tuner.cost.step_batch import StepShape
from tuner.cost.techniques import NONE, Techniques, parse_techniques
from tuner.cost.volume import pass_operations


def test_remote_bytes_shrink_with_what_is_local():
    model, layout = MODELS["deepseek"], parsed(EXPERTS_32)
    plain = [op for op in pass_operations(model, layout) if op.group == "ep"]
    for rate, factor in ((0.5, 0.5 / (31 / 32)), (1.0, 0.0), (0.25, 0.75 / (31 / 32))):
        techniques = parse_techniques([f"s-moe={rate}"])
        found = [op for op in techniques.operations(model, layout, pass_operations(model, layout)) if op.group == "ep"]
        assert [op.columns for op in found] == pytest.approx([factor * op.columns for op in plain])


def test_more_local_tokens_never_cost_more():
    found = [idle("deepseek", EXPERTS_32, f"s-moe={rate}") for rate in (0, 0.03, 0.1, 0.5, 0.9, 1)]
    assert falls([ttft for ttft, _ in found])
    assert falls([tpot for _, tpot in found])
    assert found[-1][0] < found[0][0]


def test_dynamic_gating_sends_only_what_is_routed():
    """All-gather brings every token to all g ranks; routed, k copies of each leave."""
    model, layout = MODELS["deepseek"], parsed("tp=1,pp=1,dp=32,ep=true,executor=ray")
    techniques = parse_techniques(["dynamic-gating"])
    found = techniques.operations(model, layout, pass_operations(model, layout))
    exchanged = [op for op in found if op.group == "ep"]
    assert {op.operation for op in exchanged} == {"alltoall"}
    assert {op.columns for op in exchanged} == {model.experts.topk * model.hidden}
    one = np.ones(1)
    (terms,) = costs("deepseek", "dynamic-gating").stages(layout, StepShape("decode", one, 1024 * one, one))
    assert terms["expert counts"][0] > 0
    inside = "tp=1,pp=1,dp=8,ep=true,executor=ray"  # of four chosen experts 3.5 are remote, of all ranks 7
    assert idle("gpt-oss", inside, "dynamic-gating")[0] < idle("gpt-oss", inside)[0]


SHARDED = "tp=8,pp=2,dp=1,executor=ray"


@pytest.mark.parametrize("layout", [SHARDED, EXPERTS_32])
def test_buffering_trades_time_for_memory(layout):
    layout, engine = parsed(layout), Engine()
    memory = estimate_memory(MODELS["deepseek"], layout, cluster(), engine, np.array([8192.0]), np.array([256.0]))
    kept = (1, 0.75, 0.5, 0.1)
    times = [idle("deepseek", layout, f"expert-buffering={share}") for share in kept]
    assert falls([ttft for ttft, _ in reversed(times)])
    assert falls([tpot for _, tpot in reversed(times)])
    estimates = [
        parse_techniques([f"expert-buffering={share}"]).memory(MODELS["deepseek"], layout, engine, memory)
        for share in kept
    ]
    weights = [estimate.weights_bytes for estimate in estimates]
    tokens = [float(estimate.kv_tokens[0]) for estimate in estimates]
    assert falls(weights)
    assert falls(list(reversed(tokens)))
    freed = weights[0] - weights[2]
    assert (tokens[2] - tokens[0]) * memory.kv_bytes_per_token <= freed * (1 + 1e-9)
    assert 1.3 < weights[0] / weights[2] < 2  # the source: 1.47 times less static memory


def test_a_cap_on_the_cache_stays():
    layout, engine = parsed(EXPERTS_32), Engine(kv_cache_gib=2.0)
    memory = estimate_memory(MODELS["deepseek"], layout, cluster(), engine, np.array([8192.0]), np.array([256.0]))
    found = parse_techniques(["expert-buffering=0.5"]).memory(MODELS["deepseek"], layout, engine, memory)
    assert found.kv_tokens == pytest.approx(memory.kv_tokens)


def test_a_step_reads_the_experts_that_it_meets():
    """One token meets k experts; (1 − B) of them are read from the host, and all of them with many tokens."""
    model, on, one = MODELS["deepseek"], cluster(), np.ones(1)
    layout, experts = parsed(SHARDED), model.experts
    expert_bytes = 3 * model.hidden * experts.inter * (1 + 4 / 128**2) / 8
    for sequences, met in ((1.0, experts.topk), (1e6, experts.count)):
        stages = costs("deepseek", "expert-buffering=0.25").stages(
            layout, StepShape("decode", one, 1024 * one, sequences * one)
        )
        expected_ms = model.moe_layers * 0.75 * met * expert_bytes / on.profile.pcie_bytes_per_s * 1e3
        assert sum(float(terms["expert fetch"][0]) for terms in stages) == pytest.approx(expected_ms, rel=1e-3)


def test_no_technique_is_no_change():
    assert not NONE
    assert Techniques().grid(ParallelLayout(tp=4)) == (1, 4)
    assert Techniques().slices(8) == 1
