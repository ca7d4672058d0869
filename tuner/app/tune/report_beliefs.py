"""What the search believed last, for the report: from the study's events."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.report.belief_data import ShownBelief, ShownBeliefs
from tuner.app.answers.beliefs import BeliefsAnswer, BelievedAnswer
from tuner.ask.deployment import Deployment
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Objective, TuneRequest

_AXES = {Objective.MAX_GOODPUT: "Rate held, requests/s", Objective.MIN_LATENCY: "Mean E2E latency, ms"}


def beliefs_shown(
    told: BeliefsAnswer | None, request: TuneRequest, names: Mapping[Deployment, str]
) -> ShownBeliefs | None:
    """What was told of them; None where nothing was, as in a study of an earlier Parlay."""
    if told is None:
        return None

    def shown(row: BelievedAnswer) -> ShownBelief:
        name = names.get(ParallelLayout.parse(row.layout), row.layout)
        return ShownBelief(name, row.devices, row.wins, row.meets, row.of_target, row.objective)

    return ShownBeliefs(
        rows=tuple(shown(row) for row in told.rows),
        left=told.left,
        could_win=told.could_win,
        anything=told.anything,
        best=shown(told.best) if told.best else None,
        axis=_AXES.get(request.objective),
    )
