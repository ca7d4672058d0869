"""Score the predictors on measured points: kernels, collectives, and whole runs of an engine under load.

A row that cannot be priced stays in the table with its reason; it is counted, never dropped in silence. A table without
measured columns is predicted all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.cost.collectives import predict_collective_rows
from tuner.errors import BadInput
from tuner.validate import compressed_operations, latent_operations, linear_operations
from tuner.validate.columns import Operation
from tuner.validate.operations import predict_rows
from tuner.validate.points import Points, read_points
from tuner.validate.scores import E2E, Prediction, Validation, measured_column

Floats = NDArray[np.float64]


_HEADS = ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim")
_EXPERTS = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
OPERATIONS = {
    "gemm": Operation(("system", "gemm_dtype"), ("m", "n", "k"), (), "latency_ms"),
    "attention_context": Operation(("system", "kv_cache_dtype"), _HEADS, ("step", "window_size"), "latency_ms"),
    "attention_generation": Operation(("system", "kv_cache_dtype"), _HEADS, ("step", "window_size"), "latency_ms"),
    "moe": Operation(("system", "moe_dtype", "distribution", "vllm"), _EXPERTS, (), "latency_ms"),
    "collectives": Operation(
        ("system", "library", "kernel_source", "op_name"), ("num_gpus",), ("message_bytes",), "latency_us"
    ),
    **compressed_operations.OPERATIONS,
    **latent_operations.OPERATIONS,
    **linear_operations.OPERATIONS,
}
KINDS = (E2E, *OPERATIONS)
_TELLTALE = {"e2e": "model_path", "gemm": "gemm_dtype", "moe": "moe_dtype", "collectives": "op_name"}


def validate(path: str | Path, kind: str | None = None, correct_with: str | Path | None = None) -> Validation:
    """Predict and score a table of measured points.

    ``kind`` is one of ``KINDS`` (None: told by the columns); ``correct_with`` is a table of measured runs of the same
    layouts, by which the predictions of runs are corrected. Raises BadInput for a table that does not fit the kind.
    """
    points = read_points(path)
    kind = kind or kind_of(points)
    if kind == E2E:
        from tuner.validate.runs_score import validate_runs  # the simulator, which takes a while to load

        return validate_runs(points, read_points(correct_with) if correct_with else None)
    if kind not in OPERATIONS:
        raise BadInput("--kind", kind, ", ".join(KINDS))
    if correct_with is not None:
        raise BadInput("--correct-with", str(correct_with), "measured runs (kind e2e) only")
    return _validate_operations(points, kind)


def kind_of(points: Points) -> str:
    """What a table measures, by its columns; attention tables differ by having one new token in every row, or not."""
    readers = (compressed_operations.kind_of, latent_operations.kind_of, linear_operations.kind_of)
    if told := next((told for reader in readers if (told := reader(points.columns))), None):
        return told
    for kind, column in _TELLTALE.items():
        if column in points.columns:
            return kind
    if {"isl", "step", "kv_cache_dtype"} <= points.columns.keys():
        decode = bool(np.all(points.numbers("isl", least=1) == 1))
        return "attention_generation" if decode else "attention_context"
    raise BadInput("--kind", f"nothing, and columns {', '.join(points.columns)}", ", ".join(KINDS))


def _validate_operations(points: Points, kind: str) -> Validation:
    spec = OPERATIONS[kind]
    columns: dict[str, Any] = {name: np.asarray(points.text(name)) for name in spec.names}
    columns |= {name: points.numbers(name, least=1) for name in spec.sizes}
    columns |= {name: points.numbers(name, least=0, blank=0.0) for name in spec.counts}
    predict: Callable[[Mapping[str, Any]], Floats]
    predict = predict_collective_rows if kind == "collectives" else lambda rows: predict_rows(kind, rows)
    predicted, reasons = np.full(len(points), np.nan), np.full(len(points), None, dtype=object)
    for rows in _same(columns, spec.names):
        try:
            predicted[rows] = predict({name: column[rows] for name, column in columns.items()})
        except BadInput as error:
            reasons[rows] = str(error)
    measured = measured_column(points, spec.measured)
    return Validation(kind, points, (Prediction(spec.measured, predicted, measured),), tuple(reasons))


def _same(columns: Mapping[str, Any], names: Sequence[str]) -> Iterator[NDArray[np.intp]]:
    """Row indices of each combination of names: what cannot be priced of one cannot be priced of its like."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(zip(*(columns[name] for name in names), strict=True)):
        groups.setdefault(key, []).append(row)
    return (np.asarray(rows) for rows in groups.values())
