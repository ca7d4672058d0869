"""Models that are known by name: their files, and what is said of a name that is none of theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fit.known_model import kept, text_of
from tuner.ask.model import load_model
from tuner.ask.registry import FOLDER, SOURCE, file_of, known_config, known_models, near_models
from tuner.errors import BadInput

ROOT = Path(__file__).parents[2]
PRICED = 76  # of them, at least


def test_there_is_a_name_for_what_people_serve() -> None:
    assert len(known_models()) >= 140
    assert {"meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-R1"} <= set(known_models())


def test_a_file_says_where_it_is_from_and_keeps_nothing_that_costs_nothing() -> None:
    for name in known_models():
        text = file_of(name).read_text(encoding="utf-8")
        document = json.loads(text)
        source = document.pop(SOURCE)
        assert source.startswith(f"config.json of {name} (Hugging Face)")
        assert kept(document) == document == known_config(name)
        assert text == text_of({SOURCE: source, **document}) + "\n"


@pytest.mark.slow
def test_every_known_model_is_priced_or_refused_by_its_architecture() -> None:
    refused = []
    for name in known_models():
        try:
            assert load_model(name).parameters > 0
        except BadInput as error:
            refused.append((error.where, f"{name}: architectures"))
    assert all(where == place for where, place in refused)
    assert len(known_models()) - len(refused) >= PRICED


def test_the_reference_lists_them() -> None:
    listed = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert [name for name in known_models() if f"`{name}`" not in listed] == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("qwen/qwen3-8b", "Qwen/Qwen3-8B"),
        ("Qwen3-8B", "Qwen/Qwen3-8B"),
        ("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("unsloth/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("DeepSeek-V3", "deepseek-ai/DeepSeek-V3"),
        ("openai/gpt-oss-20", "openai/gpt-oss-20b"),
        ("Qwen/Qwen3-8BB", "Qwen/Qwen3-8B"),
        ("Llama-3.3-70B", "meta-llama/Llama-3.3-70B-Instruct"),
        ("RedHatAI/gemma-3-12b-it-quantized.w4a16", "google/gemma-3-12b-it"),
    ],
)
def test_a_near_name_is_refused_with_the_one_that_is_meant(given: str, meant: str) -> None:
    assert near_models(given)[0] == meant
    with pytest.raises(BadInput, match=f"did you mean {meant}"):
        load_model(given)


@pytest.mark.parametrize("given", ["nobody/knows-this", "..", "a/b/c", "", "--", "x" * 5000])
def test_nothing_is_suggested_for_what_is_near_to_nothing(given: str) -> None:
    assert near_models(given) == ()
    assert known_config(given) is None


def test_a_name_is_no_way_out_of_the_folder() -> None:
    assert known_config("../models/x") is None
    assert all(file_of(name).parent == FOLDER for name in known_models())
