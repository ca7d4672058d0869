"""A study from its plan to its decision on a scripted cluster: its budget, its bad days, and being killed anywhere."""

import threading

import pytest

from tests.fakes import copy_of_empty_store, make_request, steps_of
from tests.world import CRASH, TP1, TP1_RAY, TP2, TP2_DP2, Journal, World
from tuner.ask.rules import DropReason
from tuner.errors import BadInput, Cancelled, Cause, FailureReason, LaunchFailed
from tuner.study.load_steps import BASE_SEED, warm_up
from tuner.study.study import default_name
from tuner.trial.cancel import CancelHandle
from tuner.trial.results import TrialState


@pytest.fixture
def world(tmp_path):
    return World(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")


@pytest.mark.slow
def test_a_study_from_plan_to_decision(world):
    study, launcher, meter, store, journal = world.process({"budget.launches": 1})
    decision = study.run(resume=False, facts={"vllm": "0.29"})
    assert launcher.launched == [TP2_DP2]
    assert meter.asked == [(TP2_DP2, -1), (TP2_DP2, 0), (TP2_DP2, 1), (TP2_DP2, 2), (TP2_DP2, 3)]
    assert str(decision.winner.layout) == TP2_DP2
    assert decision.winner.state is TrialState.MEASURED
    assert decision.winner.ready_after_s == 1.5
    assert [s.step.index for s in decision.winner.steps] == [0, 1, 2, 3]  # without the warm-up
    assert world.running == set()
    assert journal.told == [
        "planned",
        "started 0 of 1",
        "launching 0: starting the engine",
        "ready 0",
        *(word for i in (-1, 0, 1, 2, 3) for word in (f"step {i} of 4", f"measured {i}")),
        "finished 0: measured",
    ]
    record = store.study("s")
    assert record.candidates_total == 8
    assert len(record.ranked) == 8
    assert record.facts == {"vllm": "0.29"}
    assert store.trials("s") == [decision.winner]
    assert decision.winner.launched.payload.config == {"name": "parlay-s-0", "args": {"layout": TP2_DP2}}
    assert decision.winner.launched.versions == launcher.versions
    order = launcher.orders[0]
    assert (order.app, order.trial) == ("parlay-s-0", 0)
    assert order.log_dir.is_dir()


@pytest.mark.slow
def test_what_the_launcher_cannot_run_is_dropped_and_never_launched(world):
    study, launcher, _, store, _ = world.process({"budget.launches": 8})
    launcher.refused = "ray"
    decision = study.run(resume=False, facts={})
    assert launcher.launched
    assert not any("ray" in layout for layout in launcher.launched)
    refused = [group for group in decision.dropped if group.reason is DropReason.LAUNCHER]
    assert refused
    assert all(group.figure == "executor ray" and group.example.executor == "ray" for group in refused)
    assert store.study("s").dropped == tuple(g for g in decision.dropped if g.reason is not DropReason.OUTRANKED)


def test_a_space_that_the_launcher_cannot_run_at_all_is_refused_before_anything_begins(world):
    study, launcher, _, store, journal = world.process({"space": {"tp": [1, 2], "executor": ["ray"]}})
    launcher.refused = "ray"
    with pytest.raises(BadInput, match="layouts that fake can run; it refuses all 2 that are left"):
        study.run(resume=False, facts={})
    assert store.find_study("s") is None
    assert launcher.orders == journal.told == []


@pytest.mark.slow
def test_a_missed_step_ends_the_trial(world):
    world.ttft_ms = lambda layout, step: 12 * step.rate_req_per_s
    study, _, meter, store, _ = world.process({"budget.launches": 1})
    decision = study.run(resume=False, facts={})
    assert [index for _, index in meter.asked] == [-1, 0, 1, 2]  # 48, 96, then 144 ms against 100; not the fourth
    (trial,) = store.trials("s")
    assert trial.state is TrialState.STOPPED
    assert trial.detail == "the SLO is missed at 12 requests/s (1.44 × the target)"
    assert decision.winner == trial  # it holds 8 requests/s


@pytest.mark.slow
def test_a_slow_warm_up_ends_nothing(world):
    world.ttft_ms = lambda layout, step: 5000 if step.warmup else 20
    study, _, _, store, _ = world.process({"budget.launches": 1})
    study.run(resume=False, facts={})
    assert store.trials("s")[0].state is TrialState.MEASURED


@pytest.mark.slow
def test_a_failed_trial_has_its_reason_and_the_study_goes_on(world):
    world.failures = {TP2_DP2: CRASH}
    study, launcher, _, store, journal = world.process({"budget.launches": 2})
    decision = study.run(resume=False, facts={})
    failed, measured = store.trials("s")
    assert (failed.state, failed.failure, failed.detail) == (
        TrialState.FAILED,
        FailureReason.ENGINE_CRASHED,
        "exit code 1",
    )
    assert failed.log_tail == ("CUDA error",)
    assert failed.ready_after_s is None
    assert failed.steps == ()
    assert "finished 0: engine_crashed" in journal.told
    assert decision.winner == measured
    assert len(launcher.launched) == 2


@pytest.mark.slow
def test_a_replica_that_dies_under_load_fails_its_trial_with_the_engines_log(world):
    died = LaunchFailed(FailureReason.REPLICA_DIED, "no answer")
    world.ttft_ms = lambda layout, step: died if step.index == 1 else 10.0
    study, _, _, store, _ = world.process({"budget.launches": 1})
    decision = study.run(resume=False, facts={})
    (trial,) = store.trials("s")
    assert (trial.state, trial.failure) == (TrialState.FAILED, FailureReason.REPLICA_DIED)
    assert trial.log_tail == ("INFO started", "INFO serving")
    assert [s.step.index for s in trial.steps] == [0]  # what was measured before stays, and counts for nothing
    assert decision.winner is None
    assert decision.why == "no layout could be measured (replica_died)"
    assert world.running == set()


@pytest.mark.slow
def test_no_layout_meets_the_slo(world):
    world.ttft_ms = lambda layout, step: 300 / layout.devices
    study, launcher, _, _, _ = world.process({"objective": "min_gpus", "slo.0.ms": 50})
    decision = study.run(resume=False, facts={})
    assert len(launcher.launched) == 8  # every candidate had its chance
    assert decision.winner is None
    assert f"the nearest is {TP2_DP2}, 1.50 × the target at 4 requests/s" in decision.why
    assert "targets of at least ttft p99 of 75 ms for 4 requests/s" in decision.remedy
    assert "more devices than the 4" in decision.remedy


@pytest.mark.slow
def test_larger_layouts_are_dropped_once_a_smaller_one_meets_the_slo(world):
    study, launcher, _, _, _ = world.process({"objective": "min_gpus"})
    decision = study.run(resume=False, facts={})
    assert launcher.launched == [TP1, TP1_RAY]
    assert str(decision.winner.layout) == TP1
    outranked = {str(d.example): d.figure for d in decision.dropped if d.reason is DropReason.OUTRANKED}
    assert len(outranked) == 6
    assert outranked[TP2] == f"needs 2 devices; {TP1} meets the SLO with 1"


@pytest.mark.slow
@pytest.mark.parametrize("launches", [1, 3, 20])
def test_the_budget_of_launches(world, launches):
    study, launcher, _, _, _ = world.process({"budget.launches": launches})
    study.run(resume=False, facts={})
    assert len(launcher.launched) == len(set(launcher.launched)) == min(launches, 8)


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "launched"), [(1.0, 1), (1.5, 2), (2.5, 3)])
def test_the_budget_of_minutes(world, minutes, launched):
    def measured(layout, step):
        world.now_s += 60 if step.warmup else 0
        return 10.0

    world.ttft_ms = measured
    study, launcher, _, _, _ = world.process({"budget.minutes": minutes})
    study.run(resume=False, facts={})
    assert len(launcher.launched) == launched


