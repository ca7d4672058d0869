"""A study from its plan to its decision on a scripted cluster: its budget, its bad days, and being killed anywhere."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from tests.fakes import FakeDeployment, FakeLauncher, FakeMeter, copy_of_empty_store, make_request
from tuner.cluster import Cluster
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.model import load_model
from tuner.rules import DropReason
from tuner.search import Search
from tuner.space import load_space
from tuner.store import Store
from tuner.study import BASE_SEED, Observer, Setting, Study, app_name, default_name, load_steps
from tuner.trial import TrialState

SPACE = {"tp": [1, 2], "dp": [1, 2], "executor": ["mp", "ray"]}
TP1, TP1_RAY = "tp=1,pp=1,dp=1", "tp=1,pp=1,dp=1,executor=ray"
TP2, TP1_DP2, TP2_DP2 = "tp=2,pp=1,dp=1", "tp=1,pp=1,dp=2", "tp=2,pp=1,dp=2"
CRASH = LaunchFailed(FailureReason.ENGINE_CRASHED, "exit code 1", ("CUDA error",))


@dataclass
class Journal(Observer):
    """What a study told, as words."""

    told: list[str] = field(default_factory=list)

    def planned(self, plan):
        self.told.append("planned")

    def trial_started(self, number, launches, proposal):
        self.told.append(f"started {number} of {launches}")

    def launching(self, number, text):
        self.told.append(f"launching {number}: {text}")

    def ready(self, number, deployment):
        self.told.append(f"ready {number}")

    def step_started(self, number, step, steps):
        self.told.append(f"step {step.index} of {steps}")

    def step_measured(self, number, result):
        self.told.append(f"measured {result.step.index}")

    def trial_finished(self, result):
        self.told.append(f"finished {result.number}: {result.failure or result.state}")

    def resumed(self, finished, orphans):
        self.told.append(f"resumed {len(finished)} finished, {len(orphans)} orphans")


@dataclass
class World:
    """A cluster and a store that outlive the processes that use them, and how fast each layout is on that cluster."""

    url: str
    folder: object
    ttft_ms: object = staticmethod(lambda layout, step: 10 * step.rate_req_per_s / layout.devices)
    failures: dict = field(default_factory=dict)
    running: set = field(default_factory=set)

    def process(self, changes=None, name="s"):
        """A study as one process runs it: (study, launcher, meter, store, journal)."""
        request = make_request({"space": SPACE, "objective": "max_goodput", **(changes or {})})
        cluster = Cluster.from_spec(request.cluster)
        setting = Setting(name, request, load_model(request.model), cluster, load_space(request.space), self.folder)
        store, journal = Store(self.url), Journal()
        launcher, meter = FakeLauncher(self.failures, self.running), FakeMeter(self.ttft_ms)
        return Study(setting, store, launcher, meter, journal), launcher, meter, store, journal


@pytest.fixture
def world(tmp_path):
    return World(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")


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
    order = launcher.orders[0]
    assert (order.app, order.trial) == ("parlay-s-0", 0)
    assert order.log_dir.is_dir()


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


def test_a_missed_step_ends_the_trial(world):
    world.ttft_ms = lambda layout, step: 12 * step.rate_req_per_s
    study, _, meter, store, _ = world.process({"budget.launches": 1})
    decision = study.run(resume=False, facts={})
    assert [index for _, index in meter.asked] == [-1, 0, 1, 2]  # 48, 96, then 144 ms against 100; not the fourth
    (trial,) = store.trials("s")
    assert trial.state is TrialState.STOPPED
    assert trial.detail == "the SLO is missed at 12 requests/s (1.44 × the target)"
    assert decision.winner == trial  # it holds 8 requests/s


def test_a_slow_warm_up_ends_nothing(world):
    world.ttft_ms = lambda layout, step: 5000 if step.warmup else 20
    study, _, _, store, _ = world.process({"budget.launches": 1})
    study.run(resume=False, facts={})
    assert store.trials("s")[0].state is TrialState.MEASURED


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


def test_no_layout_meets_the_slo(world):
    world.ttft_ms = lambda layout, step: 300 / layout.devices
    study, launcher, _, _, _ = world.process({"objective": "min_gpus", "slo.0.ms": 50})
    decision = study.run(resume=False, facts={})
    assert len(launcher.launched) == 8  # every candidate had its chance
    assert decision.winner is None
    assert f"the nearest is {TP2_DP2}, 1.50 × the target at 4 requests/s" in decision.why
    assert "targets of at least ttft p99 of 75 ms for 4 requests/s" in decision.remedy
    assert "more devices than the 4" in decision.remedy


def test_larger_layouts_are_dropped_once_a_smaller_one_meets_the_slo(world):
    study, launcher, _, _, _ = world.process({"objective": "min_gpus"})
    decision = study.run(resume=False, facts={})
    assert launcher.launched == [TP1, TP1_RAY]
    assert str(decision.winner.layout) == TP1
    outranked = {str(d.example): d.figure for d in decision.dropped if d.reason is DropReason.OUTRANKED}
    assert len(outranked) == 6
    assert outranked[TP2] == f"needs 2 devices; {TP1} meets the SLO with 1"


@pytest.mark.parametrize("launches", [1, 3, 20])
def test_the_budget_of_launches(world, launches):
    study, launcher, _, _, _ = world.process({"budget.launches": launches})
    study.run(resume=False, facts={})
    assert len(launcher.launched) == len(set(launcher.launched)) == min(launches, 8)


@pytest.mark.parametrize(("minutes", "launched"), [(1.0, 1), (1.5, 2), (2.5, 3)])
def test_the_budget_of_minutes(world, monkeypatch, minutes, launched):
    now_s = [0.0]
    monkeypatch.setattr("tuner.study.time", SimpleNamespace(perf_counter=lambda: now_s[0]))

    def measured(layout, step):
        now_s[0] += 60 if step.warmup else 0
        return 10.0

    world.ttft_ms = measured
    study, launcher, _, _, _ = world.process({"budget.minutes": minutes})
    study.run(resume=False, facts={})
    assert len(launcher.launched) == launched


def test_minutes_that_a_killed_run_spent_count_on_resume(world, monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr("tuner.study.time", SimpleNamespace(perf_counter=lambda: now_s[0]))

    def measured(layout, step):
        now_s[0] += 60 if step.warmup else 0
        return KeyboardInterrupt() if now_s[0] == 120 else 10.0

    world.ttft_ms = measured
    with pytest.raises(KeyboardInterrupt):
        world.process({"budget.minutes": 2.5})[0].run(resume=False, facts={})
    study, launcher, _, _, _ = world.process({"budget.minutes": 2.5})
    study.run(resume=True, facts={})
    assert len(launcher.launched) == 2  # one minute was spent on the trial that finished


@pytest.mark.parametrize("at", ["launch", -1, 0, 1])
def test_interrupt_tears_down_and_leaves_the_trial_open(world, at):
    world.ttft_ms = lambda layout, step: KeyboardInterrupt() if step.index == at else 10.0
    world.failures = {TP2_DP2: KeyboardInterrupt()} if at == "launch" else {}
    study, _, _, store, journal = world.process()
    with pytest.raises(KeyboardInterrupt):
        study.run(resume=False, facts={})
    assert world.running == set()
    assert [(t.number, str(t.layout)) for t in store.open_trials("s")] == [(0, TP2_DP2)]
    assert journal.told[-1] == "finished 0: cancelled"
    assert [t.state for t in store.trials("s")] == [TrialState.RUNNING]


def test_a_defect_of_ours_is_not_taken_for_a_failed_trial(world):
    world.ttft_ms = lambda layout, step: ZeroDivisionError("a bug")
    study, _, _, store, _ = world.process()
    with pytest.raises(ZeroDivisionError):
        study.run(resume=False, facts={})
    assert world.running == set()
    assert [t.state for t in store.trials("s")] == [TrialState.RUNNING]


def test_a_taken_name_is_refused(world):
    world.process({"budget.launches": 1})[0].run(resume=False, facts={})
    study, launcher, _, _, _ = world.process({"budget.launches": 1})
    with pytest.raises(BadInput, match="--resume goes on with a study that is"):
        study.run(resume=False, facts={})
    assert launcher.orders == []


def test_resume_with_another_request_is_refused(world):
    world.process({"budget.launches": 1})[0].run(resume=False, facts={})
    study, launcher, _, store, _ = world.process({"budget.launches": 1, "slo.0.ms": 7})
    with pytest.raises(BadInput, match="the request that the study was started with"):
        study.run(resume=True, facts={})
    assert launcher.orders == launcher.removed == []
    assert store.study("s").request.slo[0].ms == 100


def test_resume_of_nothing_begins(world):
    study, launcher, _, _, journal = world.process({"budget.launches": 1})
    study.run(resume=True, facts={})
    assert len(launcher.launched) == 1
    assert not [word for word in journal.told if word.startswith("resumed")]


def test_resume_of_a_finished_study_launches_nothing(world):
    first = world.process({"budget.launches": 2})[0].run(resume=False, facts={})
    study, launcher, _, _, journal = world.process({"budget.launches": 2})
    assert study.run(resume=True, facts={}) == first
    assert launcher.orders == []
    assert "resumed 2 finished, 0 orphans" in journal.told


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, not even its clean-up."""


