"""What humans ask of a rollout, and what becomes of it at each step."""

from __future__ import annotations

import pytest

from tests.rollout_world import RolloutWorld, at_step
from tests.rollouts import a_rollout
from tuner.errors import BadInput
from tuner.retune.moves import Answer
from tuner.retune.rollout import ENDS, Step, Way, Wish
from tuner.retune.wishes import heeded

BESIDE, IN_PLACE, REPLACE = Way.BESIDE, Way.IN_PLACE, Way.REPLACE


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
