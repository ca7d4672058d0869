"""Checkpoints as people bring them, planned as a whole: what fits, what is dropped with which figure, or refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from tests.shapes import reshaped
from tests.unit.test_shard_rules import QWEN_MOE
from tests.unit.test_weight_formats import AWQ, BLOCKS, CASES, FLOAT8, GPTQ, LLAMA, compressed, group
from tuner.app.simulate import SimulateOptions, simulate_answer
from tuner.app.wiring import memories, plan_request, why_infeasible
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import from_config
from tuner.ask.request import ClusterSpec
from tuner.ask.request_document import parse_request
from tuner.ask.rules import DropReason, illegal
from tuner.cost.latency import StepCosts, StepShape
from tuner.cost.memory import GIB
from tuner.cost.transfer import kv_transfer_bytes
from tuner.errors import BadInput
from tuner.study.runner import StudyOrder

ONE = np.ones(1)


def request_of(case, name="request.yaml"):
    """The case's request, its model found wherever the tests run."""
    document = yaml.safe_load((CASES / case / name).read_text(encoding="utf-8"))
    if document["model"] == "model":
        document["model"] = str(CASES / case / "model")
    return parse_request(document)


def memory_of(request, layout="tp=1,pp=1,dp=1"):
    return memories(request, [ParallelLayout.parse(layout)])[ParallelLayout.parse(layout)]


@pytest.mark.parametrize(
    ("case", "weights_gib", "kv_bytes"),
    [
        ("modelopt_fp8_hf_quant_config", 67.7, 163_840),
        ("modelopt_inline_without_method", 31.9, 131_072),
        ("fp8_kv_scheme_in_checkpoint", 8.46, 65_536),
        ("float32_checkpoint_auto", 14.96, 131_072),
    ],
)
def test_what_a_checkpoint_takes_on_one_gpu(case, weights_gib, kv_bytes):
    request = request_of(case)
    found, _ = plan_request(request)
    assert str(found.ranked[0].layout) == "tp=1,pp=1,dp=1"
    memory = memory_of(request)
    assert memory.weights_bytes / GIB == pytest.approx(weights_gib, rel=2e-3)
    assert memory.kv_bytes_per_token == kv_bytes


def test_asking_for_bfloat16_changes_nothing_of_a_float32_checkpoint():
    requests = [request_of("float32_checkpoint_auto", name) for name in ("request.yaml", "request_bf16.yaml")]
    auto, asked = (plan_request(request)[0] for request in requests)
    assert auto.ranked == asked.ranked


def test_groups_of_awq_are_not_cut():
    found, _ = plan_request(request_of("awq_group_straddles_tp"))
    assert str(found.ranked[0].layout).startswith("tp=1,pp=2,dp=1")
    figures = {group.figure for group in found.dropped if group.reason is DropReason.MLP_WIDTH}
    assert figures == {f"MLP width 29568 does not divide by tp={tp} in groups of 128 (AWQ)" for tp in (2, 4, 8)}


def test_every_command_refuses_float32_alike():
    request, layout = request_of("engine_dtype_float32_ignored"), ParallelLayout()
    order = StudyOrder("refused", request, CASES)
    simulated, studied = (lambda asked: simulate_answer(asked, SimulateOptions(layout))), (lambda _: order.setting())
    for ask in (plan_request, simulated, studied, memory_of, why_infeasible):
        with pytest.raises(BadInput, match=r"engine\.dtype"):
            ask(request)


SCHEME = {"type": "float", "num_bits": 8, "strategy": "tensor", "symmetric": True}
QUANTIZATION = compressed(group(**FLOAT8, acts=FLOAT8), kv_cache_scheme=SCHEME)
FP8_CACHE = from_config(LLAMA | {"quantization_config": QUANTIZATION}, "m")


def test_the_checkpoints_cache_is_priced_as_if_the_layout_asked_for_it():
    h100 = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=8))
    plain, asked = replace(FP8_CACHE, kv_cache="auto"), ParallelLayout(kv_cache_dtype="fp8")
    step = StepShape("decode", ONE, 32_768 * ONE, 64 * ONE)
    ms = [
        float(StepCosts(model, h100).stages(layout, step)[0]["attention"][0])
        for model, layout in ((FP8_CACHE, ParallelLayout()), (plain, asked), (plain, ParallelLayout()))
    ]
    assert ms[0] == ms[1] < ms[2]
    sent = [kv_transfer_bytes(model, ParallelLayout(), 1000) for model in (FP8_CACHE, plain)]
    assert 2 * sent[0] == sent[1]


def test_a_device_that_cannot_read_the_checkpoints_cache_drops_it():
    a100 = Cluster.from_spec(ClusterSpec(gpu="a100_sxm", gpus_per_node=8))
    drop = illegal(reshaped(FP8_CACHE, attention={"head_dim": 96}), ParallelLayout(), a100)
    assert drop is not None
    assert drop.reason is DropReason.KV_CACHE
    assert "kv_cache_dtype=auto, fp8 as the checkpoint says, needs compute capability 8.9" in drop.figure
    assert illegal(FP8_CACHE, ParallelLayout(), a100) is None  # heads of 128: FlashInfer reads it


A100 = Cluster.from_spec(ClusterSpec(gpu="a100_sxm", gpus_per_node=8))
CORES = Cluster.from_spec(ClusterSpec(gpu="cpu", gpus_per_node=8))


@pytest.mark.parametrize(
    ("quantization", "tp", "cluster", "figure"),
    [
        (BLOCKS, 4, A100, "width 192 in refined blocks of fp8 by tp=4 needs compute capability 8.9, a100_sxm has 8.0"),
        (BLOCKS, 2, A100, None),  # Marlin widens whole blocks of 128
        (AWQ, 2, CORES, None),
        (AWQ | {"group_size": 16}, 8, CORES, "AWQ int4 weights on a CPU need sides of multiples of 32, not 720"),
        (GPTQ | {"bits": 8}, 1, CORES, "no kernel for GPTQ int8_wo weights on a CPU"),
        ({"quant_algo": "NVFP4"}, 1, CORES, "no kernel for NVFP4 nvfp4 weights on a CPU"),
        ({"quant_algo": "NVFP4"}, 1, A100, None),
        ({"quant_method": "mxfp4"}, 1, CORES, None),
    ],
)
def test_formats_without_a_kernel_on_the_device_are_dropped(quantization, tp, cluster, figure):
    config = QWEN_MOE | {"mlp_only_layers": [], "shared_expert_intermediate_size": 0}
    if cluster is CORES and tp == 8:
        config = LLAMA | {"hidden_size": 2048, "intermediate_size": 5760, "num_attention_heads": 16, "head_dim": 128}
    drop = illegal(from_config(config | {"quantization_config": quantization}, "m"), ParallelLayout(tp=tp), cluster)
    assert (drop is None) == (figure is None), drop
    if figure:
        assert drop.reason is DropReason.WEIGHT_FORMAT
        assert figure in drop.figure


def test_what_the_plan_refuses_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": {"quant_method": "hqq"}}))
    request = request_of("float32_checkpoint_auto").model_copy(update={"model": str(tmp_path)})
    with pytest.raises(BadInput, match=r"quantization_config\.quant_method: got 'hqq'"):
        plan_request(request)
