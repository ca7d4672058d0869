"""The steps by which a rollout goes back: traffic first, then the new deployment goes, then the old one is brought up
again where it is gone."""

from __future__ import annotations

from tuner.retune.moves import At, Move, Start, Stop, Wait
from tuner.retune.rollout import Step
from tuner.retune.site import Readiness


def returning(at: At) -> Move:
    """Traffic goes to the old one, and the new one ends its requests. Where the old one cannot serve and the new one
    can, it keeps the traffic: a slow answer is better than none."""
    if at.old_ready:
        if (order := at.unrouted((at.rollout.old, 1.0))) is not None:
            return order
        if not at.drained(at.new, at.facts.patience.drain_s):
            return Wait(f"{at.rollout.new} ends its requests")
        return at.to(Step.REMOVING_NEW)
    if at.new_ready and not at.in_place:
        return _stays(at)
    if at.new_ready:
        if (order := at.unrouted()) is not None:
            return order
        if not at.drained(at.new, at.facts.patience.empty_s):
            return Wait(f"{at.rollout.new} ends its requests")
    return at.to(Step.REMOVING_NEW)


def removing_new(at: At) -> Move:
    """The new one goes. What is left of an old one that died goes too, so that it can be started again."""
    old = at.old.readiness
    if at.new_ready and not at.old_ready and not at.in_place:
        return _stays(at)
    if (order := at.unrouted((at.rollout.old, 1.0)) if at.old_ready else at.unrouted()) is not None:
        return order
    if at.new.readiness is Readiness.LEAVING:
        return Wait(f"{at.rollout.new} is ending")
    if at.new.readiness is not Readiness.ABSENT:
        return Stop(at.rollout.new)
    if at.old_ready:
        return at.to(Step.ROLLED_BACK)
    if at.rollout.old is None:
        return at.to(Step.FAILED)
    if old is Readiness.LEAVING:
        return Wait(f"{at.rollout.old} is ending")
    return Stop(at.rollout.old) if old is Readiness.FAILED else at.to(Step.RESTORING)


def restoring(at: At) -> Move:
    """The old one comes up again, or there is none that serves."""
    name, limit_s = at.rollout.old, at.facts.patience.start_s
    if name is None:
        return at.to(Step.FAILED)
    if at.old_ready:
        return at.unrouted((name, 1.0)) or at.to(Step.ROLLED_BACK)
    if at.old.readiness is Readiness.FAILED:
        return at.to(Step.FAILED, outcome=f"{at.rollout.outcome}; {name} did not come up again: {at.old.why}")
    if at.waited_s > limit_s:
        if at.old.readiness is not Readiness.ABSENT:  # it would hold its devices, and serve nobody
            return Wait(f"{name} is ending") if at.old.readiness is Readiness.LEAVING else Stop(name)
        return at.to(Step.FAILED, outcome=f"{at.rollout.outcome}; {name} was not ready again within {limit_s:g} s")
    return Start(name) if at.old.readiness is Readiness.ABSENT else Wait(f"{name} is starting again")


def _stays(at: At) -> Move:
    before = "there was none before" if at.rollout.old is None else f"{at.rollout.old} has died"
    return at.onward(f"{at.rollout.outcome}; yet nothing else serves: {before}")
