"""Measured runs as the predictor sees them: which model, layout and engine a row means, and how its errors count."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuner.app.answers.validate import validate_answer
from tuner.errors import BadInput
from tuner.validate.correct import correct
from tuner.validate.points import Points, read_points
from tuner.validate.runs import Run, at_precision, run_of
from tuner.validate.runs_score import RunPredictor, kv_tokens
from tuner.validate.score import validate

SAMPLE = Path(__file__).parents[1] / "data" / "runs.csv"
ROW = {
    "id": "x_c8", "backend_version": "0.12.0", "model_path": "Qwen/Qwen3-32B", "system": "h100_sxm",
    "gemm_quant_mode": "", "prompt_tokens": "1024", "output_tokens": "128", "concurrency": "8", "tp_size": "4",
    "attention_dp_size": "1", "moe_tp_size": "1", "moe_ep_size": "1",
}  # fmt: skip


def points(*rows: dict[str, str]) -> Points:
    """A table of rows that differ from ``ROW`` as given."""
    full = [ROW | row for row in rows]
    names = list(dict.fromkeys(name for row in full for name in row))
    return Points("points.csv", {n: tuple(r.get(n, "") for r in full) for n in names}, tuple(range(2, len(full) + 2)))


def run(**fields: str) -> Run:
    """The run of one row."""
    return run_of(points(fields), 0)


@pytest.mark.parametrize(
    ("fields", "layout", "users"),
    [
        ({}, "tp=4,pp=1,dp=1", 8),
        ({"pp_size": "2"}, "tp=4,pp=2,dp=1", 8),
        (
            {"model_path": "MiniMaxAI/MiniMax-M2.5", "system": "b200_sxm", "gemm_quant_mode": "nvfp4", "tp_size": "2",
             "attention_dp_size": "2", "moe_ep_size": "4"},
            "tp=1,pp=1,dp=2,ep=true", 16,
        ),
        (
            {"model_path": "moonshotai/Kimi-K2.5", "system": "b200_sxm", "gemm_quant_mode": "nvfp4",
             "attention_dp_size": "4", "moe_ep_size": "16"},
            "tp=4,pp=1,dp=1,ep=true", 32,
        ),
        (
            {"model_path": "Qwen/Qwen3-235B-A22B-FP8", "gemm_quant_mode": "fp8", "tp_size": "1",
             "attention_dp_size": "", "moe_tp_size": "2"},
            "tp=2,pp=1,dp=1", 8,
        ),
    ],
)  # fmt: skip
def test_a_row_names_a_layout_and_its_users(fields: dict[str, str], layout: str, users: int) -> None:
    found = run(**fields)
    assert str(found.layout).split(",max_num")[0] == layout
    assert found.users == users
    assert found.cluster.devices == found.layout.devices


@pytest.mark.parametrize(
    ("path", "system", "mode", "dtypes"),
    [
        ("Qwen/Qwen3-32B", "h100_sxm", "", ("bf16", "bf16", "bf16")),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "h200_sxm", "fp8", ("fp8", "fp8", "bf16")),
        ("meta-llama/Llama-3.1-70B", "b200_sxm", "nvfp4", ("nvfp4", "nvfp4", "bf16")),
        ("MiniMaxAI/MiniMax-M2.5", "h200_sxm", "fp8", ("fp8_block", "fp8_block", "fp8_block")),
        ("MiniMaxAI/MiniMax-M2.5", "b200_sxm", "nvfp4", ("bf16", "bf16", "nvfp4")),
        ("moonshotai/Kimi-K2.5", "h200_sxm", "int4_wo", ("bf16", "bf16", "int4")),
        ("openai/gpt-oss-120b", "b200_sxm", "nvfp4", ("bf16", "bf16", "mxfp4_fp8")),
        ("openai/gpt-oss-120b", "gb200_sxm", "nvfp4", ("bf16", "bf16", "mxfp4_fp8")),
        ("openai/gpt-oss-120b", "h100_sxm", "nvfp4", ("bf16", "bf16", "int4")),
        ("deepseek-ai/DeepSeek-R1-0528", "b200_sxm", "fp8", ("fp8_block", "fp8_block", "fp8_block")),
    ],
)
def test_a_row_names_precisions(path: str, system: str, mode: str, dtypes: tuple[str, str, str]) -> None:
    model = run(model_path=path, system=system, gemm_quant_mode=mode).model
    assert model.attention_dtype == dtypes[0]
    if model.moe_layers < model.layers:
        assert model.linear_dtype == dtypes[1]
    if model.experts:
        assert model.expert_dtype == dtypes[2]


def test_a_precision_changes_nothing_else() -> None:
    model = run().model
    quantised = at_precision(model, "fp8", blackwell=False)
    assert quantised != model
    assert at_precision(quantised, "", blackwell=False) == model


def test_settings_in_the_table_overrule_the_scripts() -> None:
    plain, given = run(), run(
        kv_cache_dtype="fp8", max_num_batched_tokens="2048", gpu_memory_utilization="0.8", enforce_eager="true"
    )  # fmt: skip
    assert plain.switches.cuda_graphs
    assert not given.switches.cuda_graphs
    assert given.layout.max_num_batched_tokens == 2048
    assert kv_tokens(replace(plain, switches=given.switches)) == pytest.approx(2 * kv_tokens(plain), abs=2)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model_path": "nobody/knows-this"}, "knows-this"),
        ({"system": "abacus"}, "abacus"),
        ({"gemm_quant_mode": "ternary"}, "ternary"),
        ({"model_path": "meta-llama/Llama-3.1-405B", "tp_size": "1"}, "tokens"),
    ],
)
def test_a_run_without_a_price_is_refused_by_name(fields: dict[str, str], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        RunPredictor(1).predict(run(**fields))


def test_a_projects_own_run_keeps_its_lengths_and_repeats_prompts_where_they_were_cached() -> None:
    theirs, own = run(), run(attention_dp_size="")
    assert (theirs.shortest_share, own.shortest_share) == (0.8, 0.97)
    assert theirs.distinct_prompts is own.distinct_prompts is None
    cached = run(attention_dp_size="", model_path="nvidia/Llama-3.1-8B-Instruct-FP8", concurrency="64")
    predictor = RunPredictor()
    fresh = predictor.predict(replace(cached, distinct_prompts=None))
    assert predictor.predict(cached).ttft_ms < fresh.ttft_ms
    assert predictor.predict(replace(cached, distinct_prompts=10**6)) == fresh


def test_a_run_that_took_place_is_scored_even_where_the_memory_estimate_says_no() -> None:
    full = run(model_path="meta-llama/Llama-3.1-70B", gemm_quant_mode="fp8", tp_size="1", gpu_memory_utilization="0.5")
    assert kv_tokens(full) == 1152
    assert RunPredictor(2).predict(full).ttft_ms > 0


@pytest.mark.parametrize("mode", ["sq", "int8_wo", "w4afp8", "w4a16_mxfp4", "fp8_static", "fp8_block"])
@pytest.mark.parametrize("gpu", ["a100_sxm", "h100_sxm", "b200_sxm", "gb300"])
def test_precisions_of_the_collection_are_priced_on_every_gpu(mode: str, gpu: str) -> None:
    found = RunPredictor(1).predict(run(system=gpu, gemm_quant_mode=mode))
    assert 0 < found.tpot_ms < found.ttft_ms


def test_the_same_run_is_predicted_alike_and_more_users_wait_longer() -> None:
    predictor = RunPredictor(2)
    few, many = predictor.predict(run()), predictor.predict(run(concurrency="64"))
    assert predictor.predict(run()) == RunPredictor(2).predict(run()) == few
    assert few.ttft_ms < many.ttft_ms
    assert few.tpot_ms < many.tpot_ms


@pytest.mark.slow
def test_a_sample_of_runs_is_scored_as_a_whole_and_near_what_was_measured() -> None:
    answer = validate_answer(validate(SAMPLE))
    assert answer.kind == "e2e"
    assert answer.scored == answer.rows > 30
    assert answer.ttft_ape.median < 20
    assert answer.tpot_ape.median < 10
    json.loads(answer.to_json())


@pytest.mark.slow
def test_probes_of_a_layout_bring_its_other_rows_nearer(tmp_path: Path) -> None:
    with SAMPLE.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    chosen = [row for row in rows if row["gemm_quant_mode"] == "int4_wo" and row["system"] == "h200_sxm"]
    chosen = [row for row in chosen if "Kimi" in row["model_path"]]
    for row in chosen:
        row["measured_tpot_ms"] = str(2 * float(row["measured_tpot_ms"]))
    table, probes = tmp_path / "table.csv", tmp_path / "probes.csv"
    for path, content in ((table, chosen[3:]), (probes, chosen[:3])):
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys())
            writer.writeheader()
            writer.writerows(content)
    alone = validate_answer(validate(table)).tpot_ape.mean
    corrected = validate_answer(validate(table, correct_with=probes)).tpot_ape.mean
    assert corrected < 0.7 * alone


def test_probes_shift_their_own_layout_alone() -> None:
    table = points({"tp_size": "4"}, {"tp_size": "8"})
    predicted = np.array([[100.0, 10.0], [80.0, 8.0]])
    found = correct(table, predicted, points({"tp_size": "4"}), np.array([[100.0, 10.0]]), np.array([[120.0, np.nan]]))
    assert 100 < found[0, 0] < 120
    assert found[0, 1] == 10
    assert found[1].tolist() == [80.0, 8.0]


@pytest.mark.parametrize(("column", "value"), [("concurrency", "0"), ("tp_size", "two"), ("prompt_tokens", "")])
def test_a_bad_field_is_refused_with_its_place(column: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    row = ROW | {column: value}
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(BadInput, match=column) as refused:
        validate(path)
    assert "line 2" in refused.value.where


def test_a_table_without_measurements_is_predicted_all_the_same(tmp_path: Path) -> None:
    table = read_points(SAMPLE)
    path = tmp_path / "points.csv"
    names = [name for name in table.columns if not name.startswith("measured")]
    path.write_text("\n".join([",".join(names), ",".join(table.columns[name][0] for name in names)]) + "\n")
    found = validate(path)
    assert validate_answer(found).scored == 0
    assert all(np.isfinite(prediction.predicted).all() for prediction in found.predictions)
