"""Bytes are what the checkpoint holds: every format is read where it stands, module by module, or refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ask.formats.weights import Scheme, WeightFormat
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import from_config, load_model
from tuner.cost.stored import weight_bytes
from tuner.errors import BadInput

CASES = Path(__file__).parents[1] / "data" / "cases"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 4,
    "hidden_size": 1024,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 4096,
    "vocab_size": 32000,
    "torch_dtype": "bfloat16",
}
MOE = LLAMA | {
    "architectures": ["Qwen2MoeForCausalLM"],
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 1024,
    "mlp_only_layers": [0],
}
LATENT = {"kv_lora_rank": 64, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
BLOCKS = FP8 | {"weight_block_size": [128, 128]}


def group(targets=("Linear",), acts=None, **weights):
    return {"targets": list(targets), "weights": weights, "input_activations": acts}


def compressed(*groups, **more):
    named = {f"group_{i}": one for i, one in enumerate(groups)}
    return {"quant_method": "compressed-tensors", "config_groups": named, "ignore": ["lm_head"]} | more


def read(quantization, config=None):
    return from_config((config or LLAMA) | {"quantization_config": quantization}, "m").weights


INT8, FLOAT8, FLOAT4 = ({"type": kind, "num_bits": bits} for kind, bits in (("int", 8), ("float", 8), ("float", 4)))
PACKED = {"type": "int", "num_bits": 4, "strategy": "group", "group_size": 128}
NV4 = {**FLOAT4, "group_size": 16}


@pytest.mark.parametrize(
    ("quantization", "kind", "bits_per_weight"),
    [
        (AWQ, "int4", 4 + (16 + 4) / 128),
        (AWQ | {"group_size": 64}, "int4", 4 + (16 + 4) / 64),
        (AWQ | {"zero_point": False}, "int4", 4 + 16 / 128),
        ({"quant_method": "AWQ", "w_bit": 4, "q_group_size": 128, "zero_point": True}, "int4", 4 + 20 / 128),
        (GPTQ, "int4", 4 + 20 / 128 + 32 / 4096),  # a zero point and an index stand in every checkpoint
        (GPTQ | {"group_size": -1}, "int4", 4 + 20 / 1024 + 32 / 4096),
        (GPTQ | {"bits": 8, "quant_method": "gptq_marlin"}, "int8_wo", 8 + 24 / 128 + 32 / 4096),
        (GPTQ | {"quant_method": "auto-round"}, "int4", 4 + 20 / 128 + 32 / 4096),
        (AWQ | {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq"}, "int4", 4 + 20 / 128),
        (FP8, "fp8", 8),
        (BLOCKS, "fp8_block", 8 + 32 / 128**2),
        ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, "fp8", 8 + 32 / 1024),
        (compressed(group(**PACKED), format="pack-quantized"), "int4", 4 + 16 / 128),
        (compressed(group(**PACKED | {"symmetric": False}), format="pack-quantized"), "int4", 4 + 20 / 128),
        (compressed(group(**PACKED | {"actorder": "group"})), "int4", 4 + 16 / 128 + 32 / 4096),
        (compressed(group(**PACKED | {"actorder": "weight"})), "int4", 4 + 16 / 128),
        (compressed(group(**INT8, strategy="channel")), "int8_wo", 8 + 16 / 1024),
        (compressed(group(**INT8, strategy="channel", acts=INT8)), "int8", 8 + 32 / 1024),
        (compressed(group(**FLOAT8, strategy="channel", acts=FLOAT8)), "fp8", 8 + 32 / 1024),
        (compressed(group(**FLOAT8, strategy="tensor", acts=FLOAT8)), "fp8", 8),
        (compressed(group(**FLOAT8)), "fp8_wo", 8),
        (compressed(group(**FLOAT8, strategy="block", acts=FLOAT8)), "fp8_block", 8 + 32 / 128**2),
        (compressed(group(**FLOAT8, group_size=32, acts=FLOAT8)), "mxfp8", 8 + 8 / 32),
        (compressed(group(**NV4, strategy="tensor_group", acts=NV4)), "nvfp4", 4 + 8 / 16),
        (compressed(group(**NV4)), "nvfp4_wo", 4 + 8 / 16),
        (compressed(group(**FLOAT4, strategy="group", group_size=32)), "mxfp4", 4 + 8 / 32),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8", 8),
        ({"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}, "fp8", 8 + 32 / 1024),
        ({"quant_method": "modelopt", "quant_algo": "fp8_pb_wo"}, "fp8_block", 8 + 32 / 128**2),
        ({"quant_method": "modelopt_fp4", "quant_algo": "NVFP4", "group_size": 16}, "nvfp4", 4 + 8 / 16),
        ({"quant_algo": "W4A16_NVFP4"}, "nvfp4_wo", 4 + 8 / 16),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "MXFP8"}}, "mxfp8", 8 + 8 / 32),
    ],
)  # fmt: skip
def test_a_format_by_its_bits(quantization, kind, bits_per_weight):
    dense = read(quantization).dense
    assert dense.main.kind == kind
    assert dense.bytes(4096, 1024) * 8 / (4096 * 1024) == pytest.approx(bits_per_weight, rel=2e-5)


@given(
    outputs=st.integers(1, 40),
    inputs=st.integers(1, 300),
    bits=st.sampled_from([4, 8]),
    block=st.tuples(st.sampled_from([0, 1, 16]), st.sampled_from([0, 1, 16, 32, 128])),
    scale_bytes=st.sampled_from([1, 2, 4]),
    zero_bits=st.sampled_from([0, 4, 8]),
    index_bytes=st.sampled_from([0, 4]),
)
def test_bytes_are_those_of_the_arrays_of_a_checkpoint(
    outputs, inputs, bits, block, scale_bytes, zero_bits, index_bytes
):
    """Against arrays that are made and measured: values and zero points packed, a scale for each block of a mask."""
    rows, columns = block[0] or outputs, block[1] or inputs
    blocks = {(i // rows, j // columns) for i in range(outputs) for j in range(inputs)}
    values = np.zeros(outputs * inputs * bits, dtype=bool)  # bit by bit
    scales, zeros = np.zeros((len(blocks), scale_bytes), np.int8), np.zeros(len(blocks) * zero_bits, dtype=bool)
    index = np.zeros((inputs, index_bytes), np.int8)
    held = values.size / 8 + scales.nbytes + zeros.size / 8 + index.nbytes
    one = WeightFormat("int4", Scheme.PACKED, bits, block, scale_bytes, zero_bits, index_bytes)
    assert one.bytes(outputs, inputs) == pytest.approx(held)


def kinds(weights):
    return tuple(
        one.main.kind for one in (weights.attention, weights.dense, weights.shared, weights.experts, weights.head)
    )


NAMED = group(["re:.*self_attn.*"], **FLOAT8, strategy="channel", acts=FLOAT8)
MIXED_LAYERS = {
    "model.layers.0.self_attn.qkv_proj": {"quant_algo": "FP8"},
    "model.layers.0.mlp.experts": {"quant_algo": "NVFP4", "group_size": 16},
    "lm_head": {"quant_algo": "FP8"},
}


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (AWQ, ("int4", "int4", "int4", "int4", "bf16")),
        (AWQ | {"lm_head": True}, ("int4", "int4", "int4", "int4", "int4")),
        (AWQ | {"modules_to_not_convert": ["self_attn"]}, ("bf16", "int4", "int4", "int4", "bf16")),
        (GPTQ | {"lm_head": True}, ("int4", "int4", "int4", "int4", "int4")),
        (GPTQ | {"dynamic": {r"-:.*shared_expert.*": {}}}, ("int4", "int4", "bf16", "int4", "bf16")),
        (GPTQ | {"dynamic": {r"+:.*self_attn.*": {"bits": 8}}}, ("int8_wo", "int4", "int4", "int4", "bf16")),
        (GPTQ | {"modules_in_block_to_quantize": [["mlp.experts"]]}, ("bf16", "bf16", "bf16", "int4", "bf16")),
        (BLOCKS, ("fp8_block",) * 4 + ("bf16",)),
        (FP8 | {"modules_to_not_convert": ["mlp.shared_expert", "gate"]}, ("fp8", "fp8", "bf16", "fp8", "bf16")),
        ({"quant_method": "mxfp4"}, ("bf16", "bf16", "bf16", "mxfp4", "bf16")),
        (compressed(group(**PACKED)), ("int4", "int4", "int4", "int4", "bf16")),
        (compressed(NAMED, group(**PACKED)), ("fp8", "int4", "int4", "int4", "bf16")),
        (compressed(group(**PACKED), NAMED), ("fp8", "int4", "int4", "int4", "bf16")),  # a name goes before a class
        (compressed(group(["re:.*experts.*"], **PACKED)), ("bf16", "bf16", "bf16", "int4", "bf16")),
        (compressed(group(["Linear", "lm_head"], **PACKED), ignore=[]), ("int4",) * 5),
        (compressed(group(**PACKED), group(["LlamaAttention"], **FLOAT8)), ("int4", "int4", "int4", "int4", "bf16")),
        (compressed(group(**PACKED), ignore=["re:.*self_attn.*", "lm_head"]), ("bf16", "int4", "int4", "int4", "bf16")),
        ({"quant_algo": "FP8"}, ("fp8",) * 5),  # ModelOpt quantises the LM head unless it is excluded
        ({"quant_algo": "NVFP4", "ignore": ["lm_head", "*self_attn*"]}, ("bf16", "nvfp4", "nvfp4", "nvfp4", "bf16")),
        ({"quant_algo": "MIXED_PRECISION", "quantized_layers": MIXED_LAYERS}, ("bf16", "bf16", "bf16", "bf16", "fp8")),
    ],
)  # fmt: skip
def test_each_kind_of_layer_has_its_own_format(quantization, expected):
    assert kinds(read(quantization, MOE | {"mlp_only_layers": [3]})) == expected


def test_layers_that_are_left_out_are_counted_with_their_share():
    left_out = read(BLOCKS | {"modules_to_not_convert": ["model.layers.1.mlp", "model.layers.1.self_attn"]})
    assert [(one.kind, share) for one, share in left_out.dense.parts] == [("fp8_block", 0.75), ("bf16", 0.25)]
    half = read(BLOCKS | {"modules_to_not_convert": ["down_proj"]}).dense
    assert {one.kind: share for one, share in half.parts}["bf16"] == pytest.approx(1 / 3)


def test_a_wrapped_model_is_found_under_its_prefix():
    """Kimi's lists name ``language_model.model.layers``, which is where its text model sits."""
    wrapped = {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "text_config": LLAMA | LATENT | {"first_k_dense_replace": 4},
        "quantization_config": {"quant_algo": "NVFP4", "ignore": ["language_model.model.layers.0*", "re:.*lm_head"]},
    }
    weights = from_config(wrapped, "m").weights
    assert [(one.kind, share) for one, share in weights.dense.parts] == [("nvfp4", 0.75), ("bf16", 0.25)]
    assert weights.head.main.kind == "bf16"


