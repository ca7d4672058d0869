"""Each rule of engine and cluster: a case that breaks it, with its figure, and the nearest one that does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shapes import reshaped
from tests.unit.test_layout import LAYOUTS
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec
from tuner.ask.rules import DropReason, illegal
from tuner.errors import BadInput

LLAMA_8B, LLAMA_70B = load_model("meta-llama/Llama-3.1-8B"), load_model("meta-llama/Llama-3.1-70B")
QWEN_14B, QWEN_7B = load_model("Qwen/Qwen3-14B"), load_model("Qwen/Qwen2.5-7B")
QWEN_FP8 = load_model("Qwen/Qwen3-235B-A22B-FP8")
DEEPSEEK, MIXTRAL = load_model("deepseek-ai/DeepSeek-V3"), load_model("mistralai/Mixtral-8x7B-v0.1")
GROUPS_OF_3 = reshaped(LLAMA_8B, attention={"heads": 48, "kv_heads": 16}, mlp={"inter": 48 * 256}, vocab=48 * 64)
GROUPS_OF_6 = reshaped(GROUPS_OF_3, attention={"heads": 96})
NARROW_TABLE = reshaped(LLAMA_8B, attention={"heads": 30, "kv_heads": 30}, mlp={"inter": 3000}, vocab=128 * 3)
ODD = reshaped(LLAMA_8B, attention={"heads": 30, "kv_heads": 10}, vocab=128 * 3)


def cluster(nodes, gpus_per_node=8):
    return Cluster.from_spec(ClusterSpec(gpu="h100_sxm", nodes=nodes, gpus_per_node=gpus_per_node))


PLACEMENT = [
    # model, layout, nodes × devices per node, reason or None, figure
    (LLAMA_8B, "tp=8,pp=1,dp=2,executor=ray", (1, 8), DropReason.PLACEMENT, "needs 16 devices, the cluster has 8"),
    (LLAMA_8B, "tp=8,pp=1,dp=2", (2, 8), None, None),
    (LLAMA_8B, "tp=1,pp=1,dp=9", (1, 8), DropReason.PLACEMENT, "needs 9 devices, the cluster has 8"),
    (DEEPSEEK, "tp=8,pp=1,dp=1,pcp=2,executor=ray", (1, 8), DropReason.PLACEMENT, "needs 16 devices"),
    (LLAMA_8B, "tp=4,pp=1,dp=3", (2, 6), DropReason.PLACEMENT, "3 replicas of 4 devices, each on one node: 2 × 6"),
    (LLAMA_8B, "tp=4,pp=1,dp=2,executor=ray", (2, 6), None, None),
    (LLAMA_8B, "tp=8,pp=1,dp=3,executor=ray", (4, 6), None, None),  # three rests of 2 share a node
    (LLAMA_8B, "tp=2,pp=5,dp=3,executor=ray", (5, 6), DropReason.PLACEMENT, "each on 2 nodes: 5 × 6 devices hold 2"),
    (MIXTRAL, "tp=4,pp=1,dp=3,ep=true,executor=ray", (2, 6), DropReason.PLACEMENT, "2 × 6 devices hold 2"),
    (LLAMA_8B, "tp=1,pp=1,dp=1,gpu=l40s", (2, 6), DropReason.PLACEMENT, "gpu=l40s, the nodes have h100_sxm"),
    (LLAMA_8B, "tp=1,pp=1,dp=1,gpu=h100_sxm", (2, 6), None, None),
]
HEADS = [
    (LLAMA_8B, "tp=3,pp=1,dp=1", (1, 8), DropReason.HEADS, "32 attention heads do not divide by tp=3"),
    (QWEN_7B, "tp=8,pp=1,dp=1", (1, 8), DropReason.HEADS, "28 attention heads do not divide by tp=8"),
    (QWEN_7B, "tp=4,pp=1,dp=1", (1, 8), None, None),
    (ODD, "tp=6,pp=1,dp=1", (1, 8), DropReason.KV_HEADS, "10 KV heads neither divide by nor into tp=6"),
    (ODD, "tp=2,pp=1,dp=1", (1, 8), None, None),
    (LLAMA_8B, "tp=16,pp=1,dp=1,executor=ray", (2, 8), None, None),  # 8 KV heads, each on two ranks
    (DEEPSEEK, "tp=16,pp=1,dp=1,executor=ray", (2, 8), None, None),  # one latent cache, on every rank
]
SHARDS = [
    (LLAMA_8B, "tp=1,pp=33,dp=1,executor=ray", (8, 8), DropReason.LAYERS, "pp=33 stages, 32 layers"),
    (LLAMA_8B, "tp=1,pp=32,dp=1,executor=ray", (8, 8), None, None),
    (LLAMA_8B, "tp=1,pp=5,dp=1", (1, 8), None, None),  # the engine splits layers unevenly
    (reshaped(LLAMA_8B, mlp={"inter": 14337}), "tp=2,pp=1,dp=1", (1, 8), DropReason.MLP_WIDTH, "14337 does not divide"),
    (NARROW_TABLE, "tp=5,pp=1,dp=1", (1, 8), DropReason.MLP_WIDTH, "384 vocabulary rows"),
    (QWEN_FP8, "tp=8,pp=1,dp=1", (1, 8), None, None),  # scales of experts are refined to blocks of 64
    (QWEN_FP8, "tp=64,pp=1,dp=1,executor=ray", (8, 8), DropReason.MLP_WIDTH, "1536 does not divide by tp=64 in blocks"),
    (QWEN_FP8, "tp=64,pp=1,dp=1,ep=true,executor=ray", (8, 8), None, None),  # whole experts have no shards
    (DEEPSEEK, "tp=64,pp=1,dp=1,ep=true,executor=ray", (8, 8), DropReason.MLP_WIDTH, "18432"),  # its dense layers
]  # fmt: skip
EXPERTS = [
    (LLAMA_8B, "tp=2,pp=1,dp=1,ep=true", (1, 8), DropReason.EXPERTS, "a model without experts"),
    (MIXTRAL, "tp=2,pp=1,dp=8,ep=true,executor=ray", (2, 8), DropReason.EXPERTS, "16 expert-parallel ranks"),
    (MIXTRAL, "tp=2,pp=1,dp=4,ep=true,executor=ray", (2, 8), None, None),
    (MIXTRAL, "tp=2,pp=1,dp=8", (2, 8), None, None),
]
CONTEXT = [
    (LLAMA_8B, "tp=1,pp=1,dp=1,pcp=2", (1, 8), DropReason.CONTEXT_PARALLEL, "pcp=2 needs latent attention"),
    (DEEPSEEK, "tp=4,pp=1,dp=1,pcp=2", (1, 8), None, None),
    (DEEPSEEK, "tp=4,pp=1,dp=1,pcp=2,dcp=2", (1, 8), None, None),
    (DEEPSEEK, "tp=4,pp=1,dp=1,pcp=2,dcp=8", (1, 8), None, None),
    (DEEPSEEK, "tp=4,pp=1,dp=1,pcp=2,dcp=4", (1, 8), DropReason.CONTEXT_PARALLEL, "allowed are 1, 2 and 8"),
    (DEEPSEEK, "tp=8,pp=1,dp=1,dcp=3", (1, 8), DropReason.CONTEXT_PARALLEL, "tp=8 does not divide by dcp=3"),
    (DEEPSEEK, "tp=8,pp=1,dp=1,dcp=8", (1, 8), None, None),
    (LLAMA_8B, "tp=8,pp=1,dp=1,dcp=2", (1, 8), DropReason.CONTEXT_PARALLEL, "tp of at least 2 × 8 KV heads"),
    (LLAMA_8B, "tp=16,pp=1,dp=1,dcp=2,executor=ray", (2, 8), None, None),
    (LLAMA_8B, "tp=16,pp=1,dp=1,dcp=4,executor=ray", (2, 8), DropReason.CONTEXT_PARALLEL, "at least 4 × 8 KV heads"),
    (GROUPS_OF_3, "tp=48,pp=1,dp=1,dcp=2,executor=ray", (6, 8), DropReason.CONTEXT_PARALLEL, "3 query heads per KV"),
    (GROUPS_OF_6, "tp=48,pp=1,dp=1,dcp=2,executor=ray", (6, 8), None, None),
]  # fmt: skip
EXECUTOR = [
    (LLAMA_8B, "tp=2,pp=1,dp=1,executor=uni", (1, 8), DropReason.EXECUTOR, "uni runs 1 rank, the replica has 2"),
    (LLAMA_8B, "tp=1,pp=1,dp=4,executor=uni", (1, 8), None, None),
    (LLAMA_8B, "tp=8,pp=2,dp=1", (2, 8), DropReason.EXECUTOR, "executor mp stays in a node of 8, needs 16"),
    (LLAMA_8B, "tp=8,pp=2,dp=1,executor=ray", (2, 8), None, None),
    (MIXTRAL, "tp=2,pp=1,dp=4,ep=true", (1, 8), DropReason.EXECUTOR, "mp does not share experts over dp=4 replicas"),
    (MIXTRAL, "tp=1,pp=1,dp=4,ep=true,executor=uni", (1, 8), DropReason.EXECUTOR, "uni does not share experts"),
    (MIXTRAL, "tp=2,pp=1,dp=4,ep=true,front=vllm", (1, 8), None, None),  # ranks of vLLM's own server
    (LLAMA_8B, "tp=2,pp=1,dp=4,front=vllm,api_servers=4", (1, 8), None, None),
    (LLAMA_8B, "tp=2,pp=1,dp=1,front=vllm,executor=ray", (1, 8), DropReason.FRONT, "executor mp or uni"),
    (LLAMA_8B, "tp=4,pp=1,dp=4,front=vllm", (2, 8), DropReason.FRONT, "a server of one node of 8, needs 16"),
    (LLAMA_8B, "tp=1,pp=1,dp=1,front=ray_direct,executor=uni", (1, 8), DropReason.FRONT, "mp or ray, not uni"),
    (LLAMA_8B, "tp=1,pp=1,dp=1,executor=uni", (1, 8), None, None),
    (MIXTRAL, "tp=8,pp=1,dp=1,ep=true", (1, 8), None, None),
    (LLAMA_8B, "tp=8,pp=1,dp=2", (2, 8), None, None),  # each replica has a node to itself
]  # fmt: skip
SCHEDULER = [
    (
        LLAMA_8B,
        "tp=1,pp=1,dp=1,max_num_batched_tokens=128",
        (1, 8),
        DropReason.SCHEDULER,
        "=128 below max_num_seqs=256",
    ),
    (LLAMA_8B, "tp=1,pp=1,dp=1,max_num_batched_tokens=256", (1, 8), None, None),
]


@pytest.mark.parametrize(
    ("model", "layout", "size", "reason", "figure"),
    [*PLACEMENT, *HEADS, *SHARDS, *EXPERTS, *CONTEXT, *EXECUTOR, *SCHEDULER],
    ids=lambda value: getattr(value, "name", None) or str(value),
)
def test_rule(model, layout, size, reason, figure):
    drop = illegal(model, ParallelLayout.parse(layout), cluster(*size))
    if reason is None:
        assert drop is None
    else:
        assert drop is not None
        assert drop.reason is reason
        assert figure in drop.figure


GPT_OSS = load_model("openai/gpt-oss-120b")
NARROW = reshaped(LLAMA_8B, attention={"head_dim": 80}, name="heads of 80")


@pytest.mark.parametrize(
    ("gpu", "model", "figure"),
    [
        ("h100_sxm", LLAMA_8B, None),
        ("h100_sxm", NARROW, None),
        ("l40s", DEEPSEEK, None),
        ("generic", DEEPSEEK, None),  # nothing is known against it
        ("a100_sxm", LLAMA_8B, None),  # FlashInfer's kernels
        ("a100_sxm", NARROW, "needs compute capability 8.9, a100_sxm has 8.0, for heads of 80"),
        ("a100_sxm", DEEPSEEK, "for latent attention"),
        ("a100_40gb_sxm", GPT_OSS, "for attention with sinks"),
        ("cpu", LLAMA_8B, None),
        ("cpu", NARROW, "heads of multiples of 32, not 80"),
        ("cpu", DEEPSEEK, "latent attention (MLA) on a CPU"),
    ],
    ids=lambda value: getattr(value, "name", None) or str(value),
)
def test_an_fp8_cache_needs_a_kernel(gpu, model, figure):
    where = Cluster.from_spec(ClusterSpec(gpu=gpu, gpus_per_node=8))
    drop = illegal(model, ParallelLayout(kv_cache_dtype="fp8"), where)
    assert illegal(model, ParallelLayout(), where) is None
    if figure is None:
        assert drop is None
    else:
        assert drop is not None
        assert drop.reason is DropReason.KV_CACHE
        assert figure in drop.figure


@given(layout=LAYOUTS)
def test_a_legal_layout_stays_legal_in_a_larger_cluster(layout):
    if illegal(LLAMA_70B, layout, cluster(4)) is None:
        assert illegal(LLAMA_70B, layout, cluster(8)) is None


@given(
    tp=st.sampled_from([1, 2, 4, 8]),
    pp=st.integers(1, 4),
    dp=st.integers(1, 4),
    model=st.sampled_from([LLAMA_8B, LLAMA_70B]),
)
def test_what_every_node_can_hold_is_legal(tp, pp, dp, model):
    layout = ParallelLayout(tp=tp, pp=pp, dp=dp, executor="ray")
    assert illegal(model, layout, cluster(16)) is None


def test_a_device_without_profile_is_refused_with_how_to_make_one():
    with pytest.raises(BadInput, match="for another device copy"):
        Cluster.from_spec(ClusterSpec(gpu="h800", gpus_per_node=8))
