"""What a device must hold: every weight once, KV heads where they are replicated, and what remains for the cache."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shapes import reshaped
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, Engine
from tuner.cost.memory import (
    COLLECTIVE_BYTES,
    GIB,
    GRAPH_BYTES,
    estimate_memory,
    weight_bytes,
)
from tuner.cost.profiling_run import release_memory
from tuner.cost.sequence_memory import sequence_memory

RUNTIME_BYTES = release_memory(None).runtime_bytes
LLAMA_8B, LLAMA_70B = load_model("meta-llama/Llama-3.1-8B"), load_model("meta-llama/Llama-3.1-70B")
LLAMA_1B, DEEPSEEK = load_model("meta-llama/Llama-3.2-1B"), load_model("deepseek-ai/DeepSeek-V3")
QWEN_MOE, GPT_OSS = load_model("Qwen/Qwen3-235B-A22B"), load_model("openai/gpt-oss-120b")
H100 = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8))
CPU = Cluster.from_spec(ClusterSpec(gpu="cpu", gpus_per_node=2))


def estimate(model, layout, cluster=H100, engine=None, batched=2048, seqs=256):
    layout = ParallelLayout.parse(layout)
    return estimate_memory(
        model, layout, cluster, engine or Engine(), np.array([float(batched)]), np.array([float(seqs)])
    )


@pytest.mark.parametrize(
    "name", ["meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-405B", "meta-llama/Llama-3.2-1B", "Qwen/Qwen3-235B-A22B"]
)
def test_one_device_holds_every_weight(name):
    model = load_model(name)
    assert weight_bytes(model, ParallelLayout(), 0) == 2 * model.parameters


@given(model=st.sampled_from([LLAMA_8B, LLAMA_70B, DEEPSEEK, QWEN_MOE]), pp=st.integers(1, 16))
def test_stages_hold_together_what_one_device_holds(model, pp):
    held = sum(weight_bytes(model, ParallelLayout(pp=pp), stage) for stage in range(pp))
    assert held == pytest.approx(weight_bytes(model, ParallelLayout(), 0), rel=1e-12)


def test_a_tied_table_is_held_by_both_end_stages():
    table = LLAMA_1B.padded_vocab * LLAMA_1B.hidden * 2
    held = sum(weight_bytes(LLAMA_1B, ParallelLayout(pp=2), stage) for stage in range(2))
    assert held - weight_bytes(LLAMA_1B, ParallelLayout(), 0) == table


@pytest.mark.slow
@given(t=st.sampled_from([2, 4, 8]), ep=st.booleans(), model=st.sampled_from([LLAMA_8B, LLAMA_70B, QWEN_MOE]))
def test_ranks_hold_together_what_one_device_holds_and_the_norms_again(t, ep, model):
    layout = ParallelLayout(tp=t, ep=ep and model.experts is not None)
    norms = 2 * (model.vectors.whole + sum(n * block.vectors(model.hidden).whole for block, n in model.counted))
    router = model.moe_layers * (model.experts.count * model.hidden * 2 if model.experts else 0)
    kv_copies = max(1, t // model.kv_heads) - 1
    copies = model.layers * model.hidden * model.head_dim * 2 * model.kv_heads * 2 * kv_copies
    whole = weight_bytes(model, ParallelLayout(), 0)
    assert t * weight_bytes(model, layout, 0) == pytest.approx(whole + (t - 1) * (norms + router) + copies, rel=1e-12)


def per_token_bytes(model, layout, element_bytes=2.0):
    return sequence_memory(model, layout, element_bytes).unit_bytes


def test_kv_heads_are_replicated_beyond_their_number():
    shards = [per_token_bytes(LLAMA_8B, ParallelLayout(tp=t)) for t in (1, 2, 8, 16, 32)]
    assert shards == [131072, 65536, 16384, 16384, 16384]


@pytest.mark.parametrize(
    ("model", "layout", "per_token"),
    [
        (LLAMA_8B, "tp=1,pp=2,dp=1", 16 * 2 * 8 * 128 * 2),
        (LLAMA_8B, "tp=1,pp=3,dp=1", 11 * 2 * 8 * 128 * 2),
        (LLAMA_8B, "tp=16,pp=1,dp=1,dcp=2", 32 * 2 * 128 * 2 / 2),
        (DEEPSEEK, "tp=1,pp=1,dp=1", 61 * 576 * 2),
        (DEEPSEEK, "tp=8,pp=1,dp=1", 61 * 576 * 2),  # the latent cache is whole on every rank
        (DEEPSEEK, "tp=8,pp=1,dp=1,dcp=8", 61 * 576 * 2 / 8),
        (GPT_OSS, "tp=1,pp=1,dp=1", 18 * 2 * 8 * 64 * 2),  # layers with a window hold no more than it
    ],
)
def test_kv_bytes_per_token(model, layout, per_token):
    assert per_token_bytes(model, ParallelLayout.parse(layout)) == per_token
    assert per_token_bytes(model, ParallelLayout.parse(layout), 1.0) == per_token / 2


@pytest.mark.parametrize(
    ("layout", "held"),
    [
        ("tp=1,pp=1,dp=8,ep=true", 32),
        ("tp=1,pp=1,dp=16,ep=true", 16),
        ("tp=8,pp=1,dp=2,ep=true", 16),
        ("tp=1,pp=1,dp=24,ep=true", 11),
    ],
)
def test_whole_experts_by_rank(layout, held):
    layout = ParallelLayout.parse(layout)
    expert = 3 * 7168 * 2048 * (1 + 4 / 128**2)
    fewer = reshaped(DEEPSEEK, experts={"count": 1})
    router = (256 - 1) * (7168 + 1) * 2  # with its bias
    grown = weight_bytes(DEEPSEEK, layout, 0) - weight_bytes(fewer, layout, 0)
    assert grown == pytest.approx(58 * ((held - 1) * expert + router), rel=1e-9)


def test_what_remains_is_the_cache():
    found = estimate(LLAMA_8B, "tp=2,pp=1,dp=1")
    assert found.available_bytes == 0.9 * H100.profile.memory_bytes
    assert found.buffers_bytes == RUNTIME_BYTES + GRAPH_BYTES + COLLECTIVE_BYTES
    spent = (
        found.weights_bytes + found.activation_bytes + found.buffers_bytes + found.kv_tokens * found.kv_bytes_per_token
    )
    np.testing.assert_allclose(spent, found.available_bytes)
    assert found.misfit(0, 131072) is None
    assert estimate(LLAMA_8B, "tp=1,pp=1,dp=8").buffers_bytes == RUNTIME_BYTES + GRAPH_BYTES  # alone in its replica


def test_a_model_too_large_says_what_it_needs():
    found = estimate(LLAMA_70B, "tp=1,pp=1,dp=1")
    assert found.kv_tokens.tolist() == [0]
    assert found.misfit(0, 4096) == (
        "weights 131.42 + activations 0.52 + buffers 0.61 + KV of 4096 tokens 1.25 GiB "
        "exceed the 71.25 GiB that a device has for them"
    )  # fmt: skip


def test_one_full_sequence_must_fit():
    found = estimate(LLAMA_8B, "tp=1,pp=1,dp=1")
    held = int(found.kv_tokens[0])
    assert found.misfit(0, held) is None
    assert "exceed" in found.misfit(0, held + 1)


@pytest.mark.slow
@given(batched=st.integers(1, 65536), seqs=st.integers(1, 2048), more=st.integers(1, 4096))
def test_larger_steps_leave_less_cache(batched, seqs, more):
    held = estimate(LLAMA_8B, "tp=1,pp=1,dp=1", batched=batched, seqs=seqs).kv_tokens
    assert estimate(LLAMA_8B, "tp=1,pp=1,dp=1", batched=batched + more, seqs=seqs).kv_tokens <= held
    assert estimate(LLAMA_8B, "tp=1,pp=1,dp=1", batched=batched, seqs=seqs + more).kv_tokens <= held


def test_limits_are_array_axes():
    batched, seqs = np.array([[1024.0], [8192.0]]), np.array([[64.0, 128.0, 256.0]])
    grid = estimate_memory(LLAMA_8B, ParallelLayout(), H100, Engine(), batched, seqs).kv_tokens
    assert grid.shape == (2, 3)
    for row, b in enumerate(batched.ravel()):
        for column, s in enumerate(seqs.ravel()):
            assert grid[row, column] == estimate(LLAMA_8B, "tp=1,pp=1,dp=1", batched=b, seqs=s).kv_tokens[0]


@pytest.mark.parametrize(
    ("cluster", "engine", "kv_gib"),
    [(CPU, Engine(), 1.0), (CPU, Engine(kv_cache_gib=0.25), 0.25), (H100, Engine(kv_cache_gib=2), 2.0)],
)
def test_a_cache_of_a_set_size(cluster, engine, kv_gib):
    tiny = reshaped(LLAMA_1B, layers=2, vocab=1024)
    found = estimate(tiny, "tp=1,pp=1,dp=1", cluster, engine)
    assert found.kv_tokens[0] * found.kv_bytes_per_token == pytest.approx(kv_gib * GIB)


def test_less_of_the_device_is_less_cache():
    held = [
        estimate(LLAMA_8B, "tp=1,pp=1,dp=1", engine=Engine(gpu_memory_utilization=share)).kv_tokens[0]
        for share in (0.5, 0.9)
    ]
    assert (held[1] - held[0]) * 131072 == pytest.approx(0.4 * H100.profile.memory_bytes)
