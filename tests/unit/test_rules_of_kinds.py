"""Context parallelism, fp8 caches and sparse kernels: what the engine takes of each kind of mixer."""

import pytest

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.models.attention import Attention
from tuner.ask.models.beside import Beside
from tuner.ask.models.blocks import Block
from tuner.ask.models.factorized import FactorizedAttention
from tuner.ask.models.recurrent import Mamba2
from tuner.ask.request import ClusterSpec
from tuner.ask.rules import DropReason, engine_refuses, illegal

MAMBA, NEXT = load_model("state-spaces/mamba-2.8b-hf"), load_model("Qwen/Qwen3-Next-80B-A3B-Instruct")
LINEAR, V4 = load_model("moonshotai/Kimi-Linear-48B-A3B-Instruct"), load_model("deepseek-ai/DeepSeek-V4-Flash")
SPARSE, EXPANDED = load_model("deepseek-ai/DeepSeek-V3.2"), load_model("openbmb/MiniCPM3-4B")
SPACE = Mamba2(heads=32, head_dim=64, groups=1, state_size=128, conv=4)


def of(mixer):
    return MAMBA.with_layers({Block(mixer=mixer): 4})


BESIDE = of(Beside(mixers=(Attention(heads=32, kv_heads=2, head_dim=80), SPACE)))
FACTORIZED = of(FactorizedAttention(heads=64, head_dim=256, rank=2048))


@pytest.mark.parametrize(
    ("model", "layout", "figure"),
    [
        (load_model("google/gemma-3-1b-it"), "tp=4,pp=1,dp=1,dcp=2", "layers that keep a window"),
        (V4, "tp=8,pp=1,dp=1,dcp=8", "layers that keep a window"),
        (MAMBA, "tp=4,pp=1,dp=1,dcp=2", "without attention"),
        (LINEAR, "tp=4,pp=1,dp=1,pcp=2", "a window or a state"),
        (EXPANDED, "tp=4,pp=1,dp=1,pcp=2", "needs latent attention"),
        (BESIDE, "tp=4,pp=1,dp=1,dcp=4", "at least 4 × 2 KV heads"),
        (LINEAR, "tp=4,pp=1,dp=1,dcp=4", None),  # states are on every rank
        (NEXT, "tp=8,pp=1,dp=1,dcp=4", None),
        (SPARSE, "tp=8,pp=1,dp=1,dcp=8", None),
        (BESIDE, "tp=4,pp=1,dp=1,dcp=2", None),
        (FACTORIZED, "tp=8,pp=1,dp=1,dcp=8", None),
    ],
)
def test_context_parallelism_divides_full_caches_alone(model, layout, figure):
    drop = engine_refuses(model, ParallelLayout.parse(layout))
    if figure is None:
        assert drop is None
    else:
        assert drop is not None
        assert (drop.reason, figure in drop.figure) == (DropReason.CONTEXT_PARALLEL, True)


def on(gpu, model, **axes):
    return illegal(model, ParallelLayout(**axes), Cluster.from_spec(ClusterSpec(gpu=gpu, gpus_per_node=8)))


@pytest.mark.parametrize(
    ("gpu", "model", "refused"),
    [("a100_sxm", MAMBA, False), ("a100_sxm", BESIDE, True), ("a100_sxm", EXPANDED, True), ("l40s", BESIDE, False)],
)
def test_an_fp8_cache_goes_by_the_heads_that_have_one(gpu, model, refused):
    drop = on(gpu, model, kv_cache_dtype="fp8")
    assert (drop is not None) is refused
    assert drop is None or "for heads of" in drop.figure


@pytest.mark.parametrize(
    ("gpu", "refused"),
    [("a100_sxm", True), ("l40s", True), ("cpu", True), ("h100_sxm", False), ("b300_sxm", False), ("generic", False)],
)
@pytest.mark.parametrize("model", [SPARSE, V4], ids=["indexed", "compressed"])
def test_kernels_over_chosen_tokens_are_of_some_generations(gpu, model, refused):
    drop = on(gpu, model)
    if refused:
        assert drop is not None
        assert drop.reason is DropReason.KV_CACHE
    else:
        assert drop is None or drop.reason is not DropReason.KV_CACHE
