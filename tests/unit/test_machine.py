"""What a machine of rollouts asks of a site beside its moves: to hold requests, and whether there is room."""

from __future__ import annotations

import pytest

from deploy.rollout.machine import RolloutMachine
from tests.fakes import copy_of_empty_store, make_request
from tests.rollouts import a_live, a_rollout
from tests.simulated_site import SimulatedPlace, SimulatedSite
from tuner.retune.live import LiveState
from tuner.retune.moves import CanaryAnswer
from tuner.retune.policy import RetunePolicy
from tuner.retune.rollout import Step, Way
from tuner.study.store import Store

REQUEST = make_request()


class World:
    """A study whose deployment has died, with the rollout of another in its place."""

    def __init__(self, folder, devices=2, **rollout):
        self.store = Store(copy_of_empty_store(folder / "store.db"))
        self.store.create_study("s", REQUEST, {})
        self.store.watched.watch("s", RetunePolicy(), {})
        claim = self.store.watched.claim("s", "me", lambda *_: False)
        self.store.live.add(a_live("old", state=LiveState.SERVING), claim)
        self.place = SimulatedPlace(devices=devices, start_s=60, stop_s=20)
        site = SimulatedSite(self.place)
        site.start(a_live("old"), REQUEST)
        self.place.now_s = 60.0
        self.place.kill("old")
        self.store.rollouts.begin(a_rollout(Way.REPLACE, **rollout), a_live("new"), claim)
        self.machine = RolloutMachine(self.store, site, claim, clock=lambda: self.place.now_s)

    def advance(self, seconds=0.0):
        self.place.now_s += seconds
        return self.machine.advance(lambda _: CanaryAnswer()).rollout


@pytest.fixture
def world(tmp_path, request):
    made = World(tmp_path, **getattr(request, "param", {}))
    yield made
    made.store.close()


def test_what_has_room_does_not_wait_for_the_last_of_one_that_died(world):
    assert world.advance().step is Step.STARTING
    assert set(world.place.present()) == {"old", "new"}
    assert world.advance(25).step is Step.STARTING
    assert world.advance(60).step is Step.DONE
    assert world.place.present() == ["new"]


@pytest.mark.parametrize("world", [{"devices": 1}], indirect=True)
def test_what_needs_its_devices_waits_until_it_is_gone(world):
    assert world.advance().step is Step.STOPPING_OLD
    assert world.place.present() == ["old"]
    assert world.advance(25).step is Step.STARTING
    assert world.place.present() == ["new"]


def test_requests_are_held_while_something_is_on_its_way(world):
    assert not world.place.held
    world.advance()
    assert world.place.held
    world.advance(90)
    assert not world.place.held


@pytest.mark.parametrize("world", [{"approved": False}], indirect=True)
def test_nothing_is_held_for_what_nobody_has_approved(world):
    assert world.advance().step is Step.PLANNED
    assert not world.place.held
