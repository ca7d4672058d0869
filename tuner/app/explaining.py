"""``parlay explain``: why a study's winner won, and for one layout where its milliseconds go or why it was dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from tuner.app.answers import dropped_answer, ranked_answer
from tuner.app.tables import breakdown_table, dropped_table
from tuner.app.wiring import breakdowns, decision_of
from tuner.cluster import requested_cluster
from tuner.cost.breakdown import Breakdown
from tuner.decide import Decision
from tuner.errors import BadInput
from tuner.layout import ParallelLayout
from tuner.model import load_model
from tuner.prune import Candidate, DroppedGroup
from tuner.request import TuneRequest
from tuner.rules import illegal
from tuner.store import Store, StudyRecord


@dataclass(frozen=True, slots=True)
class Explained:
    """The pieces of an explanation, for people and for machines."""

    decision: Decision
    candidates: tuple[Candidate, ...]
    splits: dict[ParallelLayout, Breakdown]
    dropped: tuple[DroppedGroup, ...]

    @property
    def answer(self) -> dict[str, Any]:
        """The explanation as JSON."""
        return {
            "study": self.decision.study,
            "why": self.decision.why,
            "remedy": self.decision.remedy,
            "layouts": [ranked_answer(c, self.splits.get(c.layout)) for c in self.candidates],
            "dropped": [dropped_answer(group) for group in self.dropped],
        }

    def print(self, console: Console, request: TuneRequest) -> None:
        """The explanation in the terminal."""
        console.print(self.decision.why, soft_wrap=True, highlight=False)
        if self.decision.remedy:
            console.print(self.decision.remedy, soft_wrap=True, highlight=False)
        breakdown_table(console, self.candidates, self.splits)
        dropped_table(console, self.dropped)


def explain_study(store: Store, record: StudyRecord, layout: ParallelLayout | None) -> Explained:
    """Explain the winner beside the runner-up, or one layout; raises BadInput for one that is not of the space."""
    decision = decision_of(store, record)
    ranked = {candidate.layout: candidate for candidate in record.ranked or ()}
    if layout is None:
        chosen = [t.layout for t in (decision.winner, decision.runner_up) if t is not None]
        chosen = chosen or [t.layout for t in decision.trials[:2]]
        dropped = decision.dropped
    else:
        chosen = [layout] if layout in ranked else []
        dropped = () if chosen else _why_dropped(record, decision, layout)
    model, cluster = load_model(record.request.model), requested_cluster(record.request)
    splits = breakdowns(record.request, model, cluster, [one for one in chosen if one in ranked])
    return Explained(decision, tuple(ranked[one] for one in splits), splits, tuple(dropped))


def _why_dropped(record: StudyRecord, decision: Decision, layout: ParallelLayout) -> tuple[DroppedGroup, ...]:
    drop = illegal(load_model(record.request.model), layout, requested_cluster(record.request).group(layout))
    if drop is not None:
        return (DroppedGroup(drop.reason, 1, layout, drop.figure),)
    same = tuple(g for g in decision.dropped if g.example == layout)
    alike = tuple(g for g in decision.dropped if g.example.shape == layout.shape)
    if not same and not alike:
        raise BadInput("--layout", str(layout), "a layout of the study's space")
    return same or alike
