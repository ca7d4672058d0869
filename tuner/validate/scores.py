"""What became of a table of measured points: predictions beside measurements, and their errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.validate.points import Points

Floats = NDArray[np.float64]
E2E = "e2e"  # the kind of table whose rows are whole runs of an engine


@dataclass(frozen=True, slots=True)
class Prediction:
    """One figure of every row: predicted (NaN: not priced) and measured (NaN: not given), in the unit of its name."""

    name: str
    predicted: Floats
    measured: Floats

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Rows that have both."""
        return np.asarray(np.isfinite(self.predicted) & np.isfinite(self.measured))

    def ape_percent(self, where: NDArray[np.bool_] | None = None) -> dict[str, float | None]:
        """Mean and median of |predicted / measured - 1| in percent over scored rows; None where there are none."""
        chosen = self.scored if where is None else self.scored & where
        if not chosen.any():
            return {"mean": None, "median": None}
        error = 100 * np.abs(self.predicted[chosen] / self.measured[chosen] - 1)
        return {"mean": float(np.mean(error)), "median": float(np.median(error))}


@dataclass(frozen=True, slots=True)
class Validation:
    """What became of a table: a prediction per figure, and per row the reason why it has none (None: it has)."""

    kind: str
    points: Points
    predictions: tuple[Prediction, ...]
    reasons: tuple[str | None, ...]

    @property
    def scored(self) -> int:
        """Rows that count in every score that their measurements allow."""
        every = np.any([prediction.scored for prediction in self.predictions], axis=0)
        return int(np.sum(every))

    def unpriced(self) -> list[tuple[str, int, int]]:
        """(reason, rows, line of the first) of what could not be priced, most frequent first."""
        counted = Counter(reason for reason in self.reasons if reason is not None)
        first = dict(zip(self.reasons[::-1], self.points.lines[::-1], strict=True))
        return [(reason, count, first[reason]) for reason, count in counted.most_common()]

    def columns(self) -> dict[str, Sequence[object]]:
        """Columns to append to the table: a prediction per figure, and the reason where there is none."""
        found: dict[str, Sequence[object]] = {
            f"predicted_{p.name}": [float(v) if np.isfinite(v) else None for v in p.predicted] for p in self.predictions
        }
        return found | {"not_priced": self.reasons}


def measured_column(points: Points, name: str) -> Floats:
    """A measured column, NaN where it is empty or absent; a value must be above 0."""
    if name not in points.columns:
        return np.full(len(points), np.nan)
    return points.numbers(name, least=float(np.finfo(float).tiny), blank=np.nan)
