"""The machine-readable answers: their keys and shapes stay, whatever builds them.

``PARLAY_UPDATE_GOLDEN=1`` writes the golden files anew.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tuner.app.answers
from tests.answer_cases import GOLDEN, STUDIES, light_answers, study_answers
from tests.fakes import document, make_request
from tuner.app.answers.base import Answer
from tuner.app.answers.collective import CollectiveAnswer
from tuner.app.answers.decision import DecisionAnswer, ShowAnswer
from tuner.app.answers.explain import ExplainAnswer
from tuner.app.answers.measure import MeasureAnswer
from tuner.app.answers.plan import PlanAnswer, memory_answer
from tuner.app.answers.simulate import SimulateAnswer
from tuner.app.answers.validate import ValidateAnswer
from tuner.app.answers.volume import VolumeAnswer
from tuner.app.wiring import memories
from tuner.ask.layout import ParallelLayout
from tuner.ask.profile import load_profile
from tuner.cost.memory import GIB

_DIGITS = 1e-6  # another processor sums in another order


OF_STUDIES = ("tune-", "show-", "explain-")


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Answers of commands that launch nothing."""
    folder = tmp_path_factory.mktemp("answers")
    return made(folder, lambda: {name: make() for name, make in light_answers(folder)})


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, light: dict[str, Any]) -> dict[str, Any]:
    """All of them."""
    folder = tmp_path_factory.mktemp("studies")
    return light | made(folder, lambda: dict(study_answers(folder)))


def made(folder: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Answers that are made in a folder, and kept where that is asked for."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        found = make()
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


NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(OF_STUDIES)])
def test_an_answer_says_what_it_said(name: str, light: dict[str, Any]) -> None:
    assert lost(json.loads((GOLDEN / f"{name}.json").read_text()), light[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(OF_STUDIES)])
def test_an_answer_of_a_study_says_what_it_said(name: str, answers: dict[str, Any]) -> None:
    assert lost(json.loads((GOLDEN / f"{name}.json").read_text()), answers[name]) == []


@pytest.mark.slow
def test_every_case_has_its_golden_file(answers: dict[str, Any]) -> None:
    assert set(NAMES) == set(answers)


MODELS: dict[str, type[Answer]] = {
    "plan": PlanAnswer, "volume": VolumeAnswer, "collective": CollectiveAnswer, "validate": ValidateAnswer,
    "simulate": SimulateAnswer, "measure": MeasureAnswer, "tune": DecisionAnswer, "show": ShowAnswer,
    "explain": ExplainAnswer,
}  # fmt: skip


@pytest.mark.slow
def test_an_answer_reads_back_as_its_model(answers: dict[str, Any]) -> None:
    for name, answer in answers.items():
        if name != "measure-find-rate":  # its case shows one part of the answer
            model = MODELS[name.partition("-")[0]]
            assert json.loads(model.model_validate(answer).to_json()) == answer, name


def models() -> list[type[Answer]]:
    """Every answer, and every part of one."""
    for module in pkgutil.iter_modules(tuner.app.answers.__path__):
        importlib.import_module(f"tuner.app.answers.{module.name}")
    found, waiting = [], [Answer]
    while waiting:
        below = waiting.pop().__subclasses__()
        found += below
        waiting += below
    return found


def test_every_key_is_described() -> None:
    """Of all models in one test: a hundred tests take longer to begin and end than to run."""
    schemas = [(model.__name__, model.model_json_schema(mode="serialization")) for model in models()]
    parts = [part for name, schema in schemas for part in ((name, schema), *schema.get("$defs", {}).items())]
    assert parts
    assert [name for name, part in parts if not part["description"]] == []
    assert [name for name, part in parts if part["additionalProperties"] is not False] == []
    fields = [(f"{name}.{key}", field) for name, part in parts for key, field in part["properties"].items()]
    assert [name for name, field in fields if not field.get("description", "").endswith(".")] == []


def test_units_in_names_are_said_in_words() -> None:
    units = {"_ms": "ms", "_s": "s", "_us": "µs", "_bytes": "ytes", "_req_per_s": "equests/s", "_tok_per_s": "tokens/s"}
    for model in models():
        for key, field in model.model_fields.items():
            unit = next((word for end, word in units.items() if key.endswith(end) and "_per_s" not in end), None)
            unit = "/s" if key.endswith("_per_s") else unit
            assert unit is None or unit in (field.description or ""), f"{model.__name__}.{key}: {field.description}"


def test_memory_of_a_layout_adds_up_to_what_the_engine_may_take(light: dict[str, Any]) -> None:
    allowed = 0.9 * load_profile("h100_sxm").memory_bytes / GIB
    for row in light["plan"]["ranked"]:
        memory, tp = row["memory"], 2 if "tp=2" in row["layout"] else 1
        assert set(memory) == {"weights", "kv", "activations", "graphs", "buffers", "state"}
        assert memory["state"] is None  # no layer of this model has any
        assert sum(value or 0.0 for value in memory.values()) == pytest.approx(allowed)
        assert memory["kv"] * GIB / row["kv_tokens"] == pytest.approx(131_072 / tp, rel=1e-5)
        assert memory["weights"] == pytest.approx(14.96 / tp, rel=1e-3)


def test_a_cpu_captures_no_graphs_and_keeps_the_cache_that_it_is_given() -> None:
    changes = {
        "model": "Qwen/Qwen3-0.6B",
        "cluster": {"gpu": "cpu", "gpus_per_node": 2},
        "engine": {"kv_cache_gib": 1.5},
    }
    layout = ParallelLayout()
    memory = memory_answer(memories(make_request(changes), [layout])[layout], layout.max_num_seqs)
    assert memory.graphs is None
    assert memory.kv == pytest.approx(1.5)


def test_a_case_leaves_the_others_as_they_are() -> None:
    """The answers may be made twice in one process, where tests of a module do not follow each other."""
    before = copy.deepcopy(STUDIES)
    assert document(STUDIES["hopeless"])["slo"][0]["ms"] == 2.0
    assert before == STUDIES
