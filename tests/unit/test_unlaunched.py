"""Shapes of which nothing was launched are shown with their best candidate and the reason."""

from __future__ import annotations

import io

from rich.console import Console

from tests.fakes import NOTHING_SPENT, make_candidate, make_request, make_step
from tuner.app.tune.tables import decision_tables
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.ask.rules import DropReason
from tuner.decide.decision import Decision, decide
from tuner.explain.unlaunched import OPEN, unlaunched
from tuner.plan.prune import DroppedGroup
from tuner.trial.results import LoadStep, TrialResult, TrialState

RANKED = [
    ParallelLayout.parse(text)
    for text in ("tp=2", "pp=2", "tp=2,executor=ray", "pp=2,executor=ray", "dp=2", "tp=4", "tp=4,max_num_seqs=8")
]
WHY = "beats tp=2,pp=1,dp=1 by over 2% with a probability of 0.3%"


def decided(request: TuneRequest) -> Decision:
    """Two shapes of four were launched; of the others, one was ruled out."""
    step = make_step(LoadStep(0, 8.0, 1.0, 0), request, 20.0)
    trials = [TrialResult(i, RANKED[at], TrialState.MEASURED, (step,)) for i, at in enumerate((2, 4))]
    dropped = [
        DroppedGroup(DropReason.PLACEMENT, 9, ParallelLayout.parse("tp=16"), "needs 16 devices"),
        DroppedGroup(DropReason.OUTRANKED, 1, RANKED[1], WHY),
        DroppedGroup(DropReason.OUTRANKED, 1, RANKED[3], "another figure"),
    ]
    return decide("s", request, trials, [make_candidate(layout) for layout in RANKED], dropped, NOTHING_SPENT)


def test_each_shape_that_was_not_launched_has_one_line_with_its_reason() -> None:
    found = unlaunched(decided(make_request()))
    assert [(one.layout, one.count, one.why) for one in found] == [(RANKED[1], 2, WHY), (RANKED[5], 2, OPEN)]


def test_the_end_of_a_study_shows_them() -> None:
    request = make_request()
    console = Console(file=io.StringIO(), width=200)
    decision_tables(console, decided(request), request)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Not launched: the best candidate of each other shape" in shown
    rows = [line for line in shown.splitlines() if "tp=1,pp=2,dp=1" in line]
    assert any("+1" in row and "with a probability of 0.3%" in row for row in rows)
    assert any("tp=4,pp=1,dp=1" in line and OPEN in line for line in shown.splitlines())


def test_a_study_that_launched_every_shape_shows_nothing() -> None:
    request = make_request()
    console = Console(file=io.StringIO(), width=200)
    step = make_step(LoadStep(0, 8.0, 1.0, 0), request, 20.0)
    trials = [TrialResult(0, RANKED[0], TrialState.MEASURED, (step,))]
    decision = decide("s", request, trials, [make_candidate(RANKED[2])], [], NOTHING_SPENT)
    decision_tables(console, decision, request)
    assert "Not launched" not in console.file.getvalue()  # type: ignore[attr-defined]
