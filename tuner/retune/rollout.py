"""A rollout: one deployment takes the place of another, step by step, each of which is stored before it is done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Way(StrEnum):
    """How the new one comes in."""

    BESIDE = "beside"  # both at once, traffic is moved
    IN_PLACE = "in_place"  # the old one ends first: there is no room for both
    REPLACE = "replace"  # nothing of the old one serves any more: an emergency, or the first deployment


class Step(StrEnum):
    """What is being done. The last three are ends."""

    PLANNED = "planned"
    STOPPING_OLD = "stopping_old"  # in place alone
    STARTING = "starting"
    WARMING = "warming"
    CANARY = "canary"
    PROMOTING = "promoting"
    DRAINING = "draining"
    REMOVING_OLD = "removing_old"
    RETURNING = "returning"  # traffic goes back to the old one
    RESTORING = "restoring"  # the old one is started again: in place alone
    REMOVING_NEW = "removing_new"
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"  # neither could be brought to serve


ENDS = frozenset({Step.DONE, Step.ROLLED_BACK, Step.FAILED})


class Wish(StrEnum):
    """What a human asked of a rollout, or of all of a study's."""

    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    VETO = "veto"  # go back, and do not try this layout again
    FORCE = "force"  # promote, whatever the canary says


@dataclass(frozen=True, slots=True)
class Rollout:
    """``number`` counts those of one watched study from 1. ``old`` and ``new`` are names of deployments; ``share`` of
    the traffic goes to the new one, as was last ordered; ``why`` says what it is for, ``outcome`` how it came to its
    end or back. Times are in s since 1970."""

    watched: str
    number: int
    way: Way
    old: str | None
    new: str
    step: Step
    why: str
    began_s: float
    step_since_s: float
    share: float = 0.0
    approved: bool = False
    paused: bool = False
    wish: Wish | None = None
    outcome: str = ""