class Clock:
    """Counts what a process does to the world outside it, and kills it before the n-th deed."""

    def __init__(self, monkeypatch, launcher, meter, store, kill_at):
        self.deeds, self.kill_at, self.dead = [], kill_at, False
        writes = ("create_study", "save_plan", "begin_trial", "add_step", "finish_trial", "forget_trial")
        for owner, names in (
            (launcher, ("launch", "remove_orphan")),
            (meter, ("measure",)),
            (store, writes),
        ):
            for name in names:
                self._watch(monkeypatch, owner, name)
        for name in ("ask", "report", "tell"):
            self._watch(monkeypatch, Search, name)
        teardown = FakeDeployment.teardown
        monkeypatch.setattr(FakeDeployment, "teardown", lambda gone: None if self.dead else teardown(gone))

    def _watch(self, monkeypatch, owner, name):
        done = getattr(owner, name)

        def watched(*args, **kwargs):
            if len(self.deeds) == self.kill_at:
                self.dead = True
                raise Killed
            self.deeds.append(name)
            return done(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)


def run_killed(monkeypatch, world, changes, kill_at):
    """Run until the deed ``kill_at``; (decision or None, layouts launched, deeds)."""
    study, launcher, meter, store, _ = world.process(changes)
    with monkeypatch.context() as patch:
        clock = Clock(patch, launcher, meter, store, kill_at)
        try:
            decision = study.run(resume=True, facts={})
        except Killed:
            decision = None
    store.close()
    return decision, launcher.launched, clock.deeds


