"""What a rollout does next, of what is seen: a pure function, asked again after every move.

Nothing is remembered between two looks but the stored rollout, and its step is stored before anything of it is done: a
``Write`` changes no site, and no other move changes the store. Each move may be done twice. So whoever is killed
anywhere, or takes over, goes on with what is there.

What holds of every rollout:

- Traffic goes where something serves: as long as one of the two can serve, requests have a place to go, except in place
  between the end of the old one and the start of the new.
- A new deployment that dies is left at once, and never promoted because nobody looked: a canary that cannot be judged
  is held for a human, and taken back in the end.
- What a human pauses goes no further; the way back is never paused.
- What somebody else changed by hand is reported, and nothing is done until it is put right.
"""

from __future__ import annotations

from collections.abc import Callable

from tuner.retune.moves import Answer, At, Facts, Move, Start, Stop, Wait, Warm
from tuner.retune.rollout import ENDS, Rollout, Step, Way
from tuner.retune.site import Readiness
from tuner.retune.way_back import removing_new, restoring, returning

PAUSED = Wait("paused", held=True)


def next_step(rollout: Rollout, facts: Facts) -> Move:
    """The next move; a ``Wait`` where there is none until something changes."""
    if rollout.step in ENDS:
        return Wait("it has ended")
    if facts.seen.foreign is not None:
        return Wait(f"changed by hand: {facts.seen.foreign}", held=True)
    return _STEPS[rollout.step](At(rollout, facts))


def _planned(at: At) -> Move:
    if at.vetoed:
        return at.to(Step.ROLLED_BACK, outcome="vetoed before it began")
    if at.paused:
        return PAUSED
    if not at.rollout.approved and not at.forced:
        return Wait("nobody has approved it yet", held=True)
    if at.rollout.way is Way.BESIDE or at.rollout.old is None:
        return at.to(Step.STARTING)
    if at.rollout.way is Way.REPLACE and at.old_ready:
        return at.unrouted((at.rollout.old, 1.0)) or at.to(Step.ROLLED_BACK, outcome=f"{at.rollout.old} serves again")
    return at.to(Step.STOPPING_OLD)


def _stopping_old(at: At) -> Move:
    """In place, or where nothing of the old one serves: its devices are needed. Of one that had died, some may be free
    long before its application is gone."""
    if at.vetoed:
        return at.back("vetoed")
    if at.rollout.old is None or at.old.readiness is Readiness.ABSENT:
        return at.to(Step.STARTING)
    if at.paused and at.old_ready and at.facts.seen.shares.get(at.rollout.old):
        return PAUSED
    if (order := at.unrouted()) is not None:
        return order
    if not at.drained(at.old, at.facts.patience.empty_s):
        return Wait(f"{at.rollout.old} answers {_under_way(at.old.in_flight)}")
    if at.old.readiness is Readiness.LEAVING:
        return at.to(Step.STARTING) if at.facts.room else Wait(f"{at.rollout.old} is ending")
    return Stop(at.rollout.old)


def _starting(at: At) -> Move:
    name, limit_s = at.rollout.new, at.facts.patience.start_s
    if at.vetoed:
        return at.back("vetoed")
    if at.new.readiness is Readiness.FAILED:
        return at.back(f"{name} did not come up: {at.new.why}")
    if at.new_ready:
        return _started(at)
    if at.paused and at.old_ready:
        return PAUSED
    if at.waited_s > limit_s:
        return at.back(f"{name} was not ready within {limit_s:g} s")
    return Start(name) if at.new.readiness is Readiness.ABSENT else Wait(f"{name} is starting")


def _started(at: At) -> Move:
    """It can serve. Where nothing else does it serves at once."""
    if at.in_place:
        return at.to(Step.CANARY, share=1.0)
    if at.old_ready:
        return PAUSED if at.paused else at.to(Step.WARMING)
    return at.onward(f"{at.rollout.old} has died meanwhile" if at.rollout.way is Way.BESIDE else "")


