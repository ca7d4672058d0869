"""A model as Parlay takes it beside what vLLM's own classes say of it: figures of one row, compared.

A row is one of the table of models that were built without weights: numbers are empty where the class was not asked or
gave no answer, ``source`` begins with ``none`` where the engine did not build the model, and ``notes`` with ``stored``
where it does not know how the weights are stored.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.app.answers.model import ModelAnswer, model_answer
from tuner.ask.model import ModelShape

TOLERANCE = 0.005
DEGREES = (2, 8)
WHOLE = "all ranks"
FIGURES = ("parameters", "weight_bytes", "kv_bytes_per_token", "state_bytes_per_sequence", "max_model_len")
REFUSAL = "refused"
_UNANSWERED = "no answer"
_COLUMNS = {
    WHOLE: {
        "parameters": "params_total",
        "weight_bytes": "weight_bytes_tp1",
        "kv_bytes_per_token": "kv_bytes_per_token_as_stored",
        "state_bytes_per_sequence": "state_bytes_per_sequence",
        "max_model_len": "max_model_len",
    },
    **{
        f"tp={tp}": {
            "parameters": f"params_rank_tp{tp}",
            "kv_bytes_per_token": f"kv_bytes_per_token_rank_tp{tp}",
            "state_bytes_per_sequence": f"state_bytes_rank_tp{tp}",
        }
        for tp in DEGREES
    },
}

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of a model, of ``ranks`` (``WHOLE``, or one of tp=2 or 8); of a refusal 1 for refused, and ``said``
    why we refuse."""

    figure: str
    ranks: str
    ours: float
    theirs: float
    said: str = ""

    @property
    def error(self) -> float:
        """Ours ÷ theirs − 1; of two zeros 0, of a refusal that is not shared infinite."""
        if self.ours == self.theirs:
            return 0.0
        return self.ours / self.theirs - 1 if self.theirs and self.figure != REFUSAL else float("inf")

    @property
    def agrees(self) -> bool:
        """Within the tolerance; the longest sequence to the token."""
        return abs(self.error) <= (0 if self.figure == "max_model_len" else TOLERANCE)


def read_rows(path: Path) -> list[Row]:
    """The table."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def has_class(row: Row) -> bool:
    """True where the engine has a class that builds the model in 16 bits."""
    return not row["source"].startswith("none")


def is_built(row: Row) -> bool:
    """True where it builds the model as it is stored, too."""
    return has_class(row) and not row["notes"].startswith("stored:")


def compare(model: ModelShape, row: Row) -> list[Compared]:
    """Every figure that both sides have."""
    whole = model_answer(model)
    found = list(_figures(whole, row, WHOLE))
    for tp in DEGREES:
        theirs, refused = row[f"refused_tp{tp}"], tp not in whole.legal_tp
        if _UNANSWERED in theirs or not has_class(row):
            continue
        found.append(Compared(REFUSAL, f"tp={tp}", refused, bool(theirs), whole.refused_tp.get(tp, "")))
        if not refused and not theirs:
            found += _figures(model_answer(model, tp), row, f"tp={tp}")
    return found


def _figures(answer: ModelAnswer, row: Row, ranks: str) -> Iterator[Compared]:
    for figure, column in _COLUMNS[ranks].items():
        if row[column]:
            theirs = float(row[column])
            if figure == "kv_bytes_per_token" and ranks != WHOLE:
                theirs = theirs * _stored_share(row)
            yield Compared(figure, ranks, float(getattr(answer, figure)), theirs)


def _stored_share(row: Row) -> float:
    """Bytes of the cache as the engine chooses them over those in 16 bits, in which ranks are told."""
    stored, wide = row["kv_bytes_per_token_as_stored"], row["kv_bytes_per_token_bf16"]
    return float(stored) / float(wide) if stored and wide and float(wide) else 1.0
