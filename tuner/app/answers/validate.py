"""What ``parlay validate --json`` prints: the predictor's errors in percent, over all rows and by system."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tuner.app.answers.base import Answer, where_it_applies
from tuner.validate.scores import Validation


class ErrorAnswer(Answer):
    """|predicted ÷ measured − 1| over the scored rows; null where there are none."""

    mean: float | None = Field(description="Mean, percent.")
    median: float | None = Field(description="Median, percent.")


class ScoreAnswer(Answer):
    """Errors by figure: of runs TTFT and TPOT, of operations their latency; the others are left out."""

    rows: int = Field(description="Rows, those that are not scored included.")
    ttft_ape: ErrorAnswer | None = where_it_applies("Error of TTFT, percent; of runs.")
    tpot_ape: ErrorAnswer | None = where_it_applies("Error of TPOT, percent; of runs.")
    latency_ape: ErrorAnswer | None = where_it_applies("Error of the latency, percent; of operations.")

    def by_figure(self) -> dict[str, ErrorAnswer]:
        """The errors that there are, by the figure's name."""
        every = {"ttft": self.ttft_ape, "tpot": self.tpot_ape, "latency": self.latency_ape}
        return {name: error for name, error in every.items() if error is not None}


class NotPricedAnswer(Answer):
    """Rows that could not be priced for one reason."""

    reason: str = Field(description="Why.")
    rows: int = Field(description="How many.")
    first_line: int = Field(description="Line of the first in the table.")


class ValidateAnswer(ScoreAnswer):
    """A whole table."""

    kind: str = Field(description="What the table measures: e2e, or a kind of operation.")
    scored: int = Field(description="Rows that were predicted and measured.")
    unit: str = Field(description="Of the errors: percent.")
    by_system: dict[str, ScoreAnswer] = Field(description="The same by system.")
    not_priced: list[NotPricedAnswer] = Field(description="What could not be priced, most frequent first.")


def validate_answer(found: Validation) -> ValidateAnswer:
    """Errors over all rows and by system, and what could not be priced."""
    systems = np.asarray(found.points.text("system"))
    unpriced = found.unpriced()
    return ValidateAnswer(
        **dict(_score(found, np.ones(systems.shape, dtype=bool))),
        kind=found.kind,
        scored=found.scored,
        unit="percent",
        by_system={str(name): _score(found, systems == name) for name in np.unique(systems)},
        not_priced=[NotPricedAnswer(reason=reason, rows=rows, first_line=line) for reason, rows, line in unpriced],
    )


def _score(found: Validation, where: NDArray[np.bool_]) -> ScoreAnswer:
    errors = {p.name: ErrorAnswer(**p.ape_percent(where)) for p in found.predictions}
    return ScoreAnswer(
        rows=int(np.sum(where)),
        ttft_ape=errors.get("ttft_ms"),
        tpot_ape=errors.get("tpot_ms"),
        latency_ape=errors.get("latency_ms", errors.get("latency_us")),
    )
