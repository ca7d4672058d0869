"""A watcher is killed at every place of a rollout, one after the other: before and after each write to the store and
each call of the site. Whoever comes after it brings the rollout to the end that it would have had, and never are there
two full deployments at an end, or none while one can serve."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace

import pytest

from deploy.rollout.machine import RolloutMachine
from tests.fakes import make_request
from tests.rollouts import a_live, a_rollout
from tests.simulated_site import SimulatedPlace, SimulatedSite
from tuner.errors import FailureReason, LaunchFailed, LeaseLost
from tuner.retune.live import LiveState
from tuner.retune.moves import Answer, CanaryAnswer, Patience
from tuner.retune.policy import RetunePolicy
from tuner.retune.rollout import ENDS, Step, Way
from tuner.retune.site import Readiness
from tuner.study.store import Store

REQUEST = make_request({"engine": {"start_timeout_s": 300}})
PATIENCE = Patience(warm_s=60, drain_s=120, empty_s=30, held_s=600)
TICK_S = 30.0
ACTING = ("start", "warm", "route", "stop")
LIVES = {"ok": Answer.PROMOTE, "bad canary": Answer.ROLL_BACK, "never up": Answer.HOLD, "dies": Answer.HOLD}
STORIES = [(way, story) for way in Way for story in LIVES if way is not Way.REPLACE or story in ("ok", "never up")]


def unsynchronised(connection, record):
    """A process that is killed loses nothing that it gave to the kernel: the disk need not be waited for."""
    for words in ("journal_mode=WAL", "synchronous=OFF", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {words}")


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    monkeypatch.setattr("tuner.study.database._durable_sqlite", unsynchronised)


class Killed(BaseException):
    """Nothing that any code of ours catches."""


class Points:
    """Counts the places at which a watcher may be killed, and kills it at one of them."""

    def __init__(self, deadly=None, kill=None):
        self.passed, self.deadly, self.kill = 0, deadly, kill or self.throw

    def throw(self):
        raise Killed

    def come(self):
        self.passed += 1
        if self.passed == self.deadly:
            self.kill()


class Watched:
    """A store's part or a site, with a place to be killed before and after each of the named calls."""

    def __init__(self, of, names, points):
        self._of, self._names, self._points = of, names, points

    def __getattr__(self, name):
        found = getattr(self._of, name)
        if name not in self._names:
            return found

        def call(*args, **kwargs):
            self._points.come()
            answer = found(*args, **kwargs)
            self._points.come()
            return answer

        return call


class WatchedStore:
    def __init__(self, store, points):
        self._store, self.rollouts = store, Watched(store.rollouts, ("move",), points)

    def __getattr__(self, name):
        return getattr(self._store, name)


def planned(folder, way, story):
    """A store with a rollout that nobody drives yet, and its place; both lie in the folder."""
    file, store = folder / "place.json", Store(f"sqlite:///{folder}/store.db")
    store.create_study("s", REQUEST, {})
    store.watched.watch("s", RetunePolicy(consent="auto", canary={"share": 0.25, "most_minutes": 5}), {})
    claim = store.watched.claim("s", "first", lambda *_: False)
    store.live.add(a_live("old", state=LiveState.SERVING, good=True, serving_since_s=0.0), claim)
    place = SimulatedPlace(start_s=60, stop_s=20, file=file, broken={"new"} if story == "never up" else set())
    site = SimulatedSite(place)
    site.start(a_live("old"), REQUEST)
    place.now_s = 60.0
    if way is Way.REPLACE:
        place.kill("old")
    else:
        site.route({"old": 1.0})
    rollout = a_rollout(way, began_s=60.0, step_since_s=60.0)
    store.rollouts.begin(rollout, a_live("new"), claim)
    place.keep()
    return store, place


def drive(store, place, story, points, ticks=120):
    """A watcher's life: it claims, and moves the rollout on, until the end or its own."""
    claim = store.watched.claim("s", "me", lambda *_: True)
    site = Watched(SimulatedSite(place), ACTING, points)
    machine = RolloutMachine(WatchedStore(store, points), site, claim, PATIENCE, lambda: place.now_s)
    said = CanaryAnswer(LIVES[story], f"the canary says {LIVES[story]}")
    for _ in range(ticks):
        found = machine.advance(lambda rollout: said)
        if found.rollout is None or found.rollout.step in ENDS:
            return
        if story == "dies" and found.rollout.step is Step.CANARY:
            place.kill("new")
        place.now_s += TICK_S
        place.keep()
    raise AssertionError(f"no end: {found}")


def end_of(store, place):
    """All that is left: how it ended, what serves, and what is stored of the deployments."""
    rollout = store.rollouts.get("s", 1)
    lives = {live.name: (live.state.value, live.good) for live in store.live.of("s")}
    there = {name: place.readiness(name).value for name in place.present()}
    return rollout.step, rollout.outcome, place.shares, there, lives


