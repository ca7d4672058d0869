"""``parlay validate`` on a small sample of measured kernels: what is scored, what is not and why, and bad tables."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tuner.app.answers.validate import validate_answer
from tuner.errors import BadInput
from tuner.validate.points import write_points
from tuner.validate.score import KINDS, validate

SAMPLES = Path(__file__).parents[1] / "data" / "kernels"


@pytest.mark.parametrize("kind", ["gemm", "attention_context", "attention_generation", "moe"])
def test_a_sample_is_recognised_and_scored_as_a_whole(kind: str) -> None:
    found = validate(SAMPLES / f"{kind}.csv")
    answer = validate_answer(found)
    assert found.kind == kind
    assert answer.rows == answer.scored == 60
    assert answer.not_priced == []
    (prediction,) = found.predictions
    errors = 100 * np.abs(prediction.predicted / prediction.measured - 1)
    assert answer.latency_ape.mean == pytest.approx(errors.mean())
    assert answer.latency_ape.median == pytest.approx(np.median(errors))
    assert sum(group.rows for group in answer.by_system.values()) == 60


def changed(tmp_path: Path, column: str, value: str) -> Path:
    """The GEMM sample with another value in the first row's column."""
    with (SAMPLES / "gemm.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[0][column] = value
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(("column", "value"), [("system", "abacus"), ("gemm_dtype", "ternary")])
def test_a_row_without_a_price_is_counted_with_its_reason(column: str, value: str, tmp_path: Path) -> None:
    answer = validate_answer(validate(changed(tmp_path, column, value)))
    assert (answer.rows, answer.scored) == (60, 59)
    (group,) = answer.not_priced
    assert value in group.reason
    assert (group.rows, group.first_line) == (1, 2)


def test_predictions_are_written_beside_every_row(tmp_path: Path) -> None:
    found = validate(changed(tmp_path, "system", "abacus"))
    write_points(tmp_path / "out.csv", found.points, found.columns())
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 60
    assert rows[0]["predicted_latency_ms"] == ""
    assert "abacus" in rows[0]["not_priced"]
    assert all(float(row["predicted_latency_ms"]) > 0 for row in rows[1:])


@pytest.mark.parametrize(("column", "value"), [("m", "many"), ("k", "0"), ("n", "")])
def test_a_field_that_is_no_number_is_refused_with_its_place(column: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=column) as refused:
        validate(changed(tmp_path, column, value))
    assert "2" in refused.value.where


def test_a_table_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="gemm"):
        validate(tmp_path / "odd.csv")
    with pytest.raises(BadInput, match="nonsense"):
        validate(SAMPLES / "gemm.csv", "nonsense")
    assert "collectives" in KINDS
