"""Mixtures of experts, latent and sparse attention, as vLLM 0.29's own classes count them (tests/data/models)."""

import json

import pytest

from tests.unit.described_models import ROOT, agrees, layers, of_kind, read
from tuner.errors import BadInput

CASES = json.loads((ROOT / "mixtures.json").read_text())
BY_NAME = {case["name"]: case["config"] for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_the_engine_builds(case):
    agrees(case)


def changed(name, **keys):
    config = BY_NAME[name]
    if "text_config" in config:
        return config | {"text_config": config["text_config"] | keys}
    return config | keys


REFUSED = [
    ("mistralai/Mixtral-8x22B-v0.1", {"num_local_experts": "many"}, "num_local_experts"),
    ("Qwen/Qwen3-30B-A3B", {"hidden_act": "gelu"}, "hidden_act"),
    ("Qwen/Qwen3-30B-A3B", {"use_sliding_window": True}, "use_sliding_window"),
    ("deepseek-ai/DeepSeek-V3", {"moe_layer_freq": [0, 1]}, "moe_layer_freq"),
    ("deepseek-ai/DeepSeek-V3", {"attention_bias": True}, "attention_bias"),
    ("zai-org/GLM-5.2", {"index_topk_pattern": "FSX"}, "index_topk_pattern"),
    ("deepseek-ai/DeepSeek-V4-Flash", {"compress_ratios": [0, 4, 16] * 20}, "compress_ratios"),
    ("openai/gpt-oss-120b", {"layer_types": ["full_attention"] * 36}, "layer_types"),
    ("meta-llama/Llama-4-Scout-17B-16E", {"no_rope_layers": [1, 0]}, "text_config.no_rope_layers"),
    ("MiniMaxAI/MiniMax-M3", {"attention_output_gate": True}, "attention_output_gate"),
    ("XiaomiMiMo/MiMo-V2-Flash", {"hybrid_layer_pattern": [0, 2] * 24}, "hybrid_layer_pattern"),
    ("tencent/Hunyuan-A13B-Instruct", {"moe_topk": [8, 4] * 16}, "moe_topk"),
    ("databricks/dbrx-instruct", {"tie_word_embeddings": True}, "tie_word_embeddings"),
    ("rednote-hilab/dots.llm1.inst", {"layer_types": ["sliding_attention"] * 62}, "layer_types"),
]


@pytest.mark.parametrize(("name", "keys", "where"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_understood_is_named(name, keys, where):
    with pytest.raises(BadInput, match=where.replace(".", r"\.")):
        read(changed(name, **keys))


def test_an_indexer_speaks_for_the_layers_after_it():
    model = read(BY_NAME["zai-org/GLM-5.2"])
    own = [at for at, layer in enumerate(model.layers) if layer.mixer.indexer.own]
    assert own[:5] == [0, 1, 2, 6, 10]
    without = model.layers[3].mixer
    assert not any("indexer" in name for matrix in without.matrices(model.hidden) for name in matrix.names)


def test_windows_and_compressed_vectors_of_deepseek_v4():
    model = read(BY_NAME["deepseek-ai/DeepSeek-V4-Flash"])
    assert layers(model) == {
        "sliding-window attention of one vector": 2,
        "compressed sparse attention": 21,
        "heavily compressed attention": 20,
    }
    assert model.pipeline_tensors == 4
    assert all(layer.streams == 4 for layer in model.layers)
    assert "16 output groups" in (read(BY_NAME["sgl-project/DeepSeek-V4-Pro-FP8"]).layers[0].mixer.refuses(32) or "")


def test_layers_of_llama_4():
    scout, maverick = (
        read(BY_NAME[name])
        for name in ("meta-llama/Llama-4-Scout-17B-16E", "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8")
    )
    assert layers(scout) == {"chunked attention": 36, "full attention": 12}
    assert sum(layer.experts is not None for layer in maverick.layers) == 24


def test_defaults_of_a_class_stand_for_keys_left_out():
    whole = BY_NAME["mistralai/Mixtral-8x22B-v0.1"]
    left_out = {key: value for key, value in whole.items() if key not in ("num_local_experts", "num_experts_per_tok")}
    assert read(left_out).layers == read(whole).layers


def test_a_rank_of_the_query_that_is_null_is_none():
    light = read(changed("deepseek-ai/DeepSeek-V2", q_lora_rank=None))
    assert light.layers[0].mixer.q_rank is None
    assert of_kind(light, "multi-head latent attention") == 60


def test_an_expert_too_narrow_for_its_rank_is_padded():
    from tuner.ask.models.blocks import Experts
    from tuner.ask.models.matrices import stored_elements

    narrow = Experts(count=8, topk=2, inter=1024, least=256)
    assert stored_elements(narrow.expert(512), 1) == 3 * 512 * 1024
    assert stored_elements(narrow.expert(512, 8), 8) == 3 * 512 * 256
