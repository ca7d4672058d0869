"""Readers of mixtures and hybrids beside vLLM's own classes, where it is installed: small models that no table has."""

import pytest

from tests.unit.described_models import parameters, read, refusal, token_bytes
from tests.unit.vllm_models import build

pytestmark = pytest.mark.slow

BASE = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "hidden_size": 512, "intermediate_size": 1024}
HEADS = BASE | {"num_attention_heads": 16, "num_key_value_heads": 4, "num_hidden_layers": 4, "vocab_size": 1000}
ROUTED = HEADS | {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
LATENT = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "q_lora_rank": 256}
STATES = {"mamba_n_heads": 16, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 2}
FALCON = {"mlp_multipliers": [1.0, 1.0], "ssm_multipliers": [1.0] * 5, "mamba_d_ssm": None, "mamba_rms_norm": True}
MODELS = {
    "deepseek": ROUTED
    | LATENT
    | {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "n_routed_experts": 8}
    | {"topk_method": "noaux_tc", "first_k_dense_replace": 2, "n_group": 2, "topk_group": 1, "n_shared_experts": 2},
    "qwen3 next": ROUTED
    | {"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "linear_num_key_heads": 8}
    | {"linear_num_value_heads": 16, "shared_expert_intermediate_size": 256, "mlp_only_layers": [1]},
    "granite": HEADS
    | STATES
    | {"architectures": ["GraniteMoeHybridForCausalLM"], "model_type": "granitemoehybrid", "mamba_n_groups": 1}
    | {"layer_types": ["mamba", "mamba", "attention", "mamba"], "shared_intermediate_size": 768},
    "jamba": HEADS
    | {"architectures": ["JambaForCausalLM"], "model_type": "jamba", "num_experts": 4, "attn_layer_period": 4}
    | {"attn_layer_offset": 2, "mamba_dt_rank": "auto"},
    "falcon h1": HEADS
    | STATES
    | FALCON
    | {"architectures": ["FalconH1ForCausalLM"], "model_type": "falcon_h1", "head_dim": 64},
    "lfm2 moe": ROUTED
    | {"architectures": ["Lfm2MoeForCausalLM"], "model_type": "lfm2_moe", "norm_eps": 1e-5, "conv_bias": False}
    | {"layer_types": ["conv", "conv", "full_attention", "conv"], "num_dense_layers": 1, "rope_theta": 10000.0},
    "gpt-oss": HEADS | {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "num_local_experts": 8},
}


@pytest.fixture(autouse=True, scope="module")
def installed():
    """Not while tests are collected: it takes seconds to import."""
    pytest.importorskip("vllm", reason="vLLM is not installed: nothing to compare with")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_as_large_as_vllm_builds_it(name, tmp_path):
    ours = read(MODELS[name], name)
    states = [piece for one in ours.layers if one.mixer.state for piece in one.mixer.state.pieces]
    for ranks in (1, 8):
        try:
            theirs = build(MODELS[name], ranks, tmp_path)
        except (AssertionError, ValueError, ZeroDivisionError):
            assert refusal(ours, ranks), f"vLLM refuses tp={ranks}"
            continue
        assert refusal(ours, ranks) is None
        assert parameters(ours, ranks) == pytest.approx(theirs.parameters, rel=1e-5)
        assert token_bytes(ours, ranks) == theirs.cache_bytes
        assert sum(piece.elements / ranks + piece.whole for piece in states) == theirs.state_elements
        assert ours.max_position == theirs.longest
