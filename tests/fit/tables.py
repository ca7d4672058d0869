"""Tables of measured kernels: reading, selecting rows, and a split that never tears a shape apart."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
FILES = {
    "gemm": "gemm_dev.csv",
    "attention_context": "attention_context_dev.csv",
    "attention_generation": "attention_generation_dev.csv",
    "moe": "moe_dev.csv",
}
KINDS = {  # of a profile's section
    "gemm": "gemm",
    "attention_prefill": "attention_context",
    "attention_decode": "attention_generation",
    "moe": "moe",
}
SHAPES = {
    "gemm": ("n", "k"),
    "attention_context": ("num_heads", "num_key_value_heads", "head_dim", "window_size"),
    "attention_generation": ("num_heads", "num_key_value_heads", "head_dim", "window_size"),
    "moe": ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"),
}


def read_table(path: Path) -> dict[str, Any]:
    """Columns of a CSV: numbers where every field is one or empty (then 0), else text."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        try:
            table[name] = np.array([float(value) if value else 0.0 for value in values])
        except ValueError:
            table[name] = np.array(values)
    return table


def rows_where(table: Mapping[str, Any], chosen: NDArray[Any]) -> dict[str, Any]:
    """The rows of a table that a mask or an index picks."""
    return {name: column[chosen] for name, column in table.items()}


def folds(kind: str, table: Mapping[str, Any]) -> NDArray[np.int64]:
    """Fold of each row, by a hash of its shape: all rows of one weight or head layout share it, over all systems."""
    shapes = zip(*(table[name] for name in SHAPES[kind]), strict=True)
    return np.array([zlib.crc32(repr([float(x) for x in shape]).encode()) % FOLDS for shape in shapes])


def halves(table: Mapping[str, Any], names: tuple[str, ...]) -> NDArray[np.int64]:
    """Half of each row, by a hash of its sizes: all rows of one shape share it, over all systems and precisions."""
    shapes = zip(*(table[name] for name in names), strict=True)
    return np.array([zlib.crc32(repr([str(x) for x in shape]).encode()) % 2 for shape in shapes])
