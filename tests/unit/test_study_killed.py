"""A study that is killed before any of its deeds, and resumed."""

from dataclasses import replace

import pytest

from tests.fakes import FakeDeployment, copy_of_empty_store
from tests.world import CRASH, TP1_DP2, TP2, World
from tuner.search.search import Search
from tuner.study.records import app_name
from tuner.trial.results import Purpose


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, not even its clean-up."""


class Clock:
    """Counts what a process does to the world outside it, and kills it before the n-th deed."""

    def __init__(self, monkeypatch, launcher, meter, store, kill_at):
        self.deeds, self.kill_at, self.dead = [], kill_at, False
        writes = ("create_study", "save_plan", "claim_trial", "record_launch", "add_step", "finish_trial")
        writes += ("take_over", "forget_trial")
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
    """Without times, and the names of deployments, which no two have."""

    def bare(trial):
        assert trial is None or (trial.launched is None) == (trial.ready_after_s is None)
        return trial and replace(trial, seconds=None, launched=None)

    return replace(
        decision,
        winner=bare(decision.winner),
        runner_up=bare(decision.runner_up),
        pareto=tuple(map(bare, decision.pareto)),
        trials=tuple(map(bare, decision.trials)),
        standings=tuple(str(summary.layout) for summary in decision.standings),
        spent=decision.spent.launches,
    )


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_winner_is_measured_again_whenever_the_study_is_killed(tmp_path, monkeypatch):
    changes = {"budget.launches": 6, "load.rates_req_per_s": [4, 8, 12]}

    def new_world(name):
        return World(copy_of_empty_store(tmp_path / f"{name}.db"), tmp_path / name, believing=True)

    undisturbed, launched, deeds = run_killed(monkeypatch, new_world("whole"), changes, None)
    *_, again = undisturbed.trials
    first = next(t for t in undisturbed.trials if t.layout == again.layout)
    assert (first.repeat, again.repeat, again.purpose) == (0, 1, Purpose.CONFIRM)
    assert again.layout == undisturbed.winner.layout
    assert {s.step.seed for s in again.steps}.isdisjoint(s.step.seed for s in first.steps)
    for kill_at in range(0, len(deeds), 15):
        world = new_world(f"killed-{kill_at}")
        assert run_killed(monkeypatch, world, changes, kill_at)[0] is None
        resumed, after, _ = run_killed(monkeypatch, world, changes, None)
        assert timeless(resumed) == timeless(undisturbed), deeds[kill_at]
        assert launched[len(launched) - len(after) :] == after, deeds[kill_at]


@pytest.mark.slow
def test_orphans_of_a_killed_run_are_torn_down_by_their_name(tmp_path, monkeypatch):
    world = World(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")
    _, before, deeds = run_killed(monkeypatch, world, {"budget.launches": 1}, 6)
    assert deeds[-1] == "launch"
    assert world.running == {app_name("s", 0)}
    study, launcher, _, _, journal = world.process({"budget.launches": 1})
    study.run(resume=True, facts={})
    assert launcher.removed == ["parlay-s-0"]
    assert "resumed 0 finished, 1 orphans" in journal.told
    assert launcher.launched == before
