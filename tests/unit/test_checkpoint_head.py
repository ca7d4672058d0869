"""A head that the checkpoint has is there, though the class of the whole ties by default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuner.ask.checkpoint_head import INDEX, SINGLE
from tuner.ask.model import load_model
from tuner.ask.registry import known_config

NAME = "mistralai/Mistral-Small-3.1-24B-Instruct-2503"
HEAD = "language_model.lm_head.weight"


def is_tied(at: Path, **text: Any) -> bool:
    config = dict(known_config(NAME) or {})
    config.pop("tie_word_embeddings")
    config["text_config"] = config["text_config"] | text
    (at / "config.json").write_text(json.dumps(config))
    return load_model(str(at)).tied_embeddings


def index(at: Path, *names: str) -> None:
    (at / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, "a.safetensors")}))


def single(at: Path, *names: str) -> None:
    header = json.dumps({name: {} for name in names}).encode()
    (at / SINGLE).write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize("write", [index, single])
def test_a_head_in_the_files_is_its_own_where_the_language_model_says_so(tmp_path: Path, write: Any) -> None:
    assert is_tied(tmp_path, tie_word_embeddings=False)
    write(tmp_path, "language_model.model.embed_tokens.weight")
    assert is_tied(tmp_path, tie_word_embeddings=False)
    write(tmp_path, "language_model.model.embed_tokens.weight", HEAD)
    assert not is_tied(tmp_path, tie_word_embeddings=False)
    assert is_tied(tmp_path)  # it may be a copy
    assert is_tied(tmp_path, tie_word_embeddings=True)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"weight_map": [1]}', b"\xff" * 99])
@pytest.mark.parametrize("name", [INDEX, SINGLE])
def test_files_that_cannot_be_read_say_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert is_tied(tmp_path, tie_word_embeddings=False)
