"""Shapes come out of config.json as published, and what cannot be priced is refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ask.model import ModelShape, from_config, load_model
from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.matrices import Vectors
from tuner.errors import BadInput

# Sizes as the model cards or the safetensors index give them; "exact" where biases and query/key norms, which are left
# out, are absent too.
EXACT = {
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "meta-llama/Llama-3.1-405B": 405_853_388_800,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
}
PUBLISHED_BILLIONS = {
    "MiniMaxAI/MiniMax-M2.5": 229,
    "Qwen/Qwen2.5-7B": 7.616,
    "Qwen/Qwen2.5-72B": 72.706,
    "Qwen/Qwen3-0.6B": 0.596,
    "Qwen/Qwen3-4B": 4.022,
    "Qwen/Qwen3-8B": 8.191,
    "Qwen/Qwen3-14B": 14.768,
    "Qwen/Qwen3-32B": 32.762,
    "Qwen/Qwen3-30B-A3B": 30.532,
    "Qwen/Qwen3-235B-A22B": 235.094,
    "Qwen/Qwen3-235B-A22B-FP8": 235.094,
    "deepseek-ai/DeepSeek-V3": 671.026,
    "deepseek-ai/DeepSeek-R1": 671.026,
    "meta-llama/Llama-3.3-70B-Instruct": 70.554,
    "meta-llama/Meta-Llama-3-70B": 70.554,
    "mistralai/Mixtral-8x22B-v0.1": 140.63,
    "moonshotai/Kimi-K2.5": 1026,
    "openai/gpt-oss-120b": 116.8,
    "openai/gpt-oss-20b": 20.9,
}


@pytest.mark.parametrize(("name", "parameters"), EXACT.items())
def test_parameters_to_the_last(name, parameters):
    assert load_model(name).parameters == parameters


@pytest.mark.parametrize(("name", "billions"), PUBLISHED_BILLIONS.items())
def test_parameters_as_published(name, billions):
    digits = len(str(billions).partition(".")[2])
    assert load_model(name).parameters / 1e9 == pytest.approx(billions, abs=1.01 * 10**-digits)


def test_a_dense_shape():
    attention = Attention(heads=32, kv_heads=8, head_dim=128)
    block = Block(mixer=attention, mlp=Mlp(inter=14336), norms=Vectors(whole=2 * 4096))
    assert load_model("meta-llama/Llama-3.1-8B") == ModelShape(
        name="meta-llama/Llama-3.1-8B",
        architecture="LlamaForCausalLM",
        hidden=4096,
        vocab=128256,
        kinds=(block,),
        order=(0,) * 32,
        max_position=131072,
        tied_embeddings=False,
        vectors=Vectors(whole=4096),
    )


def mixture(model):
    found = model.experts
    return found.count, found.topk, found.inter, found.shared_inter, model.moe_layers


def windows(model):
    found = [(block.mixer.window, count) for block, count in model.counted if block.mixer.window]
    return found[0] if found else (None, 0)


@pytest.mark.parametrize(
    ("name", "read", "expected"),
    [
        ("deepseek-ai/DeepSeek-V3", mixture, (256, 8, 2048, 2048, 58)),
        ("deepseek-ai/DeepSeek-V3", lambda m: (m.latent.kv_rank, m.latent.q_rank, m.latent.v_head), (512, 1536, 128)),
        ("deepseek-ai/DeepSeek-V3", lambda m: m.latent.caches[0].width, 576),
        ("moonshotai/Kimi-K2.5", mixture, (384, 8, 2048, 2048, 60)),
        ("Qwen/Qwen3-235B-A22B", mixture, (128, 8, 1536, 0, 94)),
        ("mistralai/Mixtral-8x7B-v0.1", mixture, (8, 2, 14336, 0, 32)),
        ("openai/gpt-oss-120b", lambda m: (*windows(m), m.layers), (128, 18, 36)),
        ("Qwen/Qwen3-32B", windows, (None, 0)),
        ("Qwen/Qwen3-32B", lambda m: (m.head_dim, m.hidden // m.heads), (128, 80)),
        ("meta-llama/Llama-3.1-8B", lambda m: (m.attention.kv_heads, m.attention.caches[0].width), (8, 256)),
        ("meta-llama/Llama-3.2-1B", lambda m: m.tied_embeddings, True),
        ("Qwen/Qwen3-0.6B", lambda m: m.padded_vocab, 151936),
        ("openai/gpt-oss-20b", lambda m: m.padded_vocab, 201088),
    ],
)
def test_what_a_registry_entry_means(name, read, expected):
    assert read(load_model(name)) == expected


@pytest.mark.parametrize(
    ("name", "attention", "linear", "expert"),
    [
        ("meta-llama/Llama-3.1-8B", "bf16", "bf16", "bf16"),
        ("Qwen/Qwen3-235B-A22B-FP8", "fp8_block", "bf16", "fp8_block"),  # no dense layers
        ("deepseek-ai/DeepSeek-V3", "fp8_block", "fp8_block", "fp8_block"),
        ("openai/gpt-oss-120b", "bf16", "bf16", "mxfp4"),
        ("moonshotai/Kimi-K2.5", "bf16", "bf16", "int4"),
    ],
)
def test_precisions(name, attention, linear, expert):
    model = load_model(name)
    assert (model.attention_dtype, model.linear_dtype, model.expert_dtype) == (attention, linear, expert)


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 1024,
    "vocab_size": 1000,
}


MIXTURE = {"num_experts_per_tok": 2}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"]}
QWEN_MOE = MIXTURE | {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8}
GPT_OSS = MIXTURE | {"architectures": ["GptOssForCausalLM"], "num_local_experts": 8, "head_dim": 64}
DEEPSEEK = {"architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 512}


@pytest.mark.parametrize(
    ("changes", "read", "expected"),
    [
        ({}, lambda m: (m.head_dim, m.padded_vocab), (32, 1024)),
        ({"num_key_value_heads": None}, lambda m: m.kv_heads, 8),
        ({"torch_dtype": "float32"}, lambda m: m.linear_dtype, "bf16"),
        ({"dtype": "float16"}, lambda m: m.linear_dtype, "bf16"),
        ({"sliding_window": 512}, windows, (512, 4)),
        ({**QWEN2, "sliding_window": 512, "use_sliding_window": False}, windows, (None, 0)),
        (
            {**GPT_OSS, "sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"] * 2},
            windows,
            (512, 2),
        ),
        (
            {**QWEN_MOE, "decoder_sparse_step": 2, "moe_intermediate_size": 64},
            mixture,
            (8, 2, 64, 0, 2),
        ),
    ],
)
def test_what_a_config_means(changes, read, expected):
    assert read(from_config(CONFIG | changes, "m")) == expected


def test_a_multimodal_config_is_read_at_its_text_part():
    wrapped = {"architectures": ["KimiK25ForConditionalGeneration"], "text_config": CONFIG}
    assert from_config(wrapped, "m").layers == 4


def test_a_directory_is_read_at_its_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert load_model(str(tmp_path)) == from_config(CONFIG, str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]", '"config"', "\x00"])
def test_a_broken_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput) as caught:
        load_model(str(tmp_path))
    assert caught.value.where == str(tmp_path / "config.json")
    assert "JSON" in caught.value.allowed


def test_a_directory_without_config_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"a directory that holds a config\.json") as caught:
        load_model(str(tmp_path))
    assert caught.value.given == str(tmp_path)


@pytest.mark.parametrize(
    ("changes", "where", "allowed"),
    [
        ({"architectures": ["NobodyForCausalLM"]}, "m: architectures", "have a reader"),
        ({"architectures": []}, "m: architectures", "have a reader"),
        ({"architectures": None}, "m: architectures", "have a reader"),
        ({"architectures": "LlamaForCausalLM"}, "m: architectures", "a list"),
        ({"architectures": [["LlamaForCausalLM"]]}, "m: architectures", "have a reader"),
        ({"hidden_size": "wide"}, "m: hidden_size", "a whole number"),
        ({"num_hidden_layers": 0}, "m: num_hidden_layers", "a whole number"),
        ({"num_hidden_layers": "4"}, "m: num_hidden_layers", "a whole number"),
        ({"num_attention_heads": True}, "m: num_attention_heads", "a whole number"),
        ({"num_key_value_heads": "two"}, "m: num_key_value_heads", "a whole number"),
        ({"head_dim": -1}, "m: head_dim", "a whole number"),
        ({"intermediate_size": 1.5}, "m: intermediate_size", "a whole number"),
        ({"vocab_size": 0.5}, "m: vocab_size", "a whole number"),
        ({"max_position_embeddings": "long"}, "m: max_position_embeddings", "a whole number"),
        ({**QWEN_MOE, "num_experts_per_tok": "two"}, "m: num_experts_per_tok", "a whole number"),
        ({**QWEN_MOE, "num_experts": "many"}, "m: num_experts", "a whole number"),
        ({**DEEPSEEK, "qk_nope_head_dim": "many"}, "m: qk_nope_head_dim", "a whole number"),
        ({"text_config": ["x"]}, "m: text_config", "an object"),
        ({"torch_dtype": "complex64"}, "m: torch_dtype", "bfloat16"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "m: quantization_config.quant_method", "fp8"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "m: quantization_config.bits", "4-bit"),
        ({"quantization_config": "fp8"}, "m: quantization_config", "an object"),
        ({**GPT_OSS, "layer_types": 3, "sliding_window": 4}, "m: layer_types", "a list"),
    ],
)
def test_a_config_that_cannot_be_priced_is_refused(changes, where, allowed):
    with pytest.raises(BadInput) as caught:
        from_config(CONFIG | changes, "m")
    assert caught.value.where == where
    assert allowed in caught.value.allowed


FULL_CONFIG = CONFIG | {
    "text_config": None,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "mlp_only_layers": [],
    "decoder_sparse_step": 1,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "sliding_window": 64,
    "layer_types": ["sliding_attention"] * 4,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
QUANTIZATIONS = st.dictionaries(
    st.sampled_from(["quant_method", "bits", "config_groups", "ignore", "modules_to_not_convert"]),
    st.sampled_from(["fp8", "gptq", "compressed-tensors"]) | JSON_VALUES,
)


CHANGES = st.tuples(st.sampled_from(sorted(FULL_CONFIG)), JSON_VALUES)


@pytest.mark.slow
@given(change=CHANGES | st.tuples(st.just("quantization_config"), QUANTIZATIONS))
def test_any_value_in_a_config_is_priced_or_refused(change):
    try:
        model = from_config(FULL_CONFIG | dict([change]), "m")
    except BadInput as error:
        place = error.where
    else:
        place = "m: "
        assert model.parameters > 0
    assert place.startswith("m: ")


@pytest.mark.parametrize("name", ["no-such-model", "org/no-such-model"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(BadInput, match=r"one of the \d+ known models"):
        load_model(name)


@pytest.mark.parametrize("name", ["./absent", "/no/such/dir", "a b", "../x", "$(id)"])
def test_what_is_no_name_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where none of these exists, whatever lies beside the checkout
    with pytest.raises(BadInput, match=r"an existing directory with a config\.json, or a model name"):
        load_model(name)
