"""Readers of dense families of text, beside what vLLM 0.29 builds of the same configurations (tests/data/README.md)."""

import json
from pathlib import Path

import pytest

from tests.unit.described_sizes import bounded_bytes, cache_bytes, caches, described, parameters, refused
from tuner.ask.model import from_config
from tuner.ask.models.families.index import READERS, reader_of
from tuner.ask.models.families.removed import LAST
from tuner.errors import BadInput

DATA = Path(__file__).parents[1] / "data" / "models"
CASES = [case for file in ("dense_served.json", "dense_built.json") for case in json.loads((DATA / file).read_text())]
LLAMA = {"architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 8}


def llama(**more):
    return described(LLAMA | {"intermediate_size": 2048, "vocab_size": 1000} | more)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_sizes_are_those_of_vllm(case):
    model = described(case["config"], case["id"])
    for ranks, expected in case["parameters"].items():
        assert parameters(model, int(ranks)) == pytest.approx(expected, rel=1e-6), f"parameters at tp={ranks}"
        assert refused(model, int(ranks)) is None
        assert cache_bytes(model, int(ranks)) == case["kv_bytes"][ranks], f"cache at tp={ranks}"
    for ranks in case["refused"]:
        assert f"tp={ranks}" in refused(model, ranks)
    assert model.max_position == case["longest"]
    assert bounded_bytes(model) == pytest.approx(case["bounded_bytes"], rel=0.01)


def test_a_shared_cache_is_neither_kept_nor_grown():
    """Gemma 3n: the last layers read the caches of earlier ones, but have all their projections."""
    config = {"architectures": ["Gemma3nForCausalLM"], "num_hidden_layers": 10, "num_kv_shared_layers": 5}
    model = described(config | {"intermediate_size": [8192] * 10})
    assert (len(caches(model)), parameters(model)) == (5, 1_860_427_808)
    assert model.pipeline_tensors == 0


def test_halves_side_by_side_reduce_once():
    falcon = {"architectures": ["FalconForCausalLM"], "model_type": "falcon"}
    assert (described(falcon).layers[0].mixes, described(falcon).layers[0].transforms) == (0, 1)
    assert described(falcon | {"parallel_attn": False}).layers[0].mixes == 1
    assert described({"architectures": ["GPTJForCausalLM"]}).layers[0].mixes == 1  # side by side, but reduced twice


@pytest.mark.parametrize(
    ("architecture", "module"),
    [
        ("FalconForCausalLM", "transformer.h.query_key_value"),
        ("OPTForCausalLM", "model.decoder.layers.fc1"),
        ("GPT2LMHeadModel", "transformer.h.c_proj"),
        ("Phi3ForCausalLM", "model.layers.gate_up_proj"),
    ],
)
def test_names_are_those_of_checkpoints(architecture, module):
    block = described({"architectures": [architecture]}).layers[0]
    place, _, name = module.rpartition(".")
    assert block.prefix == place
    assert name in {one.rpartition(".")[2] for matrix in block.dense_matrices(8) for one in matrix.names}


def windows(architecture, **config):
    return [cache.window for cache in caches(described({"architectures": [architecture]} | config))]


def test_a_null_window_is_not_a_missing_one():
    """MistralConfig has one by default, which null overrides."""
    assert set(windows("MistralForCausalLM")) == {4096}
    assert set(windows("MistralForCausalLM", sliding_window=None)) == {None}
    assert set(windows("LlamaForCausalLM", sliding_window=0)) == {None}


def test_windows_by_layer():
    assert windows("Cohere2ForCausalLM", num_hidden_layers=4) == [4097, 4097, 4097, None]
    assert windows("CwmForCausalLM", num_hidden_layers=4) == [None, 8192, 8192, 8192]
    assert windows("Gemma3ForCausalLM", num_hidden_layers=3, sliding_window_pattern=2) == [4096, None, 4096]
    assert windows("Exaone4ForCausalLM", num_hidden_layers=4, sliding_window=None) == [None] * 4
    kinds = ["sliding_attention", "full_attention"]
    assert windows("LlamaForCausalLM", num_hidden_layers=2, sliding_window=64, layer_types=kinds) == [64, None]


@pytest.mark.parametrize(
    ("positions", "longest"),
    [
        ({}, 2048),
        ({"max_position_embeddings": 4096, "max_seq_len": 1024}, 1024),
        ({"max_position_embeddings": 4096, "model_max_length": 131072}, 131072),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 8192),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, 2048),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 1024}}, 4096),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4}}, 8192),
        ({"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 512}, 512),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2}, "sliding_attention": {}}}, 4096),
    ],
)
def test_the_longest_sequence(positions, longest):
    assert llama(**positions).max_position == longest