@pytest.mark.slow
def test_minutes_that_a_stopped_run_spent_count_on_resume(world):
    def measured(layout, step):
        world.now_s += 60 if step.warmup else 0
        return KeyboardInterrupt() if world.now_s == 120 else 10.0

    world.ttft_ms = measured
    with pytest.raises(KeyboardInterrupt):
        world.process({"budget.minutes": 2.5})[0].run(resume=False, facts={})
    study, launcher, _, _, _ = world.process({"budget.minutes": 2.5})
    study.run(resume=True, facts={})
    assert len(launcher.launched) == 1  # two minutes were spent: on a trial that finished, and on one that did not


@pytest.mark.slow
@pytest.mark.parametrize("at", ["launch", -1, 0, 1])
def test_a_cancelled_study_tears_down_and_its_trial_says_who_asked(world, at):
    handle, end = CancelHandle(), (Cause.SHUTDOWN, "SIGTERM")

    def ask(step):
        if step == at:
            handle.cancel(*end)
            handle.cancel(Cause.OPERATOR, "too late to be heard")

    class Asking(Journal):
        def launching(self, number, text):
            ask("launch")

        def step_started(self, number, step, steps):
            ask(step.index)

    study, launcher, _, store, _ = world.process(cancel=handle, journal=Asking())
    with pytest.raises(Cancelled, match="cancelled by the shutdown: SIGTERM") as cancelled:
        study.run(resume=False, facts={})
    assert (cancelled.value.cause, cancelled.value.exit_code) == (Cause.SHUTDOWN, 130)
    assert world.running == set()
    (trial,) = store.trials("s")
    assert (trial.state, trial.failure) == (TrialState.FAILED, FailureReason.CANCELLED)
    assert trial.detail == "cancelled by the shutdown: SIGTERM"
    assert len(launcher.launched) == 1


