"""KV caches that real engines reported, and the terms of the profiling run that they follow from."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shapes import reshaped
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import Experts, load_model
from tuner.ask.request import ClusterSpec, Engine
from tuner.cost.memory import GIB, estimate_memory
from tuner.cost.profiling_run import profiled_bytes, release_memory
from tuner.cost.switches import EngineSwitches

LLAMA_8B, LLAMA_70B = load_model("meta-llama/Llama-3.1-8B"), load_model("meta-llama/Llama-3.1-70B")
QWEN_235B, DEEPSEEK = load_model("Qwen/Qwen3-235B-A22B-FP8"), load_model("deepseek-ai/DeepSeek-V3")
ONE = ParallelLayout.parse("tp=1,pp=1,dp=1")


def memory(model, gpu, layout, share, batched, seqs, version=None, **switches):
    cluster = Cluster.from_spec(ClusterSpec(gpu=gpu, nodes=1, gpus_per_node=8))
    limits = np.array([float(batched)]), np.array([float(seqs)])
    engine = Engine(gpu_memory_utilization=share)
    layout = ParallelLayout.parse(layout)
    return estimate_memory(model, layout, cluster, engine, *limits, EngineSwitches(**switches), version)


@pytest.mark.parametrize(
    ("model", "gpu", "layout", "share", "batched", "seqs", "version", "measured", "within_percent"),
    [
        # A machine of its own; 0.9 of it would not hold weights and this cache: 0.92, the release's default, did.
        (LLAMA_8B, "h200_sxm", "tp=1,pp=1,dp=1", 0.92, 8192, 1024, "0.26", 919_824, 1),
        # vllm-project/vllm 21348, a release of July 2025 with a KV connector; scheduler limits are its defaults.
        (QWEN_235B, "h100_sxm", "tp=4,pp=1,dp=1", 0.9, 8192, 1024, "0.10", 178_880, 20),
        # vllm-project/vllm 17122, a release of April 2025; its settings are not told, defaults are assumed.
        (LLAMA_8B, "l40s", "tp=1,pp=1,dp=1", 0.9, 2048, 256, "0.8", 158_656, 21),
    ],
)
def test_caches_that_engines_reported(model, gpu, layout, share, batched, seqs, version, measured, within_percent):
    found = memory(model, gpu, layout, share, batched, seqs, version)
    assert found.kv_tokens[0] == pytest.approx(measured, rel=within_percent / 100)


def test_a_cache_reported_on_an_a100():
    """gpt-oss-20b, vLLM 0.19, 65 % of the device: 13.72 GiB of weights, 36.56 GiB of cache
    (myoceane.fr/index.php/ai-vllm-a100-gemma-4, April 2026)."""
    large = load_model("openai/gpt-oss-120b")
    small = reshaped(large, layers=24, experts={"count": 32})
    found = memory(small, "a100_sxm", "tp=1,pp=1,dp=1", 0.65, 2048, 256, "0.19")
    beside_weights = (found.activation_bytes[0] + found.buffers_bytes) / GIB
    assert beside_weights == pytest.approx(51.46 - 13.72 - 36.56, abs=0.1)


def peak(model, layout=ONE, batched=8192.0, seqs=256.0, version=None):
    return float(np.ravel(profiled_bytes(model, layout, np.array(batched), np.array(seqs), release_memory(version)))[0])


def test_experts_need_two_workspaces():
    tp, ep = (ParallelLayout.parse(text) for text in ("tp=4,pp=1,dp=1", "tp=4,pp=1,dp=2,ep=true"))
    fewer = reshaped(QWEN_235B, experts={"topk": 4})
    rows = 8192 * 4  # four experts more for each token
    assert peak(QWEN_235B, tp) - peak(fewer, tp) == rows * (4096 + 4096) * 2
    assert peak(QWEN_235B, ep) - peak(fewer, ep) == 2 * rows * (4096 + 4096) * 2  # tokens of both replicas
    wide = reshaped(QWEN_235B, experts={"inter": 16384})
    assert peak(wide, tp) - peak(QWEN_235B, tp) == 8192 * 8 * (2 * 4096 - 4096) * 2  # gate and up of a shard


def test_layers_and_sampler_follow_each_other():
    kept = 1024 * LLAMA_8B.padded_vocab * 4.125
    assert peak(LLAMA_8B, seqs=1024.0) - kept == 8192 * 2 * (2 * 4096 + 3 * 14336)
    sampling = reshaped(LLAMA_8B, mlp={"inter": 64}, attention={"heads": 8, "kv_heads": 8})
    assert peak(sampling, seqs=1024.0) - kept == 1024 * LLAMA_8B.padded_vocab * 2 + 8192 * 4096 * 2


def test_latent_attention_projects_its_context_up():
    heads = ParallelLayout.parse("tp=8,pp=1,dp=1")
    context = 65536 * 16 * (128 + 128) * 2
    assert context < peak(DEEPSEEK, heads, 1.0, 1.0) < 1.01 * context


def test_releases():
    """Sorting samplers took most; graphs are reserved since 0.21; a second runner counts penalties since 0.26."""
    found = {
        v: memory(LLAMA_8B, "h100_sxm", "tp=1,pp=1,dp=1", 0.9, 2048, 256, v) for v in ("0.17", "0.19", "0.25", None)
    }
    held = {version: float(memory.kv_tokens[0]) for version, memory in found.items()}
    assert held["0.17"] < held["0.19"]
    assert found["0.19"].graphs_bytes == 0 < found["0.25"].graphs_bytes == found[None].graphs_bytes
    assert found["0.25"].activation_bytes > found[None].activation_bytes
    eager = memory(LLAMA_8B, "h100_sxm", "tp=1,pp=1,dp=1", 0.9, 2048, 256, cuda_graphs=False)
    assert eager.graphs_bytes == 0
    assert eager.kv_tokens > found[None].kv_tokens


@given(
    tp=st.sampled_from([1, 2, 4, 8]),
    batched=st.integers(1, 65536),
    seqs=st.integers(1, 2048),
    topk=st.integers(1, 16),
    version=st.sampled_from([None, "0.26", "0.19", "0.10"]),
)
def test_more_of_anything_is_never_less(tp, batched, seqs, topk, version):
    mixture = replace(LLAMA_70B.kinds[0], mlp=None, experts=Experts(count=64, topk=topk, inter=4096))
    model = replace(LLAMA_70B, kinds=(mixture,))
    layout = ParallelLayout.parse(f"tp={tp},pp=1,dp=1")
    held = peak(model, layout, float(batched), float(seqs), version)
    assert peak(model, layout, batched + 64.0, float(seqs), version) >= held > 0
    assert peak(model, layout, float(batched), seqs + 8.0, version) >= held
    more = reshaped(model, experts={"topk": topk + 1})
    assert peak(more, layout, float(batched), float(seqs), version) >= held
