"""Readers of families beside vLLM's own classes, where it is installed: it is the oracle, not our reading of it."""

import pytest

from tests.unit.described_sizes import cache_bytes, described, parameters, refused
from tests.unit.vllm_models import build

pytestmark = pytest.mark.slow

HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 3}
SMALL = HEADS | {"hidden_size": 512, "intermediate_size": 1024, "vocab_size": 1000}
MODELS = {
    "llama": SMALL | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": True},
    "qwen3": SMALL | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "tie_word_embeddings": True},
    "gemma3": SMALL | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "head_dim": 128},
    "cohere2": SMALL | {"architectures": ["Cohere2ForCausalLM"], "model_type": "cohere2", "sliding_window": 64},
    "falcon": SMALL | {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "multi_query": True},
    "opt": SMALL
    | {"architectures": ["OPTForCausalLM"], "model_type": "opt", "ffn_dim": 2048, "word_embed_proj_dim": 256},
    "smollm3": SMALL | {"architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "pad_token_id": 0},
    "defaults": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "num_hidden_layers": 2},
}


@pytest.fixture(autouse=True, scope="module")
def installed():
    """Not while tests are collected: it takes seconds to import."""
    pytest.importorskip("vllm", reason="vLLM is not installed: nothing to compare with")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_as_large_as_vllm_builds_it(name, tmp_path):
    ours = described(MODELS[name], name)
    for ranks in (1, 2, 3, 8):
        try:
            theirs = build(MODELS[name], ranks, tmp_path)
        except (AssertionError, ValueError):
            assert refused(ours, ranks), f"vLLM refuses tp={ranks}"
            continue
        assert refused(ours, ranks) is None
        assert parameters(ours, ranks) == theirs.parameters
        assert cache_bytes(ours, ranks) == theirs.cache_bytes
        assert ours.max_position == theirs.longest
