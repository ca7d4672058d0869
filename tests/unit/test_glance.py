"""What the store says of a watched study: since when it rests, and what is good to go back to."""

from __future__ import annotations

import pytest

from tests.rollouts import a_live, a_rollout
from tests.watch_world import TICK_S, WatchWorld
from tuner.app.watch import noticing
from tuner.app.watch.glance import glance
from tuner.retune.live import LiveState
from tuner.retune.policy import Consent
from tuner.retune.rollout import Step, Way

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path):
    made = WatchWorld(tmp_path)
    yield made
    made.store.close()


def test_it_rests_after_a_rollout_that_went_back(world):
    watcher = world.deploy()
    served_s = world.store.live.of("s")[0].serving_since_s
    world.run(watcher, 2)
    assert glance(world.store, "s", world.place.now_s).moved_s >= served_s
    new = a_live("s-d2", created_s=world.place.now_s)
    begun = world.store.rollouts.begin(
        a_rollout(Way.BESIDE, old="s-d1", new="s-d2", began_s=world.place.now_s), new, watcher.claim
    )
    world.place.broken = {"s-d2"}
    world.run(watcher, 20, until=lambda: world.store.rollouts.get("s", begun.number).step is Step.ROLLED_BACK)
    state = glance(world.store, "s", world.place.now_s)
    assert state.serving.serving_since_s == served_s
    assert state.moved_s == world.store.rollouts.get("s", begun.number).step_since_s > served_s


def test_what_serves_well_for_long_enough_is_good(world, monkeypatch):
    monkeypatch.setattr(noticing, "PROVEN_S", 20 * TICK_S)
    watcher = world.deploy()
    world.run(watcher, 10)
    assert not world.store.live.of("s")[0].good
    world.run(world.watcher("another"), 12)
    good = world.store.live.of("s")[0]
    assert (good.good, good.state) == (True, LiveState.SERVING)


def test_what_burns_its_slo_is_never_good(world, monkeypatch):
    monkeypatch.setattr(noticing, "PROVEN_S", 20 * TICK_S)
    world.policy = world.policy.model_copy(update={"consent": Consent.ADVISE})
    world.slow.add("tp=1,pp=1,dp=1")
    world.run(world.deploy(), 25)
    assert not world.store.live.of("s")[0].good
