"""A decision is made once and kept whole: whoever looks at the study again reads that one."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.fakes import NOTHING_SPENT, copy_of_empty_store, document, make_candidate, make_request, make_step
from tests.world import World
from tuner.app.answers.decision import decision_answer
from tuner.app.cli.commands import app
from tuner.app.wiring import decision_of
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.rules import DropReason
from tuner.ask.space import load_space
from tuner.decide.decision import Decision, decide
from tuner.plan.infeasible import infeasible
from tuner.plan.prune import DroppedGroup
from tuner.study.lifecycle import StudyState
from tuner.study.records import Snapshot, StudyRecord
from tuner.study.store import Store
from tuner.study.stored_decision import kept_decision, read_decision
from tuner.trial.results import LoadStep, Purpose, TrialResult, TrialState

pytestmark = pytest.mark.slow  # each test looks at a whole study

CHANGES = {
    "load.seconds": 3, "load.warmup_seconds": 0, "budget.launches": 2, "space": {"tp": [1, 2], "dp": [1, 2]},
    "slo": [{"metric": "ttft", "percentile": 90, "ms": 500}, {"metric": "tpot", "percentile": 90, "ms": 50}],
}  # fmt: skip


def measured(number: int, layout: str, ttft_ms: float, failed: int = 0, **more: Any) -> TrialResult:
    steps = tuple(make_step(LoadStep(i, 4.0 * (i + 1), 1.0, i), REQUEST, ttft_ms, failed) for i in range(2))
    return TrialResult(number, ParallelLayout.parse(layout), TrialState.MEASURED, steps, seconds=9.5, **more)


REQUEST = make_request()
RANKED = [make_candidate("tp=1,pp=1,dp=1"), make_candidate("tp=2,pp=1,dp=1")]
DROPPED = [DroppedGroup(DropReason.MEMORY, 3, ParallelLayout(tp=8), "weights 15.00 GiB exceed 10 GiB")]
TRIALS = {
    "nothing": (),
    "a winner twice": (
        measured(0, "tp=2", 20.0), measured(1, "tp=1", 30.0, device_s=9.5),
        measured(2, "tp=1", 31.0, purpose=Purpose.CONFIRM, repeat=1),
    ),
    "all miss": (measured(0, "tp=2", 900.0),),
    "requests failed": (measured(0, "tp=2", 20.0, failed=1),),
}  # fmt: skip
RECORD = StudyRecord("s", 0.0, REQUEST, {}, 2, tuple(RANKED), (), True, StudyState.DECIDED)


def decided(trials: tuple[TrialResult, ...]) -> Decision:
    decision = decide("s", REQUEST, trials, RANKED, DROPPED, NOTHING_SPENT)
    if decision.winner is None:
        hopeless = make_request({"slo.0.ms": 2.0, "space": {"tp": [1]}})
        why = infeasible(hopeless, load_model(REQUEST.model), load_space(hopeless.space))
        decision = replace(decision, infeasible=why)
    return replace(decision, files={"report": "out/s/report.html"})


@pytest.mark.parametrize("trials", TRIALS.values(), ids=list(TRIALS))
def test_it_comes_back_whole_from_json_that_every_database_takes(trials: tuple[TrialResult, ...]) -> None:
    decision = decided(trials)
    text = json.dumps(kept_decision(decision), allow_nan=False)
    assert read_decision(json.loads(text), RECORD, Snapshot(StudyState.DECIDED, (), (), (), ())) == decision
    assert text.count('"log_tail"') == len(trials)  # each trial once


@pytest.mark.parametrize("trials", TRIALS.values(), ids=list(TRIALS))
def test_what_was_kept_before_decisions_were_whole_still_reads(trials: tuple[TrialResult, ...]) -> None:
    """Then the answer of ``parlay tune`` was kept; drops, reasons and files are its, the rest is made of the trials."""
    decision = decided(trials)
    kept = json.loads(decision_answer(decision, REQUEST, {}).to_json())
    assert read_decision(kept, RECORD, Snapshot(StudyState.DECIDED, trials, (), (), ())) == decision


@pytest.mark.slow
def test_a_study_ends_by_storing_its_decision(tmp_path: Path) -> None:
    world = World(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")
    study, _, _, store, _ = world.process()
    assert store.study_names() == []
    decision = study.run(resume=False, facts={})
    assert store.decision("s") == decision
    assert decision_of(store, store.study("s")) == (decision, True)


@pytest.mark.slow
def test_what_is_emitted_of_a_study_that_has_not_ended_says_so(tmp_path: Path) -> None:
    url = copy_of_empty_store(tmp_path / "store.db")
    study, *_ = World(url, tmp_path / "logs").process()
    study.run(resume=False, facts={})
    done = CliRunner().invoke(app, ["emit", "s", "--store", url])
    assert done.stderr == ""
    with sqlite3.connect(tmp_path / "store.db") as db:
        db.execute("update parlay_studies set decision = null")
    again = CliRunner().invoke(app, ["emit", "s", "--store", url])
    assert again.stdout == done.stdout
    assert "has not ended" in again.stderr


def test_a_study_without_a_winner_says_why_in_its_decision(tmp_path: Path) -> None:
    world = World(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs", ttft_ms=lambda layout, step: 1e6)
    study, _, _, store, _ = world.process({"budget.launches": 1})
    decision = study.run(resume=False, facts={})
    assert decision.winner is None
    assert decision.infeasible is not None
    assert store.decision("s") == decision


@pytest.fixture
def studies(tmp_path: Path) -> Any:
    """(run a command on the store, the store's file) where a study ``s`` was tuned on a simulated cluster."""
    (tmp_path / "out").mkdir()
    store = copy_of_empty_store(tmp_path / "out" / "parlay.db")
    (tmp_path / "request.yaml").write_text(yaml.safe_dump(document(CHANGES)))

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--store", store])

    done = run("tune", str(tmp_path / "request.yaml"), "--launcher", "simulated", "--study", "s", "--json")
    assert done.exit_code == 0, done.output
    return run, tmp_path / "out" / "parlay.db", json.loads(done.stdout)


def test_what_tune_printed_is_what_show_and_the_file_say(studies: Any) -> None:
    run, database, tuned = studies
    shown = json.loads(run("show", "s", "--json").stdout)
    assert shown == tuned | {"ended": True, "state": "decided"}
    assert json.loads((database.parent / "s" / "decision.json").read_text()) == tuned
    assert tuned["files"]["report"] in run("show", "s").stdout.replace("\n", "")


def test_nobody_decides_again_what_was_decided(studies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _, tuned = studies
    for place in ("tuner.app.wiring.decide", "tuner.study.stored_decision.decide", "tuner.study.study.decide"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("decided again"))
    for command in ("show", "explain"):
        answer = json.loads(run(command, "s", "--json").stdout)
        assert (answer["why"], answer["ended"]) == (tuned["why"], True)


def test_a_study_that_went_on_is_shown_as_it_stands(studies: Any) -> None:
    run, database, tuned = studies
    with sqlite3.connect(database) as db:
        db.execute("update parlay_trials set number = 7 where number = 0")
        db.execute("update parlay_steps set trial = 7 where trial = 0")
    shown = json.loads(run("show", "s", "--json").stdout)
    assert shown["ended"] is False
    assert {trial["number"] for trial in shown["trials"]} == {7} | {t["number"] for t in tuned["trials"][1:]}
    for command in ("show", "explain"):
        assert "has not ended: this is how it stands" in run(command, "s").stdout
    assert json.loads(run("explain", "s", "--json").stdout)["ended"] is False


def test_a_study_without_a_decision_is_shown_as_it_stands(studies: Any) -> None:
    run, database, tuned = studies
    with sqlite3.connect(database) as db:
        db.execute("update parlay_studies set decision = null")
    shown = json.loads(run("show", "s", "--json").stdout)
    assert (shown["ended"], shown["files"], shown["winner"]) == (False, {}, tuned["winner"])
    assert Store(f"sqlite:///{database}").decision("s") is None
