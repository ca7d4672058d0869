"""Encoders of images and sounds: sizes as vLLM 0.29's own classes have them, names, and what an image costs."""

import json
from dataclasses import replace

import pytest

from tests.fakes import make_request
from tests.unit.described_models import ROOT
from tuner.app.answers.model import model_answer
from tuner.app.wiring import memories, planned_answer
from tuner.ask.cluster import requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import from_config, load_model
from tuner.ask.models.families.index import READERS, reader_of
from tuner.ask.requested_model import requested_model
from tuner.cost.towers import image_ms
from tuner.errors import BadInput

# parameters of the whole model, of its encoders and what projects from them, and of a rank of 2 and 8; None: refused
KNOWN = [
    ("google/gemma-3-12b-it", 12187325040, 421290864, 6099050808, 1532845134),
    ("google/gemma-3n-E4B-it", 7849978192, 983281504, 4431522128, 1895205200),
    ("google/gemma-4-26B-A4B", 25820351792, 572792112, 13202328880, 3749625136),
    ("moonshotai/Kimi-K2.5", 1026879376368, 471143920, 514014444216, 129365745102),
    ("moonshotai/Kimi-K3", 2779931834976, 447358976, 1392865908080, 352915257788),
    ("meta-llama/Llama-4-Scout-17B-16E", 108641793536, 871932416, 54323664512, 13585067744),
    ("mistralai/Mistral-Small-3.1-24B-Instruct-2503", 24011361280, 438958080, 12008311808, 3006024704),
    ("Qwen/Qwen2-VL-7B-Instruct", 8291375616, 675759104, 4146668544, None),
    ("Qwen/Qwen2.5-VL-7B-Instruct", 8292166656, 676550144, 4147022464, None),
    ("Qwen/Qwen3-VL-30B-A3B-Instruct", 31070754032, 538631408, 15544098744, 3911690190),
    ("Qwen/Qwen3-VL-32B-Instruct", 33357390064, 595266800, 16681364408, 4174345166),
    ("Qwen/Qwen3.5-35B-A3B", 35107181936, 446571248, 17566513016, 4418875646),
    ("llava-hf/llava-1.5-7b-hf", 7050828800, 311888896, 3526218240, 882760320),
    ("microsoft/Phi-3-vision-128k-instruct", 4232523776, 312943616, 2128047616, 549690496),
]
# bytes that the engine's quantised build holds
STORED = [
    ("nvidia/Gemma-4-26B-A4B-NVFP4", 18811192144),
    ("nvidia/Kimi-K2.6-NVFP4", 595148193224),
    ("nvidia/Qwen3.5-397B-A17B-NVFP4", 237944070872),
    ("moonshotai/Kimi-K2.5", 596846517216),
    ("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", 404813213536),
]
BUILT = json.loads((ROOT / "multimodal_built.json").read_text())
CONFIGS = {case["name"]: case["config"] for case in BUILT}
QWEN = "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.mark.parametrize(("name", "whole", "towers", "half", "eighth"), KNOWN, ids=lambda value: str(value))
def test_a_known_model_is_as_large_as_the_engine_builds_it(name, whole, towers, half, eighth):
    model = load_model(name)
    assert model.held_elements() == pytest.approx(whole, rel=1e-4)
    assert sum(tower.elements() for tower in model.towers) == pytest.approx(towers, rel=1e-3)
    for ranks, theirs in ((2, half), (8, eighth)):
        if theirs is None:
            assert ranks not in model_answer(model).legal_tp
        else:
            assert model.held_elements(ranks) == pytest.approx(theirs, rel=5e-3)


@pytest.mark.parametrize(("name", "stored"), STORED)
def test_encoders_are_stored_as_the_lists_of_a_checkpoint_say(name, stored):
    assert model_answer(load_model(name)).weight_bytes == pytest.approx(stored, rel=5e-3)


@pytest.mark.parametrize("case", BUILT, ids=lambda case: case["name"])
def test_a_small_one_has_the_engines_every_parameter(case):
    model = from_config(case["config"], case["name"])
    assert model.held_elements() == case["parameters"]
    assert model.held_elements(2) == case["parameters_tp2"]
    assert model.max_position == case["longest"]


def quantised(**lists):
    config = CONFIGS["glm4v"]
    method = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    return from_config(config | {"quantization_config": method | lists}, "a model").weights


@pytest.mark.parametrize("name", ["visual", "model.visual", "model.visual.blocks", "visual.blocks"])
def test_an_encoder_that_a_list_names_stays_as_it_is(name):
    listed, merger = [name], [f"{name.split('.blocks')[0]}.merger"]
    found = quantised(modules_to_not_convert=listed + merger)
    assert {one.kind for one in found.tower.formats} == {"bf16"}
    assert found.dense.main.kind == "fp8"


def test_one_that_no_list_names_is_quantised():
    assert quantised().tower.main.kind == "fp8"


