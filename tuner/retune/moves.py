"""What a rollout may do next, and what it sees when it chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tuner.retune.policy import CanaryPolicy
from tuner.retune.rollout import Rollout, Step, Way, Wish
from tuner.retune.site import DeploymentSeen, Readiness, SiteSeen

GONE = DeploymentSeen(Readiness.ABSENT)
_EXACT = 0.01  # some sites deal traffic in whole percents, of which a small share is one


class Answer(StrEnum):
    """What a canary says."""

    HOLD = "hold"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class CanaryAnswer:
    """``why`` is one sentence with figures, ``figures`` the same for machines. ``blind``: too few requests to say."""

    answer: Answer = Answer.HOLD
    why: str = "nothing was compared yet"
    blind: bool = True
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each step is waited for, in s.

    ``start_s`` until a deployment is ready; ``warm_s`` for its first answers; ``drain_s`` until requests under way are
    cut off where another serves, ``empty_s`` where none does meanwhile; ``held_s`` for a human, after a canary that
    could not be judged.
    """

    start_s: float = 1800.0
    warm_s: float = 300.0
    drain_s: float = 1800.0
    empty_s: float = 60.0
    held_s: float = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Facts:
    """All that enters into the next step beside the rollout. ``warmed``: the new one answered its first requests;
    ``paused``: all of the study's rollouts are; ``room``: what the new one takes is free although the old one is still
    leaving."""

    seen: SiteSeen
    now_s: float
    canary: CanaryAnswer = field(default_factory=CanaryAnswer)
    warmed: bool = False
    paused: bool = False
    policy: CanaryPolicy = field(default_factory=CanaryPolicy)
    patience: Patience = Patience()
    room: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """Store the rollout: what it says is done by the moves after it. ``proven``: a canary says that the new one is
    good."""

    rollout: Rollout
    proven: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Have a deployment brought up."""

    name: str


@dataclass(frozen=True, slots=True)
class Warm:
    """Send it its first requests."""

    name: str


@dataclass(frozen=True, slots=True)
class Route:
    """Have new requests go by these shares."""

    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Stop:
    """Have a deployment end."""

    name: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done until something changes. ``held``: somebody has to do something."""

    why: str
    held: bool = False


Move = Write | Start | Warm | Route | Stop | Wait


@dataclass(frozen=True, slots=True)
class At:
    """A rollout and what is seen of it, with the words in which its steps are told."""

    rollout: Rollout
    facts: Facts

    @property
    def new(self) -> DeploymentSeen:
        """The one that comes in."""
        return self.facts.seen.deployments.get(self.rollout.new, GONE)

    @property
    def old(self) -> DeploymentSeen:
        """The one that goes; absent where there is none."""
        return self.facts.seen.deployments.get(self.rollout.old or "", GONE)

    @property
    def new_ready(self) -> bool:
        """Whether it can serve."""
        return self.new.readiness is Readiness.READY

    @property
    def old_ready(self) -> bool:
        """Whether it can serve."""
        return self.old.readiness is Readiness.READY

    @property
    def in_place(self) -> bool:
        """Whether there is no room for both."""
        return self.rollout.way is Way.IN_PLACE

    @property
    def paused(self) -> bool:
        """Whether a human wants it to go no further."""
        return self.rollout.paused or self.facts.paused

    @property
    def vetoed(self) -> bool:
        """Whether a human wants it back."""
        return self.rollout.wish is Wish.VETO

    @property
    def forced(self) -> bool:
        """Whether a human wants it done."""
        return self.rollout.wish is Wish.FORCE

    @property
    def waited_s(self) -> float:
        """Seconds since the step began."""
        return self.facts.now_s - self.rollout.step_since_s

    def to(self, step: Step, *, share: float | None = None, outcome: str | None = None) -> Write:
        """Go to another step."""
        rollout = self.rollout
        changed = replace(
            rollout,
            step=step,
            step_since_s=self.facts.now_s,
            share=rollout.share if share is None else share,
            outcome=rollout.outcome if outcome is None else outcome,
        )
        return Write(changed)

    def back(self, why: str) -> Write:
        """Begin to go back."""
        return self.to(Step.RETURNING, share=0.0, outcome=why)

    def onward(self, why: str = "", *, proven: bool = False) -> Write:
        """Give the new one all of the traffic."""
        return replace(self.to(Step.PROMOTING, share=1.0, outcome=why or None), proven=proven)

    def unrouted(self, *shares: tuple[str | None, float]) -> Route | None:
        """What is to be ordered where traffic does not go by these shares; those of nobody and of 0 are left out."""
        wanted = {name: share for name, share in shares if name is not None and share > 0}
        there = {name: share for name, share in self.facts.seen.shares.items() if share > 0}
        same = wanted.keys() == there.keys() and all(abs(wanted[name] - there[name]) < _EXACT for name in wanted)
        return None if same else Route(wanted)

    def drained(self, one: DeploymentSeen, patience_s: float) -> bool:
        """Whether nothing is under way there any more, or it was waited for long enough."""
        return one.readiness is not Readiness.READY or one.in_flight == 0 or self.waited_s > patience_s
