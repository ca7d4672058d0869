"""A driver and its store: what it reads while it waits, what it counts as spent, and which state the study is in."""

from __future__ import annotations

import threading
import time

import pytest

from tests.fakes import copy_of_empty_store
from tests.world import TP2_DP2, World
from tuner.app.wiring import decision_of
from tuner.decide.decision import decide
from tuner.errors import FailureReason, StoreError
from tuner.study.lease import LEASE_S, is_gone, new_driver
from tuner.study.lifecycle import StudyState
from tuner.study.records import TrialClaim
from tuner.trial.devices import Placement
from tuner.trial.results import Purpose, TrialResult, TrialState

ONE_RATE = {"load.rates_req_per_s": [8]}


@pytest.fixture
def world(tmp_path):
    """A minute for each trial's warm-up, ten seconds for each load step."""
    made = World(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")

    def measured(layout, step):
        made.now_s += 60 if step.warmup else 10
        return 10 * step.rate_req_per_s / layout.devices

    made.ttft_ms = measured
    return made


def ending_with(world, error, step_index):
    """The meter of a process in which the first such step ends with an error."""
    fine, left = world.ttft_ms, [error]

    def measured(layout, step):
        took = fine(layout, step)
        return left.pop() if left and step.index == step_index else took

    return measured


def counting(counts, name, method):
    """The method, which counts its calls."""

    def counted(*words):
        counts[name] += 1
        return method(*words)

    return counted


@pytest.mark.slow
def test_trials_side_by_side_do_not_add_up_their_minutes(world):
    """Two trials whose five steps of ten minutes go by at the same time: 50 minutes, and 50 on each device."""

    def ten_minutes_pass():
        world.now_s += 600

    together = threading.Barrier(2, ten_minutes_pass)

    def measured(layout, step):
        together.wait(timeout=60)
        return 10 * step.rate_req_per_s / layout.devices

    world.ttft_ms = measured
    study, launcher, _, _, _ = world.process({"budget.launches": 2, "isolation": "none"})
    launcher.parallel = 2
    decision = study.run(resume=False, facts={})
    assert sum(trial.seconds for trial in decision.trials) / 60 == 100
    assert decision.spent.minutes == 50 <= study._s.request.budget.minutes
    devices = sum(trial.layout.devices for trial in decision.trials)
    assert decision.spent.gpu_hours == pytest.approx(devices * 50 / 60)


@pytest.mark.slow
def test_a_killed_drivers_device_time_is_in_the_decision(world):
    """It was at work on four devices for 70 s, then its process ended without a word."""
    changes = ONE_RATE | {"budget.launches": 1}
    study, _, _, store, _ = world.process(changes)
    study._meter.ttft_ms = ending_with(world, ZeroDivisionError("stands for a kill"), 0)
    with pytest.raises(ZeroDivisionError):
        study.run(resume=False, facts={})
    world.running.clear()
    decision = world.process(changes)[0].run(resume=True, facts={})
    spent = decision.spent
    assert (spent.launches, spent.lost) == (1, 1)
    assert spent.minutes == pytest.approx(140 / 60)
    assert spent.gpu_hours == pytest.approx(2 * 4 * 70 / 3600)
    assert spent.usd == pytest.approx(spent.gpu_hours * 3)
    assert [trial.device_s for trial in decision.trials] == [4 * 70]
    assert decision_of(store, store.study("s"))[0].spent == spent


@pytest.mark.slow
def test_a_cancelled_trials_device_time_is_in_the_decision(world):
    changes = ONE_RATE | {"budget.launches": 1}
    study, _, _, store, _ = world.process(changes)
    study._meter.ttft_ms = ending_with(world, KeyboardInterrupt(), 0)
    with pytest.raises(KeyboardInterrupt):
        study.run(resume=False, facts={})
    stopped = decision_of(store, store.study("s"))[0].spent
    assert (stopped.launches, stopped.lost, stopped.gpu_hours) == (0, 1, pytest.approx(4 * 70 / 3600))
    spent = world.process(changes)[0].run(resume=True, facts={}).spent
    assert (spent.launches, spent.lost, spent.gpu_hours) == (1, 1, pytest.approx(2 * 4 * 70 / 3600))
    assert spent.usd == pytest.approx(spent.gpu_hours * 3)


@pytest.mark.slow
def test_what_was_cancelled_is_held_against_the_budget(world):
    """140 s on four devices are 0.16 GPU-hours: after a cancelled trial of 70 s, one more is within 0.15, not two."""
    changes = ONE_RATE | {"budget.launches": 8, "budget.gpu_hours": 0.15}
    study, _, _, _, _ = world.process(changes)
    study._meter.ttft_ms = ending_with(world, KeyboardInterrupt(), 0)
    with pytest.raises(KeyboardInterrupt):
        study.run(resume=False, facts={})
    study, launcher, _, _, _ = world.process(changes)
    study.run(resume=True, facts={})
    assert launcher.launched == [TP2_DP2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt(), StudyState.CANCELLED), (ZeroDivisionError("x"), StudyState.FAILED)]
)
def test_the_state_of_a_study_from_its_begin_to_its_end(world, error, state):
    changes = ONE_RATE | {"budget.launches": 2}
    study, _, _, store, journal = world.process(changes)
    seen = []
    journal.planned = lambda plan: seen.append(store.study("s").state)
    study._meter.ttft_ms = ending_with(world, error, 0)
    with pytest.raises(type(error)):
        study.run(resume=False, facts={})
    assert seen == [StudyState.RUNNING]
    assert store.study("s").state is state
    again, _, _, _, journal = world.process(changes)
    journal.planned = lambda plan: seen.append(store.study("s").state)
    again.run(resume=True, facts={})
    assert seen == [StudyState.RUNNING] * 2
    assert store.study("s").state is StudyState.DECIDED