def test_a_study_that_is_cancelled_before_it_begins_leaves_no_trace(world):
    handle = CancelHandle()
    handle.cancel(Cause.OPERATOR, "changed my mind")
    study, launcher, _, store, journal = world.process(cancel=handle)
    with pytest.raises(Cancelled, match="changed my mind"):
        study.run(resume=False, facts={})
    assert (launcher.orders, journal.told, store.study_names()) == ([], [], [])


@pytest.mark.slow
def test_what_breaks_while_all_is_being_ended_is_no_failure_of_the_layout(world):
    handle = CancelHandle()

    def broken(layout, step):
        handle.cancel(Cause.OPERATOR, "SIGINT")
        return CRASH

    world.ttft_ms = broken
    study, _, _, store, _ = world.process(cancel=handle)
    with pytest.raises(Cancelled):
        study.run(resume=False, facts={})
    assert [t.failure for t in store.trials("s")] == [FailureReason.CANCELLED]


@pytest.mark.slow
def test_a_defect_in_one_trial_ends_those_beside_it(world):
    changes = {"isolation": "none", "space": {"tp": [1, 2], "dp": [1], "executor": ["mp"]}}
    study, launcher, meter, store, _ = world.process(changes)
    launcher.parallel, beside = 2, threading.Event()

    def measure(deployment, step, request, watch):
        if deployment.layout.tp == 2:
            assert beside.wait(20)
            raise ZeroDivisionError("a bug")
        beside.set()
        watch.cancel.wait(20)

    meter.measure = measure
    with pytest.raises(ZeroDivisionError):
        study.run(resume=False, facts={})
    assert world.running == set()
    found = {trial.layout.tp: trial for trial in store.trials("s")}
    assert found[2].state is TrialState.RUNNING
    assert found[1].failure is FailureReason.CANCELLED
    assert found[1].detail == "cancelled by the shutdown: the study cannot go on: ZeroDivisionError: a bug"


@pytest.mark.slow
@pytest.mark.parametrize("at", ["launch", -1, 0, 1])
def test_interrupt_tears_down_and_records_the_trial_as_cancelled(world, at):
    world.ttft_ms = lambda layout, step: KeyboardInterrupt() if step.index == at else 10.0
    world.failures = {TP2_DP2: KeyboardInterrupt()} if at == "launch" else {}
    study, _, _, store, journal = world.process()
    with pytest.raises(KeyboardInterrupt):
        study.run(resume=False, facts={})
    assert world.running == set()
    assert [(t.number, str(t.layout), t.failure) for t in store.trials("s")] == [(0, TP2_DP2, FailureReason.CANCELLED)]
    assert journal.told[-1] == "finished 0: cancelled"


