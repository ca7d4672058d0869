"""Other paths to an engine that runs, measured before it is torn down: which, and what becomes of the study."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes import copy_of_empty_store
from tests.in_order import InOrder
from tests.world import World
from tuner.ask.layout import FRONT_AXES
from tuner.errors import Cancelled, Cause, FailureReason, LaunchFailed
from tuner.plan.prune import plan
from tuner.study.records import app_name
from tuner.trial.cancel import CancelHandle
from tuner.trial.ledger import Outcome
from tuner.trial.results import TrialState

ENGINE = "tp=1,pp=1,dp=1"
SLOW, FAST = f"{ENGINE},stream_interval_ms=20", f"{ENGINE},stream_interval_ms=40"
ONE = {
    "space": {"tp": [1], "stream_interval_ms": [0, 40]},
    "objective": "min_gpus",
    "load.rates_req_per_s": [8],
    "slo.0.ms": 100,
    "budget.launches": 4,
}
TTFT_MS = {ENGINE: 150.0, SLOW: 120.0, FAST: 90.0}


def plan_of_engines(request, model, cluster, space):
    axes = {name: values for name, values in space.axes.items() if name not in FRONT_AXES}
    return plan(request, model, cluster, replace(space, axes=axes))


class Again(InOrder):
    """It wants a second window of whatever met the SLO."""

    def once_more(self, history, layout):
        return "measured again" if history.met() and len(history.of(layout)) == 1 else None


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Ten seconds for each load step; the longer tokens are gathered, the sooner the first of them comes. The plan
    has each engine behind the default path."""
    monkeypatch.setattr("tuner.study.study.plan", plan_of_engines)
    made = World(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")

    def measured(layout, step):
        made.now_s += 10
        return TTFT_MS[str(layout)]

    made.ttft_ms = measured
    return made


@pytest.mark.slow
def test_a_layout_that_misses_by_latency_is_measured_behind_other_paths_on_its_engine(world):
    study, launcher, _, store, _ = world.process(ONE)
    decision = study.run(resume=False, facts={})
    assert launcher.launched == [ENGINE]
    assert launcher.reconfigured == [FAST]
    missed, other = decision.trials
    assert [(str(t.layout), t.engine_of) for t in decision.trials] == [(ENGINE, None), (FAST, 0)]
    assert (missed.state, other.state, other.ready_after_s) == (TrialState.STOPPED, TrialState.MEASURED, 0.25)
    assert other.launched.payload.config["args"] == {"layout": FAST}
    assert str(decision.winner.layout) == FAST
    assert decision.spent.launches == 1
    assert decision.spent.gpu_hours == pytest.approx(40 / 3600)  # two trials of a warm-up and a load step
    assert (missed.seconds, missed.device_s, other.seconds, other.device_s) == (20, 20, 20, 20)
    assert store.trial_starts("s") == {0: 0, 1: 20}
    assert store.snapshot("s").pulse.mark == store.pulse("s").mark
    assert world.running == set()
    assert store.trials("s") == list(decision.trials)


@pytest.mark.slow
def test_the_others_are_measured_in_turn_until_one_meets_the_slo(world):
    world.ttft_ms = lambda layout, step: {ENGINE: 150.0, FAST: 120.0, SLOW: 110.0}[str(layout)]
    space = {"tp": [1], "stream_interval_ms": [0, 20, 40]}
    study, launcher, _, store, _ = world.process(ONE | {"space": space})
    decision = study.run(resume=False, facts={})
    assert (launcher.launched, sorted(launcher.reconfigured)) == ([ENGINE], [SLOW, FAST])
    assert [t.engine_of for t in store.trials("s")] == [None, 0, 0]
    assert decision.winner is None
    assert f"the nearest is {SLOW}" in decision.why


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ttft_ms", "changes"),
    [
        (90.0, {}),  # it meets the SLO, and no path makes it need fewer devices
        (900.0, {}),  # no path takes so long
        (LaunchFailed(FailureReason.CLIENT_ERROR, "no answer"), {}),
        (150.0, {"budget.minutes": 0.33}),  # no time is left for another trial
        (150.0, {"space": {"tp": [1]}}),
    ],
    ids=["met", "far", "failed", "no budget", "no others"],
)
def test_nothing_else_is_measured_where_it_cannot_matter(world, ttft_ms, changes):
    def measured(layout, step):
        world.now_s += 10
        return ttft_ms

    world.ttft_ms = measured
    study, launcher, *_ = world.process({**ONE, **changes})
    study.run(resume=False, facts={})
    assert (launcher.launched, launcher.reconfigured) == ([ENGINE], [])
    assert world.running == set()


