"""What becomes of a rollout when a human asks something of it."""

from __future__ import annotations

from dataclasses import replace

from tuner.errors import BadInput
from tuner.retune.rollout import ENDS, Rollout, Step, Wish

_BACKWARD = frozenset({Step.RETURNING, Step.RESTORING, Step.REMOVING_NEW})
_TOO_LATE = frozenset({Step.REMOVING_OLD})
RESUME_FIRST = "one that is not paused; resume it first"


def heeded(rollout: Rollout, wish: Wish, now_s: float) -> Rollout:
    """The rollout with the wish in it; the next step obeys.

    Consent and pauses are kept as such, so that none of two wishes is lost; a veto stands, and a forced promotion until
    a veto. A pause stops the clock of a step: it begins anew with the resume, of a rollout too that was begun while all
    of its study was paused. Raises BadInput where it comes too late, and for force while it is paused.
    """
    where = f"rollout {rollout.number} of {rollout.watched}"
    if rollout.step in ENDS:
        raise BadInput(where, wish.value, f"a wish while it runs; it is {rollout.step.value}")
    if wish is Wish.PAUSE:
        return replace(rollout, paused=True)
    if wish is Wish.RESUME:
        return replace(rollout, paused=False, step_since_s=now_s)
    if rollout.step in _BACKWARD and wish is not Wish.VETO:
        raise BadInput(where, wish.value, f"pause, resume or veto: it goes back already ({rollout.outcome})")
    if wish is Wish.APPROVE:
        return replace(rollout, approved=True)
    if wish is Wish.FORCE:
        if rollout.wish is Wish.VETO:
            raise BadInput(where, wish.value, "another rollout: this one was vetoed")
        if rollout.paused:
            raise BadInput(where, wish.value, RESUME_FIRST)
        return replace(rollout, wish=Wish.FORCE, approved=True)
    if rollout.step in _TOO_LATE:
        raise BadInput(where, wish.value, f"a veto before {rollout.old} is removed; roll out {rollout.old} again")
    return replace(rollout, wish=Wish.VETO)