@pytest.mark.slow
def test_a_defect_of_ours_is_not_taken_for_a_failed_trial(world):
    world.ttft_ms = lambda layout, step: ZeroDivisionError("a bug")
    study, _, _, store, _ = world.process()
    with pytest.raises(ZeroDivisionError):
        study.run(resume=False, facts={})
    assert world.running == set()
    assert [t.state for t in store.trials("s")] == [TrialState.RUNNING]


@pytest.mark.slow
def test_a_taken_name_is_refused(world):
    world.process({"budget.launches": 1})[0].run(resume=False, facts={})
    study, launcher, _, _, _ = world.process({"budget.launches": 1})
    with pytest.raises(BadInput, match="--resume goes on with a study that is"):
        study.run(resume=False, facts={})
    assert launcher.orders == []


@pytest.mark.slow
def test_resume_with_another_request_is_refused(world):
    world.process({"budget.launches": 1})[0].run(resume=False, facts={})
    study, launcher, _, store, _ = world.process({"budget.launches": 1, "slo.0.ms": 7})
    with pytest.raises(BadInput, match="the request that the study was started with"):
        study.run(resume=True, facts={})
    assert launcher.orders == launcher.removed == []
    assert store.study("s").request.slo[0].ms == 100


@pytest.mark.slow
def test_resume_with_another_launcher_is_refused(world):
    world.process({"budget.launches": 1})[0].run(resume=False, facts={"launcher": "ray-serve"})
    study, launcher, _, _, _ = world.process({"budget.launches": 1})
    with pytest.raises(BadInput, match="got 'local-process'; allowed: ray-serve, with which study s began"):
        study.run(resume=True, facts={"launcher": "local-process"})
    assert launcher.orders == launcher.removed == []


@pytest.mark.slow
def test_resume_of_nothing_begins(world):
    study, launcher, _, _, journal = world.process({"budget.launches": 1})
    study.run(resume=True, facts={})
    assert len(launcher.launched) == 1
    assert not [word for word in journal.told if word.startswith("resumed")]


@pytest.mark.slow
def test_resume_of_a_finished_study_launches_nothing(world):
    first = world.process({"budget.launches": 2})[0].run(resume=False, facts={})
    study, launcher, _, _, journal = world.process({"budget.launches": 2})
    assert study.run(resume=True, facts={}) == first
    assert launcher.orders == []
    assert "resumed 2 finished, 0 orphans" in journal.told


@pytest.mark.parametrize(
    ("changes", "rates", "warmup"),
    [
        ({}, [4.0, 8.0, 12.0, 16.0], True),
        ({"objective": "min_gpus"}, [4.0, 8.0], True),
        ({"load.rates_req_per_s": [1, 2, 3], "load.warmup_seconds": 0}, [1.0, 2.0, 3.0], False),
    ],
)
def test_load_steps_rise_and_are_the_same_for_every_layout(changes, rates, warmup):
    request = make_request({"objective": "max_goodput", "load.seconds": 30, **changes})
    steps = steps_of(request)
    assert len(warm_up(request)) == warmup
    for first in warm_up(request):
        assert (first.index, first.warmup, first.rate_req_per_s, first.duration_s) == (-1, True, rates[0], 1.0)
        assert first.seed == BASE_SEED - 1
    assert [(s.rate_req_per_s, s.duration_s, s.seed, s.warmup) for s in steps] == [
        (rate, 30.0, BASE_SEED + i, False) for i, rate in enumerate(rates)
    ]


def test_a_default_name_belongs_to_one_request():
    one, other = make_request(), make_request({"slo.0.ms": 99})
    assert default_name(one) == default_name(make_request())
    assert default_name(one) != default_name(other)
    assert default_name(one).startswith("llama-3-1-8b-")