def timeless(decision):
    return replace(
        decision,
        winner=decision.winner and replace(decision.winner, seconds=None),
        runner_up=decision.runner_up and replace(decision.runner_up, seconds=None),
        pareto=tuple(replace(t, seconds=None) for t in decision.pareto),
        trials=tuple(replace(t, seconds=None) for t in decision.trials),
        standings=tuple(str(standing.layout) for standing in decision.standings),
        spent=decision.spent.launches,
    )


def test_a_study_killed_before_any_deed_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    changes = {"budget.launches": 3, "load.rates_req_per_s": [8]}
    crashing = {TP1_DP2: CRASH, TP2: CRASH}

    def new_world(name):
        return World(copy_of_empty_store(tmp_path / f"{name}.db"), tmp_path / name, failures=crashing)

    undisturbed, launched, deeds = run_killed(monkeypatch, new_world("whole"), changes, None)
    assert deeds.count("launch") == 3
    for kill_at in range(len(deeds)):
        world = new_world(f"killed-{kill_at}")
        nothing, before, _ = run_killed(monkeypatch, world, changes, kill_at)
        assert nothing is None
        resumed, after, _ = run_killed(monkeypatch, world, changes, None)
        where = f"killed before deed {kill_at}, {deeds[kill_at]}"
        assert timeless(resumed) == timeless(undisturbed), where
        assert world.running == set(), where
        assert len(before) + len(after) <= len(launched) + 1, where  # nothing twice but the one in flight
        assert list(dict.fromkeys(before + after)) == launched, where


def test_a_study_killed_again_and_again_ends_all_the_same(tmp_path, monkeypatch):
    changes = {"budget.launches": 3, "load.rates_req_per_s": [8]}
    calm = World(copy_of_empty_store(tmp_path / "calm.db"), tmp_path / "calm")
    undisturbed, launched, _ = run_killed(monkeypatch, calm, changes, None)
    world = World(copy_of_empty_store(tmp_path / "wild.db"), tmp_path / "wild")
    every, resumed, lives = [], None, 0
    while resumed is None:
        resumed, some, _ = run_killed(monkeypatch, world, changes, 11 + lives)
        every += some
        lives += 1
    assert 2 < lives < 20
    assert timeless(resumed) == timeless(undisturbed)
    assert set(every) == set(launched)
    assert world.running == set()


def test_orphans_of_a_killed_run_are_torn_down_by_their_name(world, monkeypatch):
    _, before, deeds = run_killed(monkeypatch, world, {"budget.launches": 1}, 5)
    assert deeds[-1] == "launch"
    assert world.running == {app_name("s", 0)}
    study, launcher, _, _, journal = world.process({"budget.launches": 1})
    study.run(resume=True, facts={})
    assert launcher.removed == ["parlay-s-0"]
    assert "resumed 0 finished, 1 orphans" in journal.told
    assert launcher.launched == before


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
    steps = load_steps(request)
    if warmup:
        first = steps.pop(0)
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
