"""What a person reads while trials run."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from tests.fakes import make_request, make_step
from tuner.app.tune.screen import Screen
from tuner.ask.layout import ParallelLayout
from tuner.search.proposal import Proposal
from tuner.trial.ledger import Spent
from tuner.trial.results import LoadStep, TrialResult, TrialState

ONE, TWO = ParallelLayout(), ParallelLayout(tp=2)


@pytest.fixture
def screen():
    shown = Screen(Console(file=io.StringIO(), width=200), make_request())
    yield shown
    shown.close()


def lines(screen):
    return [line[7:] for line in screen._console.file.getvalue().splitlines()]


def test_a_trial_alone_needs_no_name(screen):
    screen.trial_started(0, 8, Proposal(ONE, "why"))
    screen.ready(0, SimpleNamespace(ready_after_s=2.0))
    assert lines(screen)[-1] == "  ready after 2.0 s"


def test_each_of_several_trials_is_named_on_its_lines(screen):
    for number, layout in enumerate((ONE, TWO)):
        screen.trial_started(number, 8, Proposal(layout, "why"))
    assert "beside 1 more" in lines(screen)[-1]
    screen.step_measured(0, make_step(LoadStep(0, 8.0, 1.0, 0), screen._request, 20.0))
    assert lines(screen)[-1].startswith("  trial 1: 8 req/s, 8/8 answered")
    screen.trial_finished(TrialResult(1, TWO, TrialState.STOPPED, detail="too slow"))
    assert lines(screen)[-1].startswith("  trial 2: ")
    screen.ready(0, SimpleNamespace(ready_after_s=2.0))
    assert lines(screen)[-1] == "  ready after 2.0 s"


@pytest.mark.parametrize(("took_s", "words"), [(3.5, "  warm-up of 3.5 s (usually 5 s)"), (5.2, None), (None, None)])
def test_a_warm_up_that_was_not_as_long_as_usual_has_a_line(screen, took_s, words):
    step = LoadStep(-1, 8.0, 5.0, 0, warmup=True, longest_s=20.0)
    screen.trial_started(0, 8, Proposal(ONE, "why"))
    before = lines(screen)
    screen.step_measured(0, replace(make_step(step, screen._request, 20.0), offered_s=took_s))
    assert lines(screen)[len(before) :] == ([] if words is None else [words])


def test_the_best_so_far_is_told_when_it_changes_and_the_end_with_its_reason(screen):
    result = TrialResult(0, TWO, TrialState.MEASURED, (make_step(LoadStep(0, 8.0, 1.0, 0), screen._request, 20.0),))
    spent = Spent(1, 1.0, 0.1, None)
    screen.best_so_far(None, spent)
    for _ in range(2):
        screen.best_so_far(result, spent)
    screen.ended("the budget of 8 launches is spent")
    told = lines(screen)
    assert [line.partition(",")[0] for line in told] == [
        "best so far: tp=2",
        "the budget of 8 launches is spent",
    ]
    assert "meets the SLO" in told[0]
