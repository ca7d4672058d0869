"""What a rollout does: of every way the steps when all goes well, when something dies, and what humans ask of it; then
what holds whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rollout_world import RolloutWorld
from tests.rollouts import a_rollout
from tuner.errors import BadInput
from tuner.retune.moves import Answer, Facts, Route, Wait
from tuner.retune.next_step import next_step
from tuner.retune.rollout import ENDS, Step, Way, Wish
from tuner.retune.site import Readiness, SiteSeen
from tuner.retune.wishes import heeded

BESIDE, IN_PLACE, REPLACE = Way.BESIDE, Way.IN_PLACE, Way.REPLACE


def at_step(world, step, ticks=200):
    """Run it until it comes to a step."""
    world.settle()
    for _ in range(ticks):
        if world.rollout.step is step:
            return world
        world.tick()
    raise AssertionError(f"it never comes to {step}: {world.steps}")


def test_beside_the_old_one_traffic_moves_in_two_steps():
    world = at_step(RolloutWorld.new(BESIDE), Step.CANARY)
    assert world.place.shares == {"new": 0.25, "old": 0.75}
    world.canary = Answer.PROMOTE
    world.run()
    assert world.steps == [
        "starting", "warming", "canary", "promoting", "draining", "removing_old", "done",
    ]  # fmt: skip
    assert world.place.shares == {"new": 1.0}
    assert world.place.present() == ["new"]
    assert not world.blips
    assert world.rollout.outcome == "the canary says promote"


def test_in_place_the_old_one_ends_first_and_the_canary_has_all_traffic():
    world = at_step(RolloutWorld.new(IN_PLACE), Step.CANARY)
    assert world.place.shares == {"new": 1.0}
    assert world.place.present() == ["new"]
    world.canary = Answer.PROMOTE
    assert world.run().steps == ["stopping_old", "starting", "canary", "promoting", "done"]


@pytest.mark.parametrize("old", ["old", None])
def test_where_nothing_serves_the_new_one_serves_as_soon_as_it_can(old):
    world = RolloutWorld.new(REPLACE, old=old).run()
    before = ["stopping_old"] if old else []
    assert world.steps == [*before, "starting", "promoting", "done"]
    assert world.place.present() == ["new"]


def test_an_emergency_that_is_over_before_it_began_changes_nothing():
    world = RolloutWorld.new(BESIDE)
    world.rollout = a_rollout(REPLACE)
    assert world.run().rollout.step is Step.ROLLED_BACK
    assert world.place.shares == {"old": 1.0}
    assert world.rollout.outcome == "old serves again"


def test_what_comes_back_after_an_outage_gets_the_traffic():
    world = RolloutWorld.new(BESIDE)
    world.rollout = a_rollout(REPLACE)
    world.place.shares = {}
    assert world.run().rollout.step is Step.ROLLED_BACK
    assert world.place.shares == {"old": 1.0}


def test_a_bad_canary_is_taken_back():
    world = at_step(RolloutWorld.new(), Step.CANARY)
    world.canary = Answer.ROLL_BACK
    world.run()
    assert world.steps[3:] == ["returning", "removing_new", "rolled_back"]
    assert world.place.shares == {"old": 1.0}
    assert world.place.present() == ["old"]
    assert world.rollout.outcome == "the canary says roll_back"
    assert not world.blips


@pytest.mark.parametrize("step", [Step.WARMING, Step.CANARY, Step.PROMOTING, Step.DRAINING])
def test_a_new_one_that_dies_is_left_at_once(step):
    world = RolloutWorld.new()
    world.canary, world.answers = Answer.PROMOTE if step in (Step.PROMOTING, Step.DRAINING) else Answer.HOLD, True
    if step is Step.WARMING:
        world.answers = False
    while world.rollout.step is not step:
        if isinstance(world.move(), Wait):
            world.place.now_s += 10
    world.place.things["old"].in_flight = 1
    world.place.kill("new")
    world.settle()
    assert world.place.shares == {"old": 1.0}
    assert world.run().rollout.step is Step.ROLLED_BACK
    assert "new died" in world.rollout.outcome


def test_one_that_dies_while_the_old_one_is_removed_has_that_restored():
    world = at_step(RolloutWorld.new(), Step.CANARY)
    world.canary = Answer.PROMOTE
    world = at_step(world, Step.REMOVING_OLD)
    world.place.kill("new")
    world.run()
    assert world.steps[-3:] == ["removing_new", "restoring", "rolled_back"]
    assert world.place.shares == {"old": 1.0}


def test_an_old_one_that_dies_under_a_canary_leaves_all_traffic_to_the_new_one():
    world = at_step(RolloutWorld.new(), Step.CANARY)
    world.place.kill("old")
    world.settle()
    assert world.place.shares == {"new": 1.0}
    assert world.run().rollout.step is Step.DONE
    assert world.rollout.outcome == "old has died meanwhile"


def test_where_both_die_the_old_one_is_brought_up_again():
    world = at_step(RolloutWorld.new(), Step.CANARY)
    world.place.kill("old")
    world.place.kill("new")
    assert world.run().rollout.step is Step.ROLLED_BACK
    assert world.place.present() == ["old"]
    assert world.place.shares == {"old": 1.0}


@pytest.mark.parametrize("step", [Step.RETURNING, Step.REMOVING_NEW])
def test_an_old_one_that_dies_on_the_way_back_leaves_the_traffic_where_it_can_be_served(step):
    world = at_step(RolloutWorld.new(), Step.CANARY)
    world.place.things["new"].in_flight = 1
    world.wish(Wish.VETO)
    while world.rollout.step is not step:
        if isinstance(world.move(), Wait):
            world.place.things["new"].in_flight = 0
    world.place.kill("old")
    world.settle()
    assert world.place.shares == {"new": 1.0}
    assert world.run().rollout.step is Step.DONE
    assert world.place.present() == ["new"]
    assert world.rollout.outcome == "vetoed; yet nothing else serves: old has died"


def test_where_neither_can_be_brought_up_it_has_failed():
    world = at_step(RolloutWorld.new(IN_PLACE), Step.STARTING)
    world.place.broken |= {"new", "old"}
    world.place.things.clear()
    assert world.run().rollout.step is Step.FAILED
    assert "new did not come up" in world.rollout.outcome
    assert "old did not come up again" in world.rollout.outcome


def test_a_new_one_that_never_comes_up_changes_nothing():
    world = RolloutWorld.new()
    world.place.broken.add("new")
    assert world.run().rollout.step is Step.ROLLED_BACK
    assert world.rollout.outcome == "new did not come up: does not start"
    assert world.place.shares == {"old": 1.0}
    slow = RolloutWorld.new()
    slow.place.start_s = 1e9
    assert slow.run().rollout.outcome == "new was not ready within 300 s"


def test_in_place_one_that_never_comes_up_has_the_old_one_restored():
    world = RolloutWorld.new(IN_PLACE)
    world.place.broken.add("new")
    assert world.run().steps[-4:] == ["returning", "removing_new", "restoring", "rolled_back"]
    assert world.place.present() == ["old"]


def test_no_first_answers_no_traffic():
    world = RolloutWorld.new()
    world.answers = False
    assert world.run().rollout.step is Step.ROLLED_BACK
    assert world.rollout.outcome == "new gave no first answers within 60 s"
    assert all("new" not in move.shares for move in world.moves if isinstance(move, Route))


def test_requests_under_way_end_before_the_old_one_does():
    world = at_step(RolloutWorld.new(), Step.CANARY)
    world.place.things["old"].in_flight = 3
    world.canary = Answer.PROMOTE
    for _ in range(5):
        world.tick()
    assert world.rollout.step is Step.DRAINING
    assert next_step(world.rollout, world.facts()) == Wait("old answers 3 requests")
    world.place.things["old"].in_flight = 0
    assert world.run().rollout.outcome == "the canary says promote"


def test_requests_without_end_are_cut_off_and_that_is_said():
    world = at_step(RolloutWorld.new(), Step.CANARY)
    world.place.things["old"].in_flight = 1
    world.canary = Answer.PROMOTE
    assert world.run().rollout.outcome == "the canary says promote; 1 request cut off after 130 s"


def test_nobody_is_promoted_by_silence():
    world = at_step(RolloutWorld.new(), Step.CANARY)
    for _ in range(40):
        world.tick()
    assert world.rollout.step is Step.CANARY
    found = next_step(world.rollout, world.facts())
    assert isinstance(found, Wait)
    assert found.held
    assert world.run().rollout.step is Step.ROLLED_BACK
    assert "nobody decided" in world.rollout.outcome


class TestWishes:
    def test_nothing_begins_without_consent(self):
        world = RolloutWorld.new(approved=False)
        for _ in range(5):
            world.tick()
        assert world.rollout.step is Step.PLANNED
        world.wish(Wish.APPROVE)
        at_step(world, Step.CANARY)

    def test_force_is_consent_and_passes_the_canary(self):
        world = RolloutWorld.new(approved=False)
        world.wish(Wish.FORCE)
        assert world.run().rollout.step is Step.DONE
        assert world.rollout.outcome == "forced"

    def test_force_does_not_keep_what_is_dead(self):
        world = RolloutWorld.new()
        world.place.broken.add("new")
        world.wish(Wish.FORCE)
        assert world.run().rollout.step is Step.ROLLED_BACK

    @pytest.mark.parametrize("step", [Step.PLANNED, Step.STARTING, Step.WARMING, Step.CANARY, Step.DRAINING])
    def test_a_veto_takes_it_back(self, step):
        world = RolloutWorld.new(approved=step is not Step.PLANNED)
        world.answers, world.canary = step is not Step.WARMING, Answer.PROMOTE if step is Step.DRAINING else Answer.HOLD
        world.place.things["old"].in_flight = 1
        world = at_step(world, step)
        world.wish(Wish.VETO)
        assert world.run().rollout.step is Step.ROLLED_BACK
        assert world.place.shares == {"old": 1.0}
        assert world.place.present() == ["old"]
        assert world.rollout.wish is Wish.VETO

    def test_a_pause_holds_and_a_resume_gives_the_step_its_time_again(self):
        world = at_step(RolloutWorld.new(), Step.CANARY)
        world.wish(Wish.PAUSE)
        world.canary = Answer.PROMOTE
        for _ in range(200):
            world.tick()
        assert world.rollout.step is Step.CANARY
        assert world.place.shares == {"new": 0.25, "old": 0.75}
        world.canary = Answer.HOLD
        world.wish(Wish.RESUME)
        world.tick()
        assert world.rollout.step is Step.CANARY
        world.canary = Answer.PROMOTE
        assert world.run().rollout.step is Step.DONE

    def test_what_was_begun_under_a_pause_gets_its_time_with_the_resume(self):
        world = at_step(RolloutWorld.new(), Step.CANARY)  # all of its study is paused from here on, and not it alone
        world.place.now_s += 100_000
        world.wish(Wish.RESUME)
        world.tick()
        assert world.rollout.step is Step.CANARY

    def test_what_is_paused_is_resumed_before_it_is_forced(self):
        paused = heeded(a_rollout(), Wish.PAUSE, 1.0)
        with pytest.raises(BadInput, match="resume it first"):
            heeded(paused, Wish.FORCE, 2.0)
        assert heeded(heeded(paused, Wish.RESUME, 2.0), Wish.FORCE, 3.0).wish is Wish.FORCE

    def test_a_pause_does_not_hold_the_way_back(self):
        world = at_step(RolloutWorld.new(), Step.CANARY)
        world.wish(Wish.PAUSE)
        world.place.kill("new")
        assert world.run().rollout.step is Step.ROLLED_BACK

    def test_a_pause_does_not_prolong_an_outage(self):
        world = at_step(RolloutWorld.new(IN_PLACE), Step.STOPPING_OLD)
        world.wish(Wish.PAUSE)
        assert not world.place.shares
        at_step(world, Step.CANARY)

    def test_a_pause_before_an_outage_prevents_it(self):
        world = RolloutWorld.new(IN_PLACE)
        while world.rollout.step is not Step.STOPPING_OLD:
            world.move()
        world.wish(Wish.PAUSE)
        for _ in range(50):
            world.tick()
        assert world.place.shares == {"old": 1.0}
        world.place.kill("old")
        at_step(world, Step.CANARY)

    def test_what_comes_too_late_is_refused(self):
        for step in ENDS:
            with pytest.raises(BadInput, match="while it runs"):
                heeded(a_rollout(step=step), Wish.PAUSE, 1.0)
        with pytest.raises(BadInput, match="before old is removed"):
            heeded(a_rollout(step=Step.REMOVING_OLD), Wish.VETO, 1.0)
        with pytest.raises(BadInput, match="goes back already"):
            heeded(a_rollout(step=Step.RETURNING), Wish.FORCE, 1.0)
        with pytest.raises(BadInput, match="was vetoed"):
            heeded(a_rollout(wish=Wish.VETO), Wish.FORCE, 1.0)
        assert heeded(a_rollout(wish=Wish.FORCE), Wish.VETO, 1.0).wish is Wish.VETO

    def test_none_of_several_is_lost(self):
        rollout = heeded(heeded(a_rollout(approved=False), Wish.APPROVE, 1.0), Wish.PAUSE, 1.0)
        assert rollout.approved
        assert rollout.paused


@pytest.mark.parametrize("step", [step for step in Step if step not in ENDS])
def test_what_somebody_changed_by_hand_is_not_fought(step):
    facts = Facts(SiteSeen({}, {}, "another configuration under new"), 5.0)
    found = next_step(a_rollout(step=step), facts)
    assert found == Wait("changed by hand: another configuration under new", held=True)


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