def whole(tmp_path, way, story):
    """A folder with the beginning, the end without a kill, and how many places there are on the way."""
    begun = tmp_path / "begun"
    begun.mkdir()
    planned(begun, way, story)[0].close()
    store, place = reopened(begun, tmp_path / "whole")
    points = Points()
    drive(store, place, story, points)
    found = end_of(store, place)
    store.close()
    return begun, found, points.passed


def reopened(begun, folder):
    """A copy of the beginning."""
    shutil.copytree(begun, folder)
    return at(folder)


def at(folder):
    """What lies in a folder."""
    place = SimulatedPlace.read(folder / "place.json")
    return Store(f"sqlite:///{folder}/store.db"), replace(place, file=folder / "place.json")


@pytest.mark.slow
@pytest.mark.parametrize(("way", "story"), STORIES)
def test_a_kill_anywhere_changes_nothing_of_the_end(way, story, tmp_path):
    begun, wanted, places = whole(tmp_path, way, story)
    assert places > 10
    for deadly in range(1, places + 1):
        store, place = reopened(begun, tmp_path / str(deadly))
        with pytest.raises(Killed):
            drive(store, place, story, Points(deadly))
        place.now_s += 25.0  # until somebody else is there
        serves_what_can(place, store.rollouts.get("s", 1))
        drive(store, place, story, Points())
        assert end_of(store, place) == wanted, f"killed at {deadly} of {places}"
        store.close()


def serves_what_can(place, rollout):
    """Between a kill and its successor: one that served before serves still."""
    if rollout.way is Way.BESIDE and rollout.step not in (Step.RETURNING, Step.PROMOTING):
        ready = [name for name in place.shares if place.readiness(name) is Readiness.READY]
        assert ready or not place.shares or place.readiness("new") is Readiness.FAILED


@pytest.mark.slow
@pytest.mark.parametrize("story", ["ok", "bad canary"])
def test_a_process_that_is_killed_anywhere_changes_nothing_of_the_end(story, tmp_path):
    """By SIGKILL, in a process of its own, with all that it has not written lost."""
    begun, wanted, places = whole(tmp_path, Way.BESIDE, story)
    for deadly in range(1, places + 1):
        folder = shutil.copytree(begun, tmp_path / str(deadly))
        child = os.fork()
        if child == 0:
            try:
                drive(*at(folder), story, Points(deadly, lambda: os.kill(os.getpid(), signal.SIGKILL)))
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        store, place = at(folder)
        drive(store, place, story, Points())
        assert end_of(store, place) == wanted, f"killed at {deadly} of {places}"
        store.close()


def test_one_that_was_thought_dead_does_nothing_more(tmp_path):
    """It wakes up behind a write of its successor: its own is refused, and nothing of it is done."""
    store, place = planned(tmp_path, Way.BESIDE, "ok")
    stale = store.watched.claim("s", "stale", lambda *_: True)
    last = store.watched.claim("s", "next", lambda *_: True)
    machine = RolloutMachine(store, SimulatedSite(place), stale, PATIENCE, lambda: place.now_s)
    with pytest.raises(LeaseLost):
        machine.advance(lambda rollout: CanaryAnswer())
    assert place.present() == ["old"]
    before = store.rollouts.open("s")
    assert before.step is Step.PLANNED
    store.rollouts.move(before, replace(before, step=Step.STARTING), (), last)
    with pytest.raises(LeaseLost):
        machine.advance(lambda rollout: CanaryAnswer())
    assert place.present() == ["old"]


def test_what_the_launch_refuses_has_failed(tmp_path):
    class Refusing(SimulatedSite):
        def start(self, live, request):
            raise LaunchFailed(FailureReason.ENGINE_CRASHED, "Ray Serve LLM refuses the configuration")

    store, place = planned(tmp_path, Way.BESIDE, "ok")
    claim = store.watched.claim("s", "me", lambda *_: True)
    machine = RolloutMachine(store, Refusing(place), claim, PATIENCE, lambda: place.now_s)
    found = machine.advance(lambda rollout: CanaryAnswer())
    assert found.rollout.step is Step.ROLLED_BACK
    assert "refuses the configuration" in found.rollout.outcome
    assert store.live.find("old").state is LiveState.SERVING
    assert store.live.find("new").state is LiveState.FAILED


@pytest.mark.slow
def test_what_was_good_is_kept_as_the_last_good_one(tmp_path):
    store, place = planned(tmp_path, Way.BESIDE, "ok")
    drive(store, place, "ok", Points())
    lives = {live.name: live for live in store.live.of("s")}
    assert (lives["old"].state, lives["new"].state, lives["new"].good) == (LiveState.LAST_GOOD, LiveState.SERVING, True)
    assert lives["old"].ended_s is not None
    claim = store.watched.claim("s", "me", lambda *_: True)
    third = replace(a_rollout(), old="new", new="third", began_s=place.now_s, step_since_s=place.now_s)
    store.rollouts.begin(third, a_live("third", created_s=place.now_s), claim)
    drive(store, place, "ok", Points())
    states = {live.name: live.state for live in store.live.of("s")}
    assert states == {"old": LiveState.ENDED, "new": LiveState.LAST_GOOD, "third": LiveState.SERVING}
