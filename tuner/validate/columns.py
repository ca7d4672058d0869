"""Columns of a table of measured operations, as the models take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.ask.profile import HardwareProfile
from tuner.errors import BadInput

Columns = Mapping[str, Any]
Array = NDArray[np.float64]
Predict = Callable[[HardwareProfile, tuple[str, ...], Columns], Array]


@dataclass(frozen=True, slots=True)
class Operation:
    """Columns of one kind of operation: those that decide the price by name, sizes of at least 1, counts of at least 0
    (may be empty), and the measured one."""

    names: tuple[str, ...]
    sizes: tuple[str, ...]
    counts: tuple[str, ...]
    measured: str


def column_of(rows: Columns, name: str) -> Any:
    """The column of a name; raises ``BadInput`` where there is none."""
    if name not in rows:
        raise BadInput("column", name, f"a table with this column (it has: {', '.join(rows)})")
    return rows[name]


def numbers_of(rows: Columns, *names: str) -> list[Array]:
    """Columns as numbers; an empty field becomes 0 (no window, no cached tokens)."""
    found = []
    for name in names:
        column = np.asarray(column_of(rows, name))
        try:
            found.append(np.where(column == "", "0", column).astype(float) if column.dtype.kind in "US" else
                         np.nan_to_num(column.astype(float)))  # fmt: skip
        except ValueError:
            raise BadInput(f"column {name}", str(column[0]), "numbers") from None
    return found