def test_heads_that_do_not_divide_leave_an_encoder_whole_on_every_rank():
    (tower,) = from_config(CONFIGS["glm4v"], "a model").towers
    assert tower.elements(2) < tower.elements() == tower.elements(3) == tower.elements(8)


def test_only_as_deep_as_it_is_read():
    deep = from_config(CONFIGS["llava_next"] | {"vision_feature_layer": [-3, 1]}, "a model").towers[0]
    assert len(deep.layers) == 1
    with pytest.raises(BadInput, match="vision_feature_layer"):
        from_config(CONFIGS["llava_next"] | {"vision_feature_layer": 9}, "a model")


def test_what_is_not_understood_is_named():
    strange = CONFIGS["llava_next"]
    with pytest.raises(BadInput, match=r"text_config\.model_type: got 'strange'"):
        from_config(strange | {"text_config": strange["text_config"] | {"model_type": "strange"}}, "a model")
    with pytest.raises(BadInput, match=r"vision_config\.model_type"):
        from_config(strange | {"vision_config": {"model_type": "strange"}}, "a model")
    with pytest.raises(BadInput, match=r"0\.10\.2"):
        from_config({"architectures": ["MllamaForConditionalGeneration"]}, "a model")


def test_a_type_whose_files_name_no_architecture():
    found = from_config(
        {
            "model_type": "deepseek_vl_v2",
            "projector_config": {"n_embed": 1280},
            "language_config": {
                "model_type": "deepseek_v2", "hidden_size": 1280, "num_hidden_layers": 12, "num_attention_heads": 10,
                "num_key_value_heads": 10, "kv_lora_rank": None, "q_lora_rank": None, "qk_nope_head_dim": 0,
                "qk_rope_head_dim": 0, "v_head_dim": 0, "first_k_dense_replace": 1, "intermediate_size": 6848,
                "moe_intermediate_size": 896, "n_routed_experts": 64, "n_shared_experts": 2,
                "num_experts_per_tok": 6, "vocab_size": 129280,
            },
        },
        "a model",
    )  # fmt: skip
    assert found.architecture == "DeepseekVLV2ForCausalLM"
    assert found.attention is not None
    assert found.attention.head_dim == 128
    assert found.parameters == pytest.approx(3.37e9, rel=0.01)  # as its authors tell of it


SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}


def test_an_encoder_without_settings_is_refused_by_name():
    """Where the engine has no defaults for it."""
    text = {**SMALL, "num_local_experts": 4, "vocab_size": 1000, "num_experts_per_tok": 2, "head_dim": 16}
    with pytest.raises(BadInput, match=r"vision_config\.hidden_size"):
        from_config({"architectures": ["MiniMaxM3SparseForConditionalGeneration"], "text_config": text}, "a model")
    with pytest.raises(BadInput, match=r"vision_config\.width"):
        from_config({"architectures": ["Step3p7ForConditionalGeneration"], "text_config": text}, "a model")


def test_every_reader_is_there():
    assert [architecture for architecture in READERS if not callable(reader_of(architecture))] == []


def request(**engine):
    cluster = {"gpu": "h100_sxm", "nodes": 1, "gpus_per_node": 4}
    space = {"tp": [1, 4], "max_num_seqs": [256]}
    return make_request({"model": QWEN, "cluster": cluster, "space": space, "engine": engine})


def test_an_image_costs_less_on_more_ranks_and_more_where_it_is_larger():
    model, cluster = load_model(QWEN), requested_cluster(request()).groups[0]
    (tower,) = model.towers
    alone, shared = (image_ms(model, tower, cluster, ParallelLayout(tp=ranks)) for ranks in (1, 4))
    small = image_ms(model, replace(tower, patches=tower.patches // 4), cluster, ParallelLayout())
    assert shared < alone
    assert small < alone < 8 * small
    assert image_ms(model, replace(tower, layers=()), cluster, ParallelLayout()) is None


def test_a_plan_says_what_an_image_adds():
    (said,) = planned_answer(request()).engine.cautions
    assert said.startswith("requests of text skip the vision encoder (0.68 billion parameters, counted in memory); one")
    assert "image of 1024 × 1024 pixels adds " in said
    assert "1,369 tokens" in said


@pytest.mark.parametrize(("gpu", "told"), [("h100_sxm", False), ("a100_sxm", True)])
def test_an_image_says_where_attention_within_images_was_never_measured(gpu, told):
    asked = request().model_copy(update={"cluster": request().cluster.model_copy(update={"gpu": gpu})})
    (said,) = planned_answer(asked).engine.cautions
    assert f"(tp=1,pp=1,dp=1 on {gpu}" in said
    assert ("where attention within images was never measured)" in said) is told


def test_without_its_encoders_a_model_takes_less_and_nothing_is_said_of_them():
    asked = request(language_model_only=True)
    assert requested_model(asked).towers == ()
    assert planned_answer(asked).engine.cautions == []
    layout = ParallelLayout()
    without, whole = (memories(one, [layout])[layout].weights_bytes for one in (asked, request()))
    assert without == pytest.approx(whole - 2 * 676550144)
