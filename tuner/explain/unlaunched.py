"""Shapes of which nothing was launched: the best candidate of each, and why it stayed a candidate."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.layout import ParallelLayout
from tuner.ask.rules import DropReason
from tuner.decide.decision import Decision
from tuner.plan.prune import Prediction

OPEN = "nothing rules it out; the study ended first"


@dataclass(frozen=True, slots=True)
class Unlaunched:
    """The highest ranked of ``count`` candidates that have its degrees of parallelism, what the model says of it, and
    why it was not launched."""

    layout: ParallelLayout
    count: int
    prediction: Prediction
    why: str


def unlaunched(decision: Decision) -> tuple[Unlaunched, ...]:
    """One for each shape of the ranking without a trial, in the ranking's order."""
    launched = {trial.layout.shape for trial in decision.trials}
    why = {group.example: group.figure for group in decision.dropped if group.reason is DropReason.OUTRANKED}
    ranked = [(ParallelLayout.parse(name), prediction) for name, prediction in decision.predictions.items()]
    shapes = [layout.shape for layout, _ in ranked]
    best = {layout.shape: (layout, prediction) for layout, prediction in reversed(ranked)}
    found = []
    for shape in dict.fromkeys(shapes):
        if shape not in launched:
            layout, prediction = best[shape]
            found.append(Unlaunched(layout, shapes.count(shape), prediction, why.get(layout, OPEN)))
    return tuple(found)