@pytest.mark.parametrize(
    ("architecture", "config", "named"),
    [
        ("LlamaForCausalLM", {"hidden_act": "gelu"}, "hidden_act: got 'gelu'"),
        ("LlamaForCausalLM", {"is_causal": False}, "is_causal: got False"),
        ("LlamaForCausalLM", {"layer_types": ["linear_attention"] * 32}, "layer_types"),
        ("LlamaForCausalLM", {"rope_scaling": "yarn"}, "rope_scaling: got 'yarn'"),
        ("Qwen2ForCausalLM", {"use_sliding_window": True, "max_window_layers": 8}, "max_window_layers: got 8"),
        ("Qwen2ForCausalLM", {"dual_chunk_attention_config": {"chunk_size": 1}}, "dual_chunk_attention_config"),
        ("MistralForCausalLM", {"ada_rms_norm_t_cond": True}, "ada_rms_norm_t_cond: got True"),
        ("MiniCPMForCausalLM", {"num_experts": 8}, "num_experts: got 8"),
        ("FalconForCausalLM", {"model_type": "RefinedWeb"}, "model_type: got 'RefinedWeb'"),
        ("GPT2LMHeadModel", {"add_cross_attention": True}, "add_cross_attention: got True"),
        ("ChatGLMModel", {"vision_config": {"hidden_size": 1}}, "vision_config"),
        ("DeciLMForCausalLM", {"num_hidden_layers": 2, "block_configs": [{}]}, "block_configs: got 1"),
        ("Plamo3ForCausalLM", {"num_hidden_layers": 2}, "hidden_size: got None"),
        ("OrionForCausalLM", {}, "hidden_size: got None"),
        ("BaichuanForCausalLM", {}, "removed this one after 0.23.0"),
        ("Phi3SmallForCausalLM", {}, "removed this one after 0.9.2"),
    ],
)
def test_what_is_not_understood_is_named(architecture, config, named):
    with pytest.raises(BadInput) as caught:
        described({"architectures": [architecture]} | config)
    assert named in str(caught.value)


def test_no_attention_and_no_mlp():
    """Layers of Llama-Nemotron that were searched away have no norm either."""
    nothing = {"attention": {"no_op": True}, "ffn": {"no_op": True}}
    config = {"architectures": ["DeciLMForCausalLM"], "block_configs": [nothing], "num_hidden_layers": 1}
    model = described(config | {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 64})
    assert (model.layers[0].mixes, model.layers[0].transforms, parameters(model)) == (0, 0, 2 * 64 * 64 + 64)


def test_the_index():
    assert list(READERS) == sorted(READERS)
    assert reader_of("NoSuchForCausalLM") is None
    assert {name for name, file in READERS.items() if file == "removed"} == set(LAST)


@pytest.mark.parametrize("architectures", [["BertModel"], [], [7], None])
def test_an_architecture_without_reader_is_refused_in_a_sentence(architectures):
    with pytest.raises(BadInput, match=r"architectures: got .*; allowed: one of the \d+ that have a reader") as caught:
        from_config({"architectures": architectures}, "m")
    assert len(str(caught.value)) < 150