@pytest.mark.parametrize(
    ("place", "values"),
    [
        ("quantization_config", {"quantization_config": AWQ}),
        ("compression_config", {"compression_config": compressed(group(**PACKED))}),
        ("text_config", {"text_config": LLAMA | {"quantization_config": AWQ}}),
        ("text_config", {"text_config": LLAMA | {"compression_config": compressed(group(**PACKED))}}),
    ],
)
def test_every_place_that_the_engine_looks_at(place, values):
    assert from_config(LLAMA | values, "m").linear_dtype == "int4"


def test_what_stands_beside_the_config_counts_where_it_says_nothing(tmp_path):
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside))
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert load_model(str(tmp_path)).linear_dtype == "fp8"
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": AWQ}))
    assert load_model(str(tmp_path)).linear_dtype == "int4"
    (tmp_path / "hf_quant_config.json").write_text("{")
    assert load_model(str(tmp_path)).linear_dtype == "int4"
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    with pytest.raises(BadInput, match=r"hf_quant_config\.json"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("quantization", "where", "named"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quant_method", "bitsandbytes"),
        ({"quant_method": "torchao"}, "quant_method", "torchao"),
        ({"quant_method": "experts_int8"}, "quant_method", "experts_int8"),
        ({"load_in_8bit": True}, "quant_method", "None"),
        (AWQ | {"bits": 8}, "bits", "8"),
        (GPTQ | {"sym": False}, "sym", "False"),
        (GPTQ | {"bits": 3}, "bits", "3"),
        (GPTQ | {"group_size": 16}, "group_size", "16"),
        (GPTQ | {"group_size": 0}, "group_size", "0"),
        (GPTQ | {"dynamic": {"+:(": {"bits": 8}}}, "dynamic.+:(", r"\("),
        (AWQ | {"quant_method": "auto-round", "data_type": "mx_fp"}, "data_type", "mx_fp"),
        (FP8 | {"weight_block_size": [128]}, "weight_block_size", "128"),
        (FP8 | {"store_dtype": "mxfp4"}, "store_dtype", "mxfp4"),
        (compressed(), "config_groups", "{}"),
        (compressed(group(type="int", num_bits=3, strategy="channel")), "config_groups.group_0.weights", "int3"),
        (compressed(group(**PACKED, acts=INT8)), "config_groups.group_0.weights", "activations of 8 bits"),
        (compressed(group(**PACKED), ignore=["re:("]), "ignore", r"\("),
        (compressed(group(**FLOAT8), kv_cache_scheme={"type": "int", "num_bits": 8}), "kv_cache_scheme", "int8"),
        (
            compressed(group(**FLOAT8), kv_cache_scheme=FLOAT8 | {"strategy": "token"}),
            "kv_cache_scheme",
            "float8 token",
        ),
        (compressed(group(**FLOAT8), kv_cache_scheme=FLOAT8 | {"symmetric": False}), "kv_cache_scheme", "asymmetric"),
        (compressed(group(**FLOAT8), sparsity_config={"targets": ["Linear"]}), "sparsity_config.targets", "Linear"),
        ({"quant_algo": "FP6"}, "quant_algo", "FP6"),
        ({"quant_algo": "NVFP4", "group_size": 32}, "group_size", "32"),
        ({"quant_algo": "MIXED_PRECISION"}, "quantized_layers", "None"),
        ({"quant_algo": "FP8", "kv_cache_quant_algo": "NVFP4"}, "kv_cache_quant_algo", "NVFP4"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(quantization, where, named):
    with pytest.raises(BadInput, match=named) as caught:
        read(quantization)
    assert caught.value.where == f"m: quantization_config.{where}"


@pytest.mark.parametrize("algorithm", ["FP8_PER_CHANNEL_PER_TOKEN", "MIXED_PRECISION", "INT4_AWQ"])
def test_one_module_has_an_algorithm_that_the_engine_mixes(algorithm):
    with pytest.raises(BadInput, match=algorithm) as caught:
        read({"quant_algo": "MIXED_PRECISION", "quantized_layers": {"lm_head": {"quant_algo": algorithm}}})
    assert caught.value.where == "m: quantization_config.quantized_layers.lm_head.quant_algo"
    assert caught.value.allowed == "FP8, FP8_PB_WO, NVFP4, W4A16_NVFP4, MXFP8"


@pytest.mark.parametrize(
    "quantization",
    [
        AWQ | {"modules_to_not_convert": ["q_proj"]},
        GPTQ | {"dynamic": {r"-:.*gate_proj.*": {}}},
        BLOCKS | {"modules_to_not_convert": ["model.layers.1.mlp.gate_proj"]},
        compressed(group(["re:.*q_proj"], **PACKED), group(**FLOAT8)),
        compressed(group(**FLOAT8), ignore=["re:.*k_proj"]),
        {"quant_algo": "NVFP4", "ignore": ["lm_head", "*k_proj"]},
        {
            "quant_algo": "MIXED_PRECISION",
            "quantized_layers": {f"model.layers.0.self_attn.{x}_proj": {"quant_algo": "FP8"} for x in "qk"},
        },
    ],
)
def test_what_the_engine_merges_has_one_format(quantization):
    with pytest.raises(BadInput, match=r"merges into (qkv|gate_up)_proj") as caught:
        read(quantization)
    assert caught.value.where == "m: quantization_config"


FP8_KV = {"type": "float", "num_bits": 8, "dynamic": False, "strategy": "tensor", "symmetric": True}


@pytest.mark.parametrize(
    ("quantization", "plain", "latent"),
    [
        (compressed(group(**FLOAT8), kv_cache_scheme=FP8_KV), "fp8", "auto"),  # mla_attention.py does not look at it
        (compressed(group(**FLOAT8), kv_cache_scheme=None), "auto", "auto"),
        ({"quant_algo": "FP8", "kv_cache_scheme": FP8_KV}, "fp8", "fp8"),
        ({"quant_algo": "FP8", "kv_cache_scheme": "FP8"}, "fp8", "fp8"),
        ({"quant_algo": "FP8", "kv_cache_scheme": FP8_KV | {"dynamic": True}}, "auto", "auto"),
        ({"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}, "fp8", "fp8"),
        ({"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}}, "auto", "auto"),
        ({"quant_algo": "FP8", "kv_cache_quant_algo": "INT8"}, "auto", "auto"),  # the engine warns, and keeps auto
        (BLOCKS | {"kv_cache_scheme": FP8_KV}, "auto", "auto"),  # method fp8 has no such key
    ],
)
def test_what_the_engine_makes_of_an_automatic_cache(quantization, plain, latent):
    latent_model = LLAMA | LATENT | {"architectures": ["DeepseekV3ForCausalLM"]}
    found = [
        from_config(config | {"quantization_config": quantization}, "m").kv_cache for config in (LLAMA, latent_model)
    ]
    assert found == [plain, latent]


# Sizes of published checkpoints in GB (10^9 bytes), as Hugging Face shows them: registry entries and cases.
@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("openai/gpt-oss-120b", 65.2),
        ("moonshotai/Kimi-K2.5", 594),
        ("Qwen/Qwen3-235B-A22B-FP8", 236.4),
        (str(CASES / "fp8_block_moe_legal_qwen3_30b_fp8_tp4" / "model"), 31.2),
        (str(CASES / "modelopt_fp8_hf_quant_config" / "model"), 72.7),
    ],
)
def test_published_sizes(name, gigabytes):
    assert weight_bytes(load_model(name), ParallelLayout(), 0) / 1e9 == pytest.approx(gigabytes, rel=2e-3)


KEYS = st.sampled_from(["type", "num_bits", "strategy", "group_size", "symmetric"])
VALUES = ["int", "float", "group", "channel", "tensor", "block", 2, 4, 8, 16, 32, 128, -1, None, True]
TARGETS = st.lists(st.sampled_from(["Linear", "re:.*mlp.*", "lm_head", "", 3]), max_size=2)
GROUPS = st.fixed_dictionaries(
    {"weights": st.dictionaries(KEYS, st.sampled_from(VALUES))}, optional={"targets": TARGETS}
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from("abc"), GROUPS, max_size=3), st.lists(st.text(max_size=4), max_size=3))
def test_any_groups_are_read_or_refused_at_their_place(groups, ignore):
    where, held = "", 0.0
    try:
        weights = read({"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ignore})
    except BadInput as error:
        where = error.where
    else:
        held = weights.dense.bytes(64, 128)
    assert where.startswith("m: quantization_config") or 0 < held <= 2 * 64 * 128 * 1.1
