"""What a search believes: the data of the event ``believed``, and what the report's picture of it is drawn from."""

from __future__ import annotations

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.search.beliefs import Beliefs, Believed, Range


class BelievedAnswer(Answer):
    """One candidate. A range is its 5 %, its median and its 95 %; null where it carries no such rate."""

    layout: str = Field(description="The layout.")
    devices: int = Field(description="Its devices.")
    wins: float = Field(description="Probability that it beats the best measured layout, 0 to 1.")
    meets: float = Field(description="Probability that it meets the SLO at the asked rate, 0 to 1.")
    of_target: Range = Field(description="Latency ÷ target at the asked rate, of the target that is missed by most.")
    objective: Range | None = Field(
        description="Mean E2E latency, ms, or the highest rate held, requests/s; null where the objective is a price."
    )


class BeliefsAnswer(Answer):
    """All of them at one moment."""

    rows: list[BelievedAnswer] = Field(description="What may still be launched, the likeliest winners first.")
    left: int = Field(description="How many there are, those that are not listed too.")
    could_win: int = Field(description="Of these, how many win with a probability of 1 % or more.")
    anything: float = Field(description="Probability that any of them wins, 0 to 1.")
    best: BelievedAnswer | None = Field(description="Of the best measured layout; null where there is none.")


def beliefs_answer(found: Beliefs) -> BeliefsAnswer:
    """All of them."""
    return BeliefsAnswer(
        rows=[_believed(row) for row in found.rows],
        left=found.left,
        could_win=found.could_win,
        anything=found.anything,
        best=_believed(found.best) if found.best else None,
    )


def _believed(row: Believed) -> BelievedAnswer:
    return BelievedAnswer(
        layout=str(row.layout), devices=row.layout.devices, wins=row.wins, meets=row.meets, of_target=row.of_target,
        objective=row.objective,
    )  # fmt: skip