@pytest.mark.slow
def test_a_driver_that_is_interrupted_leaves_the_study_running_to_others(world):
    study, _, _, store, _ = world.process(ONE_RATE)
    study._meter.ttft_ms = ending_with(world, KeyboardInterrupt(), 0)
    store.create_study("s", study._s.request, {})
    store.beat("s", "elsewhere/0/1/1", 0.0)
    with pytest.raises(KeyboardInterrupt):
        study.run(resume=True, facts={})
    assert store.study("s").state is StudyState.RUNNING


@pytest.mark.slow
def test_while_it_waits_a_driver_reads_no_trials_again(world, monkeypatch):
    """However often it looks at the store while its trial is measured, it is for the pulse alone."""
    monkeypatch.setattr("tuner.study.driver.OTHERS_S", 0.001)
    study, launcher, meter, store, _ = world.process(ONE_RATE | {"budget.launches": 1})
    launcher.parallel = 2
    counts = dict.fromkeys(("pulse", "snapshot", "take_over", "ledger", "study"), 0)
    for name in counts:
        monkeypatch.setattr(store, name, counting(counts, name, getattr(store, name)))
    waited = []

    def after_pulses(number):
        until = counts["pulse"] + number
        while counts["pulse"] < until:
            time.sleep(0.001)
        return {name: count for name, count in counts.items() if name != "pulse"}

    def measured(layout, step):
        waited.append((after_pulses(5), after_pulses(30)))  # the first few: until the turn of the claim is over
        return 10.0

    meter.ttft_ms = measured
    study.run(resume=False, facts={})
    (before, after), _ = waited
    assert before == after


@pytest.mark.slow
def test_what_another_driver_gave_up_is_begun_again(world):
    """It was cancelled while this one worked, and left its trial behind: the layout is still the study's to measure."""
    study, launcher, _, store, journal = world.process(ONE_RATE | {"budget.launches": 2})

    def given_up(plan):
        best = plan.ranked[0].layout
        claim = TrialClaim("elsewhere/0/1/1", best, Purpose.EXPLORE, 0, 0.0, None, world.folder)
        number = store.claim_trial("s", claim, lambda held: Placement(((0, best.devices),)), launches=8).number
        cancelled = TrialResult(number, best, TrialState.FAILED, failure=FailureReason.CANCELLED, device_s=9.0)
        store.finish_trial("s", cancelled, claim.driver)

    journal.planned = given_up
    decision = study.run(resume=False, facts={})
    assert launcher.launched[0] == TP2_DP2
    assert len(decision.trials) == 2
    assert (decision.spent.launches, decision.spent.lost) == (2, 1)


@pytest.mark.slow
def test_an_error_after_the_last_trial_ends_the_study_too(world):
    study, _, _, store, journal = world.process(ONE_RATE | {"budget.launches": 1})

    def fail(why):
        raise OSError("no space left on the disk")

    journal.ended = fail
    with pytest.raises(OSError, match="disk"):
        study.run(resume=False, facts={})
    assert store.study("s").state is StudyState.FAILED


def test_a_driver_that_cannot_begin_leaves_no_sign_of_life(world, monkeypatch):
    """Else it would keep a study from all others for as long as its process lives."""
    study, _, _, store, _ = world.process(ONE_RATE)

    def locked(study, state):
        raise StoreError("database is locked")

    monkeypatch.setattr(store, "change_state", locked)
    with pytest.raises(StoreError, match="locked"):
        study.run(resume=False, facts={})
    assert [one for one in threading.enumerate() if one.name == "heartbeat"] == []
    assert all(one.silent_s > LEASE_S for one in store.snapshot("s").drivers)


@pytest.mark.slow
def test_a_study_that_is_deciding_is_not_ended_by_another_driver(world, monkeypatch):
    """That one was interrupted, and saw nobody at work any more."""
    study, _, _, store, _ = world.process(ONE_RATE | {"budget.launches": 1})

    def interrupted_meanwhile(*words):
        store.end_study("s", StudyState.CANCELLED, is_gone)
        return decide(*words)

    monkeypatch.setattr("tuner.study.study.decide", interrupted_meanwhile)
    monkeypatch.setattr(study, "_driver", new_driver())  # of a process that lives
    decision = study.run(resume=False, facts={})
    assert (store.study("s").state, store.decision("s")) == (StudyState.DECIDED, decision)
