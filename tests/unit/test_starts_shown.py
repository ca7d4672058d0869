"""Starts by phase, as people and programs are shown them."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from deploy.report.start_charts import starts
from deploy.report.study_page import figures_of, render_report
from tests.fakes import make_request
from tests.report_sample import sample
from tests.unit.test_study_page import Outline
from tuner.app.answers.trial import trial_answer
from tuner.app.tune.start_table import starts_table
from tuner.ask.deployment import parse_deployment
from tuner.trial.launched import Launched, NoEngine
from tuner.trial.results import TrialResult, TrialState
from tuner.trial.start_up import StartPhase, StartUp

UP = StartUp({StartPhase.OTHER: 1.0, StartPhase.WEIGHTS: 5.0, StartPhase.COMPILE: 19.4, StartPhase.FRONT: 0.1}, True)


def trial(number: int, up: StartUp | None) -> TrialResult:
    launched = Launched("ray-serve", {}, "m", NoEngine("x"), up)
    return TrialResult(number, parse_deployment("tp=1"), TrialState.MEASURED, launched=launched)


def test_a_table_has_the_phases_that_took_any_time() -> None:
    out = StringIO()
    starts_table(Console(file=out, width=100), [trial(0, UP), trial(1, None)])
    text = " ".join(out.getvalue().split())
    assert "weights │ compile │ other │ all │ compiled" in text.replace("┃", "│")
    assert "5.0 │ 19.4 │ 1.0 │ 25.5 │ anew" in text
    starts_table(Console(file=out), [trial(0, None)])
    assert " ".join(out.getvalue().split()) == text


def test_an_answer_has_them_in_order() -> None:
    found = trial_answer(trial(0, UP), make_request(), None).start_up
    assert found is not None
    assert list(found.phases_s.items()) == [("weights", 5.0), ("compile", 19.4), ("front", 0.1), ("other", 1.0)]
    assert (found.seconds, found.compiled_anew) == (25.5, True)
    assert trial_answer(trial(0, None), make_request(), None).start_up is None


def test_the_report_stacks_them() -> None:
    data = sample()
    assert starts(data) is None
    assert "starts" not in figures_of(data)
    phases = tuple((phase.words, seconds) for phase, seconds in UP.in_order())
    rows = tuple(r if r.trial is None else replace(r, trial=replace(r.trial, phases=phases)) for r in data.layouts)
    shown = replace(data, layouts=rows)
    bars = figures_of(shown)["starts"]["data"]
    assert [(bar["name"], bar["x"][0]) for bar in bars] == [
        ("loading weights", 5.0), ("compiling", 19.4), ("starting its server", 0.1), ("waiting for the engine", 1.0),
    ]  # fmt: skip
    assert "Each start by phase" in Outline(render_report(shown)).text
