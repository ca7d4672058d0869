"""Every known model is read, priced and told; beside the engine's figures; and a wrong key ends in its name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine_models import REFUSAL, TOLERANCE, compare, read_rows
from tuner.app.answers.model import model_answer
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape, from_config, load_model
from tuner.ask.profile import load_profile
from tuner.ask.registry import known_config, known_models
from tuner.cost.latency import StepCosts, StepShape, total
from tuner.cost.sequence_memory import sequence_memory
from tuner.errors import BadInput

DATA = Path(__file__).parents[1] / "data" / "models.csv"
QUICK = 8  # of the known models one in so many is priced in the quick suite
ONE = np.ones(1)
STEPS = {
    "prefill": StepShape("prefill", 2048 * ONE, 0 * ONE, ONE),
    "decode": StepShape("decode", ONE, 4096 * ONE, 32 * ONE),
}


def is_whole(model: ModelShape) -> None:
    """Has prices, memory and an answer."""
    profile = load_profile("h100_sxm")
    costs, layout = StepCosts(model, Cluster(profile, 1, 8, profile.fabric)), ParallelLayout()
    for phase, step in STEPS.items():
        price = total(costs.stages(layout, step)[0])[0]
        assert np.isfinite(price), phase
        assert price > 0, phase
    assert sequence_memory(model, layout, 2.0).bytes_of(4096) > 0
    answer = model_answer(model)
    assert answer.active_parameters > 0
    assert sum(answer.weight_bytes_by_format.values()) == pytest.approx(answer.weight_bytes, rel=1e-6)
    assert 1 in answer.legal_tp
    assert sum(one.count for one in answer.layers) == model.layers
    assert json.loads(answer.to_json())["model"] == model.name


@pytest.mark.parametrize("name", known_models()[::QUICK])
def test_a_sample_of_known_models_is_priced_and_told(name: str) -> None:
    is_whole(load_model(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", known_models())
def test_a_known_model_is_priced_and_told(name: str) -> None:
    is_whole(load_model(name))


@pytest.mark.parametrize("row", read_rows(DATA), ids=lambda row: row["id"])
def test_a_known_model_is_what_the_engine_makes_of_it(row: Mapping[str, str]) -> None:
    found = compare(load_model(row["id"].replace("--", "/", 1)), row)
    if row["weight_bytes_tp1"] != row["weight_bytes_bf16"]:  # one of many ranks was built in 16 bits alone
        found = [one for one in found if one.figure != REFUSAL or one.theirs or "groups of" not in one.said]
    apart = [one for one in found if not one.agrees]
    assert not apart, f"beyond {TOLERANCE:%}"


def test_the_engine_refuses_degrees_and_stores_in_many_formats() -> None:
    """What the comparison is worth: rows of every kind are among those kept."""
    rows = read_rows(DATA)
    assert sum(bool(row["refused_tp8"]) for row in rows) >= 5
    assert sum(float(row["state_bytes_per_sequence"]) > 0 for row in rows) >= 5
    assert sum(row["weight_bytes_tp1"] != row["weight_bytes_bf16"] for row in rows) >= 10
    found = compare(load_model("Qwen/Qwen3-8B-FP8"), next(row for row in rows if row["id"] == "Qwen--Qwen3-8B-FP8"))
    assert {one.figure for one in found} > {REFUSAL, "parameters", "weight_bytes"}


# Keys that hold something else

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.integers(-3, 300)
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def paths(config: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Of every key of a configuration, its parts' keys included."""
    for key, value in config.items():
        yield (*above, key)
        if isinstance(value, Mapping):
            yield from paths(value, (*above, key))


def replaced(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, *below = path
    return {**config, key: replaced(config.get(key, {}), tuple(below), value) if below else value}


def known(name: str) -> Mapping[str, Any]:
    found = known_config(name)
    assert found is not None
    return found


KNOWN = {known(name)["architectures"][0]: name for name in known_models()}  # one of each architecture
PLACES = [(name, path) for name in KNOWN.values() for path in paths(known(name))]


@pytest.mark.slow
@given(place=st.sampled_from(PLACES), value=JSON)
def test_a_key_that_holds_anything_is_refused_by_name_or_read(place: tuple[str, tuple[str, ...]], value: Any) -> None:
    name, path = place
    try:
        model = from_config(replaced(known(name), path, value), name)
    except BadInput as error:
        where = error.where
    else:
        where = f"{name}: "
        assert model.parameters > 0
        assert model.layers > 0
    assert where.startswith((f"{name}: ", "quantization_config", "dtype"))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("moonshotai/Kimi-K3", ("text_config", "linear_attn_config", "kda_layers"), [[1]]),
        ("moonshotai/Kimi-K2.5", ("vision_config", "merge_kernel_size"), [2]),
        ("google/gemma-3n-E4B-it", ("audio_config", "sscp_conv_channel_size"), ["x", 32]),
        ("openai/gpt-oss-20b", ("layer_types",), [{}]),
        ("THUDM/glm-4-9b-chat", ("num_layers",), ["x"]),
        ("openai-community/gpt2", ("n_positions",), 1.5),
        ("Qwen/Qwen2.5-7B", ("max_window_layers",), "x"),
    ],
)
def test_what_is_no_list_of_its_kind_is_refused_by_its_key(name: str, path: tuple[str, ...], value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        from_config(replaced(known(name), path, value), name)
    assert caught.value.where == f"{name}: {'.'.join(path)}"


@pytest.mark.parametrize(
    ("key", "value"), [("num_hidden_layers", 10**9), ("hidden_size", 10**30), ("vocab_size", 2**50)]
)
def test_a_size_that_no_model_has_is_refused(key: str, value: int) -> None:
    with pytest.raises(BadInput, match=f"{key}: got {value}; .*at most"):
        from_config({**known("Qwen/Qwen3-32B"), key: value}, "m")
