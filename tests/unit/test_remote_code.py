"""Which models need the code of their repository: ``plan`` says it, ``tune`` refuses them without trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serve.launch.engine import engine_kwargs, vllm_args
from tuner.app.cli.commands import app
from tuner.ask.layout import ParallelLayout
from tuner.ask.registry import known_config, known_models
from tuner.ask.remote_code import remote_code, require_trust
from tuner.ask.request_document import load_request, parse_request
from tuner.errors import BadInput
from tuner.study.runner import StudyOrder

CASE = Path(__file__).parents[1] / "data" / "cases" / "kimi_trust_remote_code" / "request.yaml"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "vocab_size": 1024,
}
MINE = {"AutoConfig": "configuration_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
CODED = {"AutoTokenizer": ["tokenization_mine.MineTokenizer", None]}


def made(
    folder: Path, config: dict[str, Any], tokenizer: dict[str, Any] | None = None, files: dict[str, Any] | None = None
) -> Path:
    (folder / "config.json").write_text(json.dumps(LLAMA | config))
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    for name, content in (files or {}).items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


CASES = [
    # config.json, tokenizer_config.json, other files, a part of the reason (None: nothing is needed)
    ({}, None, {}, None),
    ({}, {"tokenizer_class": "LlamaTokenizerFast"}, {}, None),
    ({"auto_map": MINE, "model_type": "mine"}, None, {}, "configuration_mine.MineConfig"),
    ({"auto_map": MINE, "model_type": "deepseek_v3"}, {"tokenizer_class": "LlamaTokenizerFast"}, {}, None),
    ({"auto_map": MINE, "model_type": "minimax_m2"}, {"tokenizer_class": "GPT2Tokenizer"}, {}, None),
    ({"auto_map": MINE, "model_type": "kimi_k2"}, None, {}, "moonshotai/Kimi-K2"),
    ({"model_type": "kimi_k2"}, {"tokenizer_class": "TikTokenTokenizer", "auto_map": CODED}, {}, "MineTokenizer"),
    ({}, {"tokenizer_class": "MineTokenizer", "auto_map": CODED}, {}, "tokenization_mine.MineTokenizer"),
    ({}, {"tokenizer_class": "MineTokenizer", "auto_map": CODED}, {"tokenizer": {}}, "MineTokenizer"),
    ({"model_type": "minimax_m2"}, {"tokenizer_class": "MineTokenizer", "auto_map": CODED}, {"tokenizer": {}}, None),
    ({"model_type": "kimi_k25"}, {"tokenizer_class": "TikTokenTokenizer", "auto_map": CODED}, {}, "MineTokenizer"),
    ({"model_type": "qwen3"}, {"tokenizer_class": "MineTokenizer", "auto_map": CODED}, {}, None),
    ({}, {"tokenizer_class": "PreTrainedTokenizerFast", "auto_map": CODED}, {}, None),
    ({}, {"tokenizer_class": "MineTokenizer", "auto_map": ["a.B", None]}, {}, "a.B"),
    (
        {"text_config": LLAMA},
        {"tokenizer_class": "GPT2Tokenizer"},
        {"preprocessor_config": {"auto_map": {"AutoImageProcessor": "image_mine.MineProcessor"}}},
        "image_mine.MineProcessor",
    ),
]


@pytest.mark.parametrize(("config", "tokenizer", "files", "reason"), CASES)
def test_code_is_needed_where_neither_vllm_nor_transformers_has_a_class(
    tmp_path: Path, config: dict[str, Any], tokenizer: dict[str, Any] | None, files: dict[str, Any], reason: str | None
) -> None:
    found = remote_code(str(made(tmp_path, config, tokenizer, files)), "LlamaForCausalLM")
    if reason is None:
        assert found is None
    else:
        assert reason in (found or "")


def test_which_known_models_need_code() -> None:
    """By their configuration, which neither vLLM nor Transformers has, or by a tokenizer that is published as code."""
    coded = {name for name in known_models() if remote_code(name, str((known_config(name) or {})["architectures"][0]))}
    assert {name for name in coded if "Kimi" not in name} == {
        "internlm/internlm2-7b",
        "microsoft/Phi-3-vision-128k-instruct",
    }
    assert {name for name in known_models() if "Kimi" in name} <= coded


def test_a_broken_file_of_the_tokenizer_says_nothing(tmp_path: Path) -> None:
    made(tmp_path, {})
    (tmp_path / "tokenizer_config.json").write_text("{")
    assert remote_code(str(tmp_path), "LlamaForCausalLM") is None


@pytest.fixture(scope="module")
def untrusting() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(CASE.read_text())
    return document


def plan(document: dict[str, Any], folder: Path, *options: str) -> str:
    path = folder / "request.yaml"
    path.write_text(yaml.safe_dump(document))
    done = CliRunner().invoke(app, ["plan", str(path), *options])
    assert done.exit_code in (0, 3), done.output
    return done.stdout


@pytest.mark.slow
def test_plan_says_what_the_model_needs_until_it_is_given(untrusting: dict[str, Any], tmp_path: Path) -> None:
    assert "engine.trust_remote_code: true is needed before tune" in " ".join(plan(untrusting, tmp_path).split())
    (need,) = json.loads(plan(untrusting, tmp_path, "--json"))["engine"]["needs"]
    assert need.startswith("engine.trust_remote_code: true")
    trusting = untrusting | {"engine": {"trust_remote_code": True}}
    engine = json.loads(plan(trusting, tmp_path, "--json"))["engine"]
    assert engine["needs"] == []
    assert any("code of the model's repository runs" in caution for caution in engine["cautions"])


def test_a_study_is_refused_before_anything_starts(untrusting: dict[str, Any], tmp_path: Path) -> None:
    order = StudyOrder("kimi", parse_request(untrusting), tmp_path)
    with pytest.raises(BadInput) as caught:
        order.setting()
    assert caught.value.where == "engine.trust_remote_code"
    trusting = parse_request(untrusting | {"engine": {"trust_remote_code": True}})
    assert StudyOrder("kimi", trusting, tmp_path).setting().model.name == "moonshotai/Kimi-K2.5"
    require_trust(trusting)


def test_trust_reaches_the_launch(untrusting: dict[str, Any]) -> None:
    layout = ParallelLayout.parse("tp=8,pp=1,dp=1")
    assert "trust_remote_code" not in engine_kwargs(layout, load_request(CASE))
    trusting = parse_request(untrusting | {"engine": {"trust_remote_code": True}})
    assert engine_kwargs(layout, trusting)["trust_remote_code"] is True
    words = vllm_args(layout, trusting, model_source="moonshotai/Kimi-K2.5", host="127.0.0.1", port=1)
    assert "--trust-remote-code" in words
