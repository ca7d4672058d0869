"""Nothing serves after a rollout that failed: it is an emergency for what served last, never the end."""

from __future__ import annotations

import pytest

from tests.watch_world import WatchWorld
from tuner.app.watch.acting import Move, begin, planned
from tuner.app.watch.first import first_deployment
from tuner.app.watch.outage import RETRY_S
from tuner.app.watch.wishes import say
from tuner.ask.deployment import parse_deployment
from tuner.retune.live import LiveState
from tuner.retune.policy import Consent
from tuner.retune.rollout import Step, Wish

pytestmark = pytest.mark.slow
ONE, TWO = "tp=1,pp=1,dp=1", "tp=1,pp=1,dp=2"


@pytest.fixture
def world(tmp_path):
    made = WatchWorld(tmp_path)
    yield made
    made.store.close()


def serving(world):
    return [str(one.deployment) for one in world.store.live.of("s") if one.state is LiveState.SERVING]


def outage(world, broken=("s-d1", "s-d2")):
    """What serves dies under a rollout in place of another layout, and neither comes up."""
    watcher = world.deploy()
    world.run(watcher, 2)
    world.place.broken = set(broken)
    live, layout = world.store.live.of("s")[0], parse_deployment(TWO)
    move = Move(layout, "s", None, world.request, "to see", asked=True)
    policy = world.policy.model_copy(update={"in_place": True})
    plan = planned(world.store, world, "s", live, move, policy, True, world.place.now_s, world.fingerprint())
    begin(world.store, watcher.claim, plan, layout)
    world.run(watcher, 20, until=lambda: world.store.rollouts.get("s", 2).step is Step.STARTING)
    until_failed(world, watcher)
    return watcher


def until_failed(world, watcher):
    number = world.store.rollouts.of("s")[0].number
    world.run(watcher, 40, until=lambda: world.store.rollouts.get("s", number).step is Step.FAILED)


def test_what_served_last_is_brought_up_again(world):
    watcher = outage(world)
    assert not serving(world)
    world.run(watcher, 20, until=lambda: serving(world) == [ONE] and not world.store.rollouts.open("s"))
    newest = world.store.rollouts.of("s")[0]
    assert (newest.way, newest.step, world.place.shares) == ("replace", "done", {"s-d3": 1.0})
    assert "nothing serves any more" in newest.why.lower()
    assert world.run(watcher, 3).state == "well"


def test_it_waits_where_all_failed_and_is_tried_again_after_a_while(world):
    watcher = outage(world, ("s-d1", "s-d2", "s-d3"))
    world.run(watcher, 2)
    until_failed(world, watcher)
    found = world.run(watcher, 3)
    assert (found.state, len(world.store.live.of("s"))) == ("held", 3)
    world.place.now_s += RETRY_S
    world.run(world.watcher("another"), 20, until=lambda: serving(world) == [ONE])


def test_an_emergency_that_a_human_has_to_agree_to_waits(world):
    world.policy = world.policy.model_copy(update={"emergency": Consent.APPROVE})
    watcher = outage(world)
    assert "consent" in world.run(watcher, 3).judgement.held_by
    assert say(world.store, "s", Wish.APPROVE, "ann") == f"{ONE}: approved"
    world.run(watcher, 20, until=lambda: serving(world) == [ONE])


def test_what_a_human_refused_does_not_come_up(world):
    world.policy = world.policy.model_copy(update={"emergency": Consent.APPROVE})
    watcher = outage(world)
    world.run(watcher, 1)
    say(world.store, "s", Wish.VETO, "ann")
    world.policy = world.policy.model_copy(update={"emergency": Consent.AUTO})
    world.store.watched.watch("s", world.policy, {"kind": "simulated"})
    assert world.run(watcher, 3).state == "held"
    assert not serving(world)


def test_what_never_served_is_left_to_a_human(world):
    world.decide()
    world.store.watched.watch("s", world.policy, {"kind": "simulated"})
    watcher = world.watcher()
    world.place.broken = {"s-d1"}
    first_deployment(world.store, world, watcher.claim, "s", None, world.place.now_s)
    until_failed(world, watcher)
    found = world.run(watcher, 3)
    assert (found.text, found.judgement, len(world.store.live.of("s"))) == ("nothing serves yet", None, 1)
