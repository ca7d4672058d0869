"""What holds of a rollout whatever happens: whoever dies, whatever is asked, and whenever."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rollout_world import RolloutWorld, at_step
from tuner.retune.moves import Answer, Route, Wait
from tuner.retune.next_step import next_step
from tuner.retune.rollout import Step, Way, Wish
from tuner.retune.site import Readiness

BESIDE, IN_PLACE, REPLACE = Way.BESIDE, Way.IN_PLACE, Way.REPLACE


EVENTS = st.one_of(
    st.sampled_from(["kill new", "kill old", "new breaks", "old breaks", "busy", "idle", "no answers", "answers"]),
    st.sampled_from(list(Wish)),
    st.sampled_from(list(Answer)),
)


def happens(world, event):
    place = world.place
    if isinstance(event, Wish):
        world.wish(event)
    elif isinstance(event, Answer):
        world.canary = event
    elif event.startswith("kill"):
        place.kill(event.split()[1])
    elif event.endswith("breaks"):
        place.broken.add(event.split()[0])
    elif event.endswith("answers"):
        world.answers = event == "answers"
    else:
        for name in place.present():
            if place.readiness(name) is Readiness.READY:
                place.things[name].in_flight = 5 if event == "busy" else 0


def lived(way, events, first=(), old="old"):
    """A world with those events, each so many ticks after the one before; then it is left alone, and ends."""
    world = RolloutWorld.new(way, old=old)
    for event in first:
        happens(world, event)
    for ticks, event in events:
        for _ in range(ticks):
            if not world.ended:
                world.tick()
        happens(world, event)
    if world.rollout.paused:
        world.wish(Wish.RESUME)
    return world.run()


def test_an_old_one_that_does_not_come_up_again_in_time_is_left_nowhere():
    world = at_step(RolloutWorld.new(IN_PLACE), Step.CANARY)
    world.place.start_s = 1000
    world.canary = Answer.ROLL_BACK
    assert world.run().steps[-2:] == ["restoring", "failed"]
    assert world.rollout.outcome.endswith("old was not ready again within 300 s")
    assert world.place.present() == []


@pytest.mark.slow
@given(
    st.sampled_from([(way, old) for way in Way for old in ("old", None) if old or way is REPLACE]),
    st.lists(st.tuples(st.integers(0, 12), EVENTS), max_size=8),
)
@settings(max_examples=300)
def test_whatever_happens(way_and_old, events):
    """It ends; no two are left; something serves wherever something can; and no traffic goes nowhere meanwhile."""
    way, old = way_and_old
    world = lived(way, events, old=old)
    place = world.place
    ready = [name for name in place.present() if place.readiness(name) is Readiness.READY]
    assert len(ready) <= 1
    assert len([name for name in place.present() if place.readiness(name) is not Readiness.FAILED]) <= 1
    assert sum(place.shares.values()) == pytest.approx(1 if place.shares else 0)
    for move in world.moves:
        if isinstance(move, Route):
            assert sum(move.shares.values()) == pytest.approx(1 if move.shares else 0)
    if ready:
        assert place.shares == {ready[0]: 1.0}
    killed = [event for _, event in events if str(event).startswith("kill")]
    if world.rollout.step is Step.DONE and not killed:
        assert ready == ["new"]
    if world.rollout.step is Step.ROLLED_BACK and not killed and way is not REPLACE:
        assert ready == ["old"]
    if way is BESIDE:
        assert not world.blips


@pytest.mark.slow
@given(st.sampled_from([BESIDE, IN_PLACE, REPLACE]), st.lists(st.tuples(st.integers(0, 12), EVENTS), max_size=4))
def test_a_look_more_changes_nothing(way, events):
    """A move that was made is not made again, and of the same facts the same follows."""
    world = lived(way, events)
    assert world.ended
    assert isinstance(next_step(world.rollout, world.facts()), Wait)
    repeated = [
        (one, two)
        for one, two in zip(world.moves, world.moves[1:], strict=False)
        if isinstance(one, Route) and one == two
    ]
    assert not repeated
