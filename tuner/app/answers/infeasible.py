"""Why no layout meets the SLO, and what would do: part of what plans, decisions and explanations answer."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.plan.infeasible import Infeasible
from tuner.plan.replica_prices import MARGIN


class BoundAnswer(Answer):
    """One limit that stands against the request."""

    kind: str = Field(description="memory, ttft, tpot, itl, e2e, rate or front.")
    best: float = Field(description="The best that any layout can reach, optimistically, in the unit.")
    needed: float = Field(description="What is needed, in the unit.")
    unit: str = Field(description="GiB, ms or requests/s.")
    proven: bool = Field(description="Whether even the optimistic best misses.")
    layout: str | None = Field(description="The layout that reaches the best; null where there is none.")
    text: str = Field(description="The same in words.")


class ChangeAnswer(Answer):
    """One change that would do, by the model."""

    kind: str = Field(description="slo, rate, front, gpus_per_node, nodes, link or slo_and_rate.")
    what: str = Field(description="What is changed: the target, the path to the engine, the GPU or the link.")
    value: float = Field(description="To what, in the unit.")
    unit: str = Field(description="ms, × the targets, requests/s, devices, nodes or GB/s.")
    layout: str = Field(description="A layout that then meets the SLO.")
    text: str = Field(description="The same in words.")
    rate_req_per_s: float | None = Field(description="The rate that it takes as well, requests/s; null: the asked one.")


class InfeasibleAnswer(Answer):
    """Bounds, the proven ones first, and the changes that would each do."""

    proven: bool = Field(description="Whether a bound shows that no layout can meet the SLO.")
    assumed_at_most_times_faster_than_the_model: float = Field(
        description="The margin that the bounds allow (× faster)."
    )
    measured_times_slower_than_the_model: float = Field(description="What was measured ÷ the model; 1 without trials.")
    bounds: list[BoundAnswer] = Field(description="Limits, the proven ones first.")
    would_take: list[ChangeAnswer] = Field(description="Changes of which each alone would do.")
    expected_to_meet: str | None = Field(description="A layout that does meet the SLO by the model, else null.")
    lines: list[str] = Field(description="All of it in words, a line per bound and change.")


def infeasible_answer(reasons: Infeasible) -> InfeasibleAnswer:
    """Bounds and changes."""
    return InfeasibleAnswer(
        proven=reasons.proven,
        assumed_at_most_times_faster_than_the_model=MARGIN,
        measured_times_slower_than_the_model=reasons.slower,
        bounds=[BoundAnswer(**asdict(bound)) for bound in reasons.bounds],
        would_take=[ChangeAnswer(**asdict(change)) for change in reasons.would_take],
        expected_to_meet=reasons.expected,
        lines=reasons.lines(),
    )
