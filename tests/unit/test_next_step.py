"""What a rollout does: of every way the steps when all goes well, and when something dies."""

from __future__ import annotations

import pytest

from tests.rollout_world import RolloutWorld, at_step
from tests.rollouts import a_rollout
from tuner.retune.moves import Answer, Facts, Route, Wait
from tuner.retune.next_step import next_step
from tuner.retune.rollout import ENDS, Step, Way, Wish
from tuner.retune.site import SiteSeen

BESIDE, IN_PLACE, REPLACE = Way.BESIDE, Way.IN_PLACE, Way.REPLACE


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


@pytest.mark.parametrize("step", [step for step in Step if step not in ENDS])
def test_what_somebody_changed_by_hand_is_not_fought(step):
    facts = Facts(SiteSeen({}, {}, "another configuration under new"), 5.0)
    found = next_step(a_rollout(step=step), facts)
    assert found == Wait("changed by hand: another configuration under new", held=True)
