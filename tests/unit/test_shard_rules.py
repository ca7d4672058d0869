"""Weights that share a scale stay together: each format's rule as vLLM has it, by kind of layer, with its figure."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_weight_formats import AWQ, BLOCKS, CASES, FLOAT8, GPTQ, LLAMA, MOE, NV4, PACKED, compressed, group
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import from_config, load_model
from tuner.ask.models.matrices import Cut, Layer, Matrix
from tuner.ask.registry import known_config
from tuner.ask.rules import DropReason, engine_refuses
from tuner.ask.shard_rules import straddling

WIDE = LLAMA | {"hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 29568}
QWEN_MOE = MOE | {
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "moe_intermediate_size": 768,
    "shared_expert_intermediate_size": 5632,
    "intermediate_size": 6144,
}


def model(quantization, config=WIDE, **changes):
    return from_config(config | changes | {"quantization_config": quantization}, "m")


def refused(model, layout):
    drop = engine_refuses(model, ParallelLayout.parse(layout))
    return drop and (drop.reason, drop.figure)


WIDTH, HEADS = DropReason.MLP_WIDTH, DropReason.HEADS
CT_INT = compressed(group(**PACKED), format="pack-quantized")
NVFP4 = compressed(group(**NV4))
CT_BLOCK = compressed(group(**FLOAT8, strategy="block", acts=FLOAT8))
WIDER = {"intermediate_size": 29696}  # as the published AWQ checkpoint was widened
BY_ORDER = GPTQ | {"desc_act": True}
DENSE = [
    # quantization, changes of the config, tp, reason and figure or None
    (AWQ, {}, 1, None),
    (AWQ, {}, 2, (WIDTH, "MLP width 29568 does not divide by tp=2 in groups of 128 (AWQ)")),
    (AWQ, WIDER, 8, None),
    (AWQ | {"group_size": 64}, {}, 2, None),  # 462 groups
    (AWQ | {"group_size": 64}, {}, 4, (WIDTH, "MLP width 29568 does not divide by tp=4 in groups of 64 (AWQ)")),
    (AWQ | {"group_size": -1}, {}, 8, None),
    (GPTQ, {}, 2, (WIDTH, "MLP width 29568 does not divide by tp=2 in groups of 128 (GPTQ)")),
    (GPTQ | {"group_size": 32}, {}, 4, None),
    (BY_ORDER, WIDER, 4, None),
    (BY_ORDER | {"group_size": 32}, {}, 4, (WIDTH, "MLP width 29568 does not divide by tp=4 in groups of 128 (GPTQ)")),
    (BY_ORDER | {"group_size": 32}, {}, 8, (WIDTH, "MLP width 29568 does not divide by tp=8 in multiples of 64")),
    (BY_ORDER | {"group_size": -1}, {}, 4, None),  # one group has no order
    (CT_INT, {}, 2, (WIDTH, "MLP width 29568 does not divide by tp=2 in groups of 128 (compressed-tensors)")),
    (BLOCKS, {}, 2, (WIDTH, "MLP width 29568 does not divide by tp=2 in blocks of 128 (block fp8)")),
    (BLOCKS, {"intermediate_size": 29600}, 1, (WIDTH, "MLP width 29600 does not divide in blocks of 128")),
    (BLOCKS, {"head_dim": 64}, 8, (HEADS, "attention outputs 512 does not divide by tp=8 in blocks of 128")),
    (BLOCKS, {"head_dim": 64, "intermediate_size": 32768}, 4, None),
    (CT_BLOCK, {}, 2, (WIDTH, "MLP width 29568 does not divide by tp=2 in blocks of 128 (block fp8 of compressed-te")),
    ({"quant_algo": "FP8_PB_WO"}, {}, 2, (WIDTH, "MLP width 29568 does not divide by tp=2 in groups of 128")),
    ({"quant_algo": "NVFP4"}, {}, 8, None),  # 3696 = 231 groups of 16
    (
        {"quant_algo": "NVFP4"},
        {"intermediate_size": 29576},
        2,
        (WIDTH, "29576 does not divide by tp=2 in groups of 16"),
    ),
    ({"quant_algo": "MXFP8"}, {}, 8, (WIDTH, "MLP width 29568 does not divide by tp=8 in groups of 32 (MXFP8)")),
    ({"quant_algo": "FP8"}, {}, 8, None),
    (AWQ, {"hidden_size": 8256, "head_dim": 128}, 1, (HEADS, "input width 8256 does not divide in groups of 128")),
    (AWQ, {"head_dim": 96}, 64, (HEADS, "attention width 6144 does not divide by tp=64 in groups of 128 (AWQ)")),
]


@pytest.mark.parametrize(("quantization", "changes", "tp", "expected"), DENSE)
def test_dense_layers(quantization, changes, tp, expected):
    agrees(refused(model(quantization, **changes), f"tp={tp}"), expected)


ALONE = {"shared_expert_intermediate_size": 0}
CUT_128 = (WIDTH, "expert width 768 does not divide by tp=4 in groups of 128")
NO_DIVISOR = "in blocks of 128, nor of a divisor of at least 32 (block fp8)"
EXPERTS = [
    (BLOCKS, {}, "tp=4", None),
    (BLOCKS, {}, "tp=8", (WIDTH, "shared expert width 5632 does not divide by tp=8 in blocks of 128 (block fp8)")),
    (BLOCKS, ALONE, "tp=8", None),
    (BLOCKS, ALONE | {"moe_intermediate_size": 800}, "tp=4", (WIDTH, f"800 does not divide by tp=4 {NO_DIVISOR}")),
    (BLOCKS, {"moe_intermediate_size": 800}, "tp=4,ep=true", None),  # whole: 32 divides 800
    (BLOCKS, {"moe_intermediate_size": 808}, "tp=4,ep=true", (WIDTH, f"expert width 808 does not divide {NO_DIVISOR}")),
    (CT_BLOCK, ALONE, "tp=2", None),
    (CT_BLOCK, ALONE, "tp=4", CUT_128),
    (GPTQ, ALONE, "tp=4", None),  # groups are halved to 64
    (BY_ORDER, ALONE, "tp=4", CUT_128),
    (AWQ, ALONE | {"moe_intermediate_size": 704}, "tp=4", (WIDTH, "704 does not divide by tp=4 in groups of 32 (AWQ)")),
    (CT_INT, ALONE, "tp=4", CUT_128),
    (CT_INT, ALONE, "tp=4,ep=true", None),
    (NVFP4, ALONE | {"moe_intermediate_size": 776}, "tp=1", (WIDTH, "776 does not divide in groups of 16 (NVFP4)")),
    ({"quant_method": "mxfp4"}, {"moe_intermediate_size": 720}, "tp=4", None),  # padded
]  # fmt: skip


@pytest.mark.parametrize(("quantization", "changes", "layout", "expected"), EXPERTS)
def test_routed_and_shared_experts(quantization, changes, layout, expected):
    agrees(refused(model(quantization, QWEN_MOE, mlp_only_layers=[], **changes), layout), expected)


def agrees(found, expected):
    """The same reason, and the expected words in the figure; or neither."""
    assert (found is None) == (expected is None), found
    if expected:
        assert found[0] is expected[0]
        assert expected[1] in found[1]


def test_a_quantised_lm_head_is_cut_in_whole_words():
    odd = replace(model(AWQ | {"lm_head": True}, intermediate_size=32768), vocab=64 * 63)
    assert refused(odd, "tp=8") is None  # 504 outputs: 63 words
    assert refused(odd, "tp=16") == (WIDTH, "vocabulary rows 4032 does not divide by tp=16 in multiples of 8 (AWQ)")


def test_the_case_of_block_fp8_experts():
    qwen = load_model(str(CASES / "fp8_block_moe_legal_qwen3_30b_fp8_tp4" / "model"))
    assert [refused(qwen, f"tp={tp}") for tp in (1, 2, 4, 8)] == [None] * 4  # 768/8 = 96: blocks of 32
    assert refused(qwen, "tp=16") is not None  # 48: 16 is too fine


def vllm_dense(group, width, tp, hidden):
    """``check_marlin_supports_layer`` with padding, and where that fails what ``BaseAWQLinearMethod`` raises at."""
    for inputs, whole in ((hidden, hidden), (width // tp, width)):
        marlin = group == -1 or group >= whole or inputs % group == 0
        if not marlin and inputs % (whole if group == -1 else group) != 0:
            return False
    return True


def vllm_wna16_experts(group, width, hidden):
    """``check_moe_marlin_supports_config`` with padding, else the loop of ``MoeWNA16Method.create_weights``."""
    if hidden % 128 == 0 and width % group == 0 and group in (32, 64, 128):
        return True
    while width % group or hidden % group:
        group = group // 2
        if group < 32:
            return False
    return True


def vllm_block_experts(block, width, tp, hidden):
    """``refine_fp8_moe_block_shape``, then the checks of ``Fp8MoEMethod.create_weights``."""
    if width % block == 0 and (tp == 1 or width % block == 0):
        return True
    return math.gcd(block, block, width, hidden) >= 32


@given(ranks=st.integers(1, 300), each=st.integers(1, 300))
def test_shards_are_whole_where_sides_divide(ranks, each):
    whole = Matrix(Layer.DENSE, ("p",), ranks * each, ranks * each, Cut.OUTPUTS)
    assert whole.shard(ranks) == (each, ranks * each)
    assert replace(whole, cut=Cut.INPUTS).shard(ranks) == (ranks * each, each)
    assert replace(whole, most=1).shard(ranks) == replace(whole, cut=Cut.NOTHING).shard(ranks) == (ranks * each,) * 2


UNITS = st.integers(1, 300)


@given(group=st.sampled_from([-1, 32, 64, 128]), units=UNITS, hidden=UNITS, tp=st.sampled_from([1, 2, 4, 8]))
def test_awq_is_refused_where_the_engine_refuses_it(group, units, hidden, tp):
    sizes = {"intermediate_size": 64 * units, "hidden_size": 64 * hidden, "head_dim": 128}
    found = straddling(model(AWQ | {"group_size": group}, **sizes), tp, False)
    assert (found is None) == vllm_dense(group, 64 * units, tp, 64 * hidden)


@given(group=st.sampled_from([32, 64, 128]), units=UNITS, hidden=UNITS, tp=st.sampled_from([1, 2, 4, 8]))
def test_experts_of_gptq_are_refused_where_the_engine_refuses_them(group, units, hidden, tp):
    sizes = {"moe_intermediate_size": 8 * units, "hidden_size": 128 * hidden, "shared_expert_intermediate_size": 0}
    found = straddling(model(GPTQ | {"group_size": group}, QWEN_MOE, mlp_only_layers=[], **sizes), tp, False)
    assert (found is None) == vllm_wna16_experts(group, 8 * units // tp, 128 * hidden)


@given(block=st.sampled_from([64, 128]), units=UNITS, hidden=UNITS, tp=st.sampled_from([1, 2, 4, 8]))
def test_experts_of_block_fp8_are_refused_where_the_engine_refuses_them(block, units, hidden, tp):
    sizes = {"moe_intermediate_size": 8 * units, "hidden_size": 128 * hidden, "shared_expert_intermediate_size": 0}
    blocks = BLOCKS | {"weight_block_size": [block, block]}
    found = straddling(model(blocks, QWEN_MOE, mlp_only_layers=[], **sizes), tp, False)
    assert (found is None) == vllm_block_experts(block, 8 * units // tp, tp, 128 * hidden)


@given(units=UNITS, tp=st.sampled_from([1, 2, 4, 8]), quantization=st.sampled_from([AWQ, GPTQ, BLOCKS, CT_INT]))
def test_whole_experts_ask_nothing_of_tensor_parallelism(units, tp, quantization):
    sizes = {"moe_intermediate_size": 32 * units, "shared_expert_intermediate_size": 0}
    moe = model(quantization, QWEN_MOE, mlp_only_layers=[], **sizes)
    assert straddling(moe, tp, True) == straddling(moe, 1, True)


def test_a_matrix_that_is_not_quantised_has_no_blocks():
    """As the published fp8 checkpoint of Qwen3-Next leaves the delta nets' gates, 64 wide, in bfloat16."""
    config = known_config("Qwen/Qwen3-Next-80B-A3B-Instruct")
    gates = [f"model.layers.{layer}.linear_attn.in_proj_ba" for layer in range(config["num_hidden_layers"])]
    assert straddling(model(BLOCKS | {"modules_to_not_convert": gates}, config), 4, False) is None
    one_layer = straddling(model(BLOCKS | {"modules_to_not_convert": gates[1:]}, config), 4, False)
    assert one_layer is not None
    assert "linear attention width 64 does not divide by tp=4" in one_layer.figure


def test_a_format_is_asked_of_its_own_matrices():
    """Integers in groups of 128 in what goes into the MLP, blocks of 96 in what comes out of it, 96 × 8 wide."""
    ups = group(targets=["re:.*gate_proj", "re:.*up_proj", "re:.*self_attn.*"], **PACKED)
    downs = group(targets=["re:.*down_proj"], **FLOAT8, strategy="block", block_structure=[96, 96], acts=FLOAT8)
    assert straddling(model(compressed(ups, downs), intermediate_size=768), 8, False) is None
    both = group(**PACKED)
    found = straddling(model(compressed(both), intermediate_size=768), 8, False)
    assert found is not None
    assert "MLP width 768 does not divide by tp=8 in groups of 128" in found.figure
