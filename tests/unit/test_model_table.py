"""What `parlay model` shows to people, beside what it prints as JSON."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tuner.app.answers.model import model_answer
from tuner.app.cli.model_table import model_table
from tuner.ask.model import from_config
from tuner.ask.registry import known_config


def shown(**changes: object) -> str:
    console = Console(file=io.StringIO(), record=True, width=200)
    config = known_config("google/gemma-2-2b-it")
    assert config is not None
    model_table(console, model_answer(from_config({**config, **changes}, "m")))
    return console.export_text()


@pytest.mark.parametrize(("window", "told"), [(4096, True), (8191, True), (8192, False), (262144, False)])
def test_a_window_wider_than_the_longest_sequence_bounds_nothing(window: int, told: bool) -> None:
    assert ("grow with every token" in shown(sliding_window=window, max_position_embeddings=8192)) == told


def test_refused_degrees_stand_with_their_reasons() -> None:
    assert "tp=16 is refused: 8 attention heads do not divide by tp=16" in shown()