@pytest.mark.slow
def test_a_launcher_that_changes_nothing_in_place_is_asked_nothing(world):
    study, launcher, *_ = world.process(ONE)
    launcher.in_place = frozenset()
    study.run(resume=False, facts={})
    assert (launcher.launched, launcher.reconfigured) == ([ENGINE], [])


@pytest.mark.slow
def test_a_change_that_fails_is_a_failed_trial_and_the_end_of_the_engine(world):
    world.failures = {FAST: LaunchFailed(FailureReason.START_TIMED_OUT, "no ingress")}
    study, launcher, _, store, _ = world.process(ONE)
    study.run(resume=False, facts={})
    missed, failed = store.trials("s")
    assert (failed.failure, failed.detail) == (FailureReason.START_TIMED_OUT, "no ingress")
    assert (failed.launched, failed.ready_after_s, failed.engine_of) == (None, None, 0)
    assert missed.state is TrialState.STOPPED
    assert (launcher.launched, launcher.reconfigured) == ([ENGINE], [FAST])
    assert world.running == set()


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["change", "load", "end"])
def test_a_study_killed_in_between_keeps_the_trial_before_and_takes_the_next_up(world, monkeypatch, at):
    fine = world.ttft_ms

    def killed(*_):
        monkeypatch.setattr("tests.fakes.FakeDeployment.teardown", lambda gone: None)
        raise Killed

    if at == "load":
        world.ttft_ms = lambda layout, step: killed() if str(layout) == FAST and step.index == 0 else fine(layout, step)
    study, launcher, _, store, _ = world.process(ONE)
    if at == "change":
        monkeypatch.setattr("tests.fakes.FakeDeployment.reconfigure", killed)
    if at == "end":
        monkeypatch.setattr(store, "finish_trial", killed)
    with pytest.raises(Killed):
        study.run(resume=False, facts={})
    monkeypatch.undo()
    monkeypatch.setattr("tuner.study.study.plan", plan_of_engines)
    assert [t.state for t in store.trials("s")] == [TrialState.STOPPED, TrialState.RUNNING]
    assert world.running == ({app_name("s", 0)} if at != "end" else set())  # there it is recorded that it is gone
    world.ttft_ms = fine
    study, launcher, _, store, _ = world.process(ONE)
    decision = study.run(resume=True, facts={})
    assert app_name("s", 0) in launcher.removed
    assert (launcher.launched, launcher.reconfigured) == ([FAST], [])  # the engine is gone: one launch more
    assert [(str(t.layout), t.engine_of) for t in decision.trials] == [(ENGINE, None), (FAST, None)]
    assert str(decision.winner.layout) == FAST
    assert [entry.outcome for entry in store.ledger("s")] == [Outcome.ENDED, Outcome.ENDED]
    assert decision.spent.launches == 2


@pytest.mark.slow
@pytest.mark.parametrize("where", ["before", "within"])
def test_a_study_cancelled_in_between_keeps_what_was_measured(world, where):
    handle, fine = CancelHandle(), world.ttft_ms

    def measured(layout, step):
        if (str(layout), step.index) == ((ENGINE, 0) if where == "before" else (FAST, -1)):
            handle.cancel(Cause.OPERATOR, "enough")
        return fine(layout, step)

    world.ttft_ms = measured
    study, launcher, _, store, _ = world.process(ONE, cancel=handle)
    with pytest.raises(Cancelled):
        study.run(resume=False, facts={})
    assert world.running == set()
    first, *rest = store.trials("s")
    if where == "within":
        (second,) = rest
        assert (first.state, second.failure) == (TrialState.STOPPED, FailureReason.CANCELLED)
    assert [entry.outcome for entry in store.ledger("s")] == [Outcome.ENDED]
    world.ttft_ms = fine
    study, launcher, *_ = world.process(ONE)
    assert str(study.run(resume=True, facts={}).winner.layout) == FAST
    assert launcher.launched == [FAST]


@pytest.mark.slow
def test_a_second_window_on_an_engine_is_a_trial_and_no_launch(world):
    """On a deployment that could change nothing, too: it serves the same, is warm, and is not started again."""
    study, launcher, _, store, journal = world.process(ONE | {"space": {"tp": [1]}, "slo.0.ms": 200})
    study._strategist = Again.of
    decision = study.run(resume=False, facts={})
    assert (launcher.launched, launcher.reconfigured) == ([ENGINE], [])
    first, again = decision.trials
    assert (again.repeat, again.engine_of, again.purpose.value) == (1, 0, "confirm")
    assert (again.ready_after_s, again.seconds, [s.step.warmup for s in again.steps]) == (None, 10.0, [False])
    assert again.steps[0].step.seed != first.steps[0].step.seed
    assert (str(decision.winner.layout), again.state) == (ENGINE, TrialState.MEASURED)
    assert [entry.outcome for entry in store.ledger("s")] == [Outcome.ENDED]
    assert "ready 1" not in journal.told