def _warming(at: At) -> Move:
    name, limit_s = at.rollout.new, at.facts.patience.warm_s
    if at.vetoed:
        return at.back("vetoed")
    if not at.new_ready:
        return at.back(f"{name} died before it served: {at.new.why}")
    if not at.old_ready:
        return at.onward(f"{at.rollout.old} has died meanwhile")
    if at.paused:
        return PAUSED
    if at.facts.warmed:
        return at.to(Step.CANARY, share=at.facts.policy.share)
    if at.waited_s > limit_s:
        return at.back(f"{name} gave no first answers within {limit_s:g} s")
    return Warm(name)


def _canary(at: At) -> Move:
    rollout, said = at.rollout, at.facts.canary
    if not at.new_ready:
        return at.back(f"{rollout.new} died as a canary: {at.new.why}")
    if not at.in_place and not at.old_ready:
        return at.onward(f"{rollout.old} has died meanwhile")
    if at.vetoed:
        return at.back("vetoed")
    if (order := at.unrouted((rollout.new, rollout.share), (rollout.old, 1 - rollout.share))) is not None:
        return order
    if at.paused:
        return PAUSED
    if at.forced:
        return at.onward("forced")
    if said.answer is Answer.PROMOTE:
        return at.onward(said.why, proven=True)
    if said.answer is Answer.ROLL_BACK:
        return at.back(said.why)
    limit_s = 60 * at.facts.policy.most_minutes
    if at.waited_s > limit_s + at.facts.patience.held_s:
        return at.back(f"not judged, and nobody decided: {said.why}")
    return Wait(said.why, held=at.waited_s > limit_s)


def _promoting(at: At) -> Move:
    if (lost := _new_is_lost(at)) is not None:
        return lost
    if at.vetoed and (at.old_ready or at.in_place):
        return at.back("vetoed")
    if (order := at.unrouted((at.rollout.new, 1.0))) is not None:
        return order
    return at.to(Step.DONE if at.old.readiness is Readiness.ABSENT else Step.DRAINING)


def _draining(at: At) -> Move:
    if (lost := _new_is_lost(at)) is not None:
        return lost
    if at.vetoed and at.old_ready:
        return at.back("vetoed")
    if (order := at.unrouted((at.rollout.new, 1.0))) is not None:
        return order
    if at.paused:
        return PAUSED
    if not at.drained(at.old, at.facts.patience.drain_s):
        return Wait(f"{at.rollout.old} answers {_under_way(at.old.in_flight)}")
    cut = at.old.in_flight if at.old_ready else 0
    said = f"{at.rollout.outcome}; {_under_way(cut)} cut off after {at.waited_s:.0f} s" if cut != 0 else None
    return at.to(Step.REMOVING_OLD, outcome=said)


def _removing_old(at: At) -> Move:
    if (lost := _new_is_lost(at)) is not None:
        return lost
    if (order := at.unrouted((at.rollout.new, 1.0))) is not None:
        return order
    if at.rollout.old is None or at.old.readiness is Readiness.ABSENT:
        return at.to(Step.DONE)
    return Wait(f"{at.rollout.old} is ending") if at.old.readiness is Readiness.LEAVING else Stop(at.rollout.old)


def _new_is_lost(at: At) -> Move | None:
    """Back, where the new one cannot serve any more; it may come back by itself where the old one is no help."""
    if at.new_ready:
        return None
    if at.old_ready or at.new.readiness is not Readiness.STARTING or at.waited_s > at.facts.patience.start_s:
        return at.back(f"{at.rollout.new} died: {at.new.why}")
    return Wait(f"{at.rollout.new} is starting again")


def _under_way(requests: int | None) -> str:
    return "an unknown number of requests" if requests is None else f"{requests} request{'s' * (requests != 1)}"


_STEPS: dict[Step, Callable[[At], Move]] = {
    Step.PLANNED: _planned,
    Step.STOPPING_OLD: _stopping_old,
    Step.STARTING: _starting,
    Step.WARMING: _warming,
    Step.CANARY: _canary,
    Step.PROMOTING: _promoting,
    Step.DRAINING: _draining,
    Step.REMOVING_OLD: _removing_old,
    Step.RETURNING: returning,
    Step.RESTORING: restoring,
    Step.REMOVING_NEW: removing_new,
}
