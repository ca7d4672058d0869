"""The machine-readable answers: their keys and shapes stay, whatever builds them.

``PARLAY_UPDATE_GOLDEN=1`` writes the golden files anew.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from tests.answer_cases import GOLDEN, light_answers, study_answers

_DIGITS = 1e-6  # another processor sums in another order


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("answers")
    before = Path.cwd()
    os.chdir(folder)
    try:
        found = {name: make() for name, make in light_answers(folder)} | dict(study_answers(folder))
    finally:
        os.chdir(before)
    if os.environ.get("PARLAY_UPDATE_GOLDEN"):
        for name, answer in found.items():
            (GOLDEN / f"{name}.json").write_text(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
    return found


def lost(was: Any, now: Any, where: str = "") -> list[str]:
    """Where an answer does not say what it said: keys may be added, what there was stays, with its type."""
    if isinstance(was, dict) and isinstance(now, dict):
        gone = [f"{where}.{key} is gone" for key in was.keys() - now.keys()]
        return gone + [text for key in was.keys() & now.keys() for text in lost(was[key], now[key], f"{where}.{key}")]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = enumerate(zip(was, now, strict=True))
        return [text for place, (one, other) in pairs for text in lost(one, other, f"{where}[{place}]")]
    if type(was) is not type(now):
        return [f"{where}: {was!r} became {now!r}"]
    same = math.isclose(was, now, rel_tol=_DIGITS) if isinstance(was, float) else was == now
    return [] if same else [f"{where}: {was!r} became {now!r}"]


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_an_answer_says_what_it_said(name: str, answers: dict[str, Any]) -> None:
    assert lost(json.loads((GOLDEN / f"{name}.json").read_text()), answers[name]) == []


def test_every_case_has_its_golden_file(answers: dict[str, Any]) -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(answers)
