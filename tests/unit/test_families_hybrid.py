"""Delta nets, state spaces and short convolutions, as vLLM 0.29's own classes count them (tests/data/models)."""

import json

import pytest

from tests.unit.described_models import ROOT, agrees, layers, parameters, read, refusal, state_bytes, token_bytes
from tuner.errors import BadInput

CASES = json.loads((ROOT / "hybrids.json").read_text())
BY_NAME = {case["name"]: case["config"] for case in CASES}
NANO, LINEAR, NEXT = (
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "moonshotai/Kimi-Linear-48B-A3B-Instruct",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_the_engine_builds(case):
    agrees(case)


REFUSED = [
    (NANO, {"hybrid_override_pattern": "MX"}, "hybrid_override_pattern"),
    (NANO, {"mamba_ssm_cache_dtype": "int4"}, "mamba_ssm_cache_dtype"),
    (NANO, {"mlp_hidden_act": "silu"}, "mlp_hidden_act"),
    (NANO, {"block_configs": [{}]}, "block_configs"),
    (NEXT, {"layer_types": ["linear_attention", "convolution"] * 24}, "layer_types"),
    (NEXT, {"layer_scale": True}, "layer_scale"),
    (LINEAR, {"mla_use_nope": False}, "mla_use_nope"),
    (LINEAR, {"hidden_act": "gelu"}, "hidden_act"),
    ("ibm-granite/granite-4-8b-dense-hybrid", {"layer_types": ["attention"] * 3}, "layer_types"),
    ("mistralai/Mamba-Codestral-7B-v0.1", {"head_dim": 100}, "head_dim"),
]


@pytest.mark.parametrize(("name", "keys", "where"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_understood_is_named(name, keys, where):
    with pytest.raises(BadInput, match=where):
        read(BY_NAME[name] | keys)


def test_layers_that_are_mixers_or_mlps_alone():
    model = read(BY_NAME[NANO])
    assert layers(model) == {"Mamba-2": 23, "full attention": 6}
    reductions = {layer.mixes + layer.transforms for layer in model.layers}
    assert len(model.layers) == 52
    assert reductions == {1}


def test_heads_of_a_delta_net_are_never_repeated():
    assert refusal(read(BY_NAME[NEXT]), 16) is None
    assert "8 key heads" in refusal(read(BY_NAME[NEXT] | {"linear_num_key_heads": 8}), 16)


def test_one_group_of_a_state_space_is_on_every_rank():
    granite = BY_NAME["ibm-granite/granite-4-8b-dense-hybrid"] | {"layer_types": ["mamba"] * 40}
    one, two = read(granite), read(granite | {"mamba_n_groups": 2})
    assert 4 * state_bytes(one, 4) > state_bytes(one)
    assert 2 * state_bytes(two, 2) == state_bytes(two)
    assert refusal(one, 4) is None
    assert "2 groups" in refusal(two, 4)


FALCON = {
    "architectures": ["FalconH1ForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "mamba_d_ssm": 1536,
    "mamba_n_heads": 24,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_n_groups": 1,
    "vocab_size": 32784,
    "max_position_embeddings": 131072,
}


def test_attention_beside_a_state_space_has_a_cache_and_a_state():
    model = read(FALCON)
    assert layers(model) == {"full attention beside Mamba-2": 3}
    assert token_bytes(model) == 3 * 2 * 2 * 64 * 2
    assert state_bytes(model) == 3 * 2 * (3 * (1536 + 2 * 128) + 24 * 64 * 128)


LFM = {
    "architectures": ["Lfm2ForCausalLM"],
    "hidden_size": 1024,
    "block_ff_dim": 6656,
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 256,
    "conv_L_cache": 3,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 65536,
    "full_attn_idxs": [2],
}


def test_short_convolutions():
    model = read(LFM)
    assert layers(model) == {"short convolution": 3, "full attention": 1}
    assert model.tied
    assert model.layers[0].mlp.inter == 4608
    assert state_bytes(model) == 3 * 2 * 1024 * 2
    with pytest.raises(BadInput, match="conv_dim"):
        read(LFM | {"conv_dim": 512})


def test_a_state_space_alone_has_no_cache():
    model = read(
        {"architectures": ["MambaForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 2, "vocab_size": 50280}
    )
    assert token_bytes(model) == 0
    assert model.tied
    assert parameters(model) > 50280 * 1024
