"""The simulator's tables say what the analytical core says, for any batch."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec
from tuner.cost.latency import EngineSwitches, StepCosts, StepShape, total
from tuner.cost.stages import launched_layers, moe_layers_of, stage_blocks
from tuner.simulate.replica import chunk_attention_ms, decode_attention_ms, decode_stage_ms, mixed_stage_ms
from tuner.simulate.step_tables import step_table

# The tables are smooth where the core has steps (tiles of 128 keys, waves of tiles); batches that hit a step by chance
# miss it by the most.
LONGEST = 32768
CLUSTER = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8))
CASES = {
    "dense": ("meta-llama/Llama-3.1-8B", "tp=1", True),
    "pipeline": ("meta-llama/Llama-3.1-70B", "tp=4,pp=3,executor=ray,max_num_batched_tokens=16384", True),
    "without graphs": ("meta-llama/Llama-3.1-8B", "tp=2", False),
    "context parallel": ("meta-llama/Llama-3.1-405B", "tp=16,dcp=2,executor=ray", True),
    "experts": ("deepseek-ai/DeepSeek-V3", "tp=8,dp=2,ep=true,executor=ray", True),
    "windows": ("openai/gpt-oss-120b", "tp=2,max_num_seqs=64", True),
    "expert pipeline": ("Qwen/Qwen3-235B-A22B-FP8", "tp=4,pp=4,executor=ray,max_num_seqs=1024", True),
}


def case(name):
    model, layout, graphs = CASES[name]
    costs = StepCosts(load_model(model), CLUSTER, switches=EngineSwitches(cuda_graphs=graphs))
    return costs, ParallelLayout.parse(layout)


PRICED = {name: (*case(name), step_table(*case(name), LONGEST)) for name in CASES}


def exact(costs, layout, phase, new, context, sequences):
    arrays = (np.full(1, float(value)) for value in (new, context, sequences))
    return [float(total(terms)[0]) for terms in costs.stages(layout, StepShape(phase, *arrays))]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40)
@given(data=st.data())
def test_decode_steps_are_right_to_three_percent(name, data):
    costs, layout, table = PRICED[name]
    sequences = data.draw(st.integers(1, layout.max_num_seqs))
    context = data.draw(st.integers(16, LONGEST))
    expected = exact(costs, layout, "decode", 1, context, sequences)
    found = [decode_stage_ms(table, stage, sequences, float(context)) for stage in range(layout.pp)]
    assert found == pytest.approx(expected, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40)
@given(data=st.data())
def test_prefill_steps_are_right_to_ten_percent(name, data):
    costs, layout, table = PRICED[name]
    chunks = data.draw(st.integers(1, 8))
    new = data.draw(st.integers(2, layout.max_num_batched_tokens // chunks))
    context = data.draw(st.one_of(st.just(0), st.integers(0, LONGEST - new)))
    expected = exact(costs, layout, "prefill", new, context, chunks)
    own, fixed = chunk_attention_ms(table, new, float(context))
    attention = chunks * own + fixed
    found = [mixed_stage_ms(table, stage, 0, 0.0, chunks, chunks * new, attention) for stage in range(layout.pp)]
    assert found == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_errors_average_out(name):
    costs, layout, table = PRICED[name]
    random, errors = np.random.default_rng(0), []
    for _ in range(60):
        sequences = int(random.integers(1, layout.max_num_seqs + 1))
        context = float(random.integers(16, LONGEST))
        found = decode_stage_ms(table, 0, sequences, context)
        errors.append(abs(found / exact(costs, layout, "decode", 1, context, sequences)[0] - 1))
        new = int(random.integers(2, layout.max_num_batched_tokens))
        own, fixed = chunk_attention_ms(table, new, 0.0)
        found = mixed_stage_ms(table, 0, 0, 0.0, 1, new, own + fixed)
        errors.append(abs(found / exact(costs, layout, "prefill", new, 0, 1)[0] - 1))
    assert np.mean(errors) < 0.003


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@given(decodes=st.integers(0, 60), new=st.integers(2, 1500), context=st.integers(16, LONGEST))
@example(decodes=22, new=410, context=16)  # 432 / 23 * 23 is a hair more than 432
def test_a_mixed_step_is_one_batch_of_tokens(name, decodes, new, context):
    """All but attention costs what it costs for so many tokens of so many sequences."""
    costs, layout, table = PRICED[name]
    new += -(decodes + new) % table.stride  # between the tabled token counts it is interpolated
    sequences = decodes + 1
    whole = StepShape("prefill", np.full(1, (decodes + new) / sequences), np.zeros(1), np.full(1, float(sequences)))
    terms = costs.stages(layout, whole)[0]
    blocks = stage_blocks(costs.model, layout.pp)[0]
    layers, moe_layers = launched_layers(blocks), moe_layers_of(blocks)
    own, fixed = chunk_attention_ms(table, new, 0.0)
    attention = own + fixed + (decode_attention_ms(table, decodes, float(context)) if decodes else 0.0)
    gpu = float(total({n: v for n, v in terms.items() if n not in ("attention", "host")})[0]) + layers * attention
    added, launch = costs.host_parts("prefill", layers, moe_layers, in_graph=decodes + new <= costs.graph_tokens)
    launch += costs.hidden_sequence_ms * sequences * (layout.pp == 1)
    expected = max(gpu, launch) + added + costs.cluster.profile.engine.sequence_ms * sequences
    found = mixed_stage_ms(table, 0, decodes, float(context), 1, new, own + fixed)
    assert found == pytest.approx(expected, rel=1e-9)
