"""What is to be done about what is deployed, and why: the answer of one judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tuner.ask.deployment import Deployment
from tuner.ask.request import TargetKey
from tuner.retune.notice import Notice


class Action(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"
    HOLD = "hold"  # something should be done, and something forbids it for now
    RETUNE = "retune"  # decide anew: a round of the study, then a rollout of its winner
    MOVE = "move"  # roll out what is known already to be better
    EMERGENCY = "emergency"  # the present layout cannot serve: deploy the best that fits now, measure later


class HeldBy(StrEnum):
    """What forbids it."""

    BLIND = "blind"
    NOT_FOR_LONG = "not_for_long"  # hysteresis: it has not lasted yet
    COOL_DOWN = "cool_down"
    WINDOW = "window"
    BUDGET = "budget"
    GAIN = "gain"  # too small for what it costs
    NO_ROOM = "no_room"
    CONSENT = "consent"  # a human has to agree
    PAUSED = "paused"  # a human has paused it
    VETOED = "vetoed"
    ROLLOUT = "rollout"  # one is under way
    MEASURED = "measured"  # a measuring round was not long ago
    FOREIGN = "foreign"  # somebody changed what is deployed by hand


@dataclass(frozen=True, slots=True)
class LayoutOutlook:
    """What is expected of one layout under the load and on the cluster of now. ``meets``: None where that cannot be
    told; ``chance`` is the model's probability of it, None where it was seen instead. ``ms`` by target at the asked
    percentile; ``usd_per_hour`` None where a GPU has no price. ``measured``: a trial, or serving, showed what it does
    under such a load; what was not is the model's word alone."""

    deployment: Deployment
    gpus: int
    meets: bool | None
    usd_per_hour: float | None = None
    ms: Mapping[TargetKey, float] = field(default_factory=dict)
    chance: float | None = None
    measured: bool = False
    goodput_req_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a change could bring. ``present``: None where the present layout does not fit the cluster any more;
    ``best``: None where no layout does. ``gain_per_hour`` is of what the objective counts (US dollars, or GPUs),
    ``gain`` its share of what the present layout takes; ``regains_slo`` where the best meets what that one misses.
    ``spare_gpus`` are those that the present layout leaves (None: unknown); ``assumed`` says in words what of the load
    nobody could see. ``untried`` is the best of those that nobody measured and that, with the model's doubt, may carry
    as much as the present one; a round of the study that begins with it takes ``untried_hours`` GPU-hours for each of
    its GPUs."""

    present: LayoutOutlook | None
    best: LayoutOutlook | None
    gain: float = 0.0
    gain_per_hour: float = 0.0
    regains_slo: bool = False
    tuning_gpu_hours: float = 0.0
    moving_gpu_hours: float = 0.0
    spare_gpus: int | None = None
    assumed: tuple[str, ...] = ()
    untried: LayoutOutlook | None = None
    untried_hours: float = 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """``action`` with its reason in ``why``, one sentence; ``held_by`` what forbids it, in the order of weight, each
    with words; ``notices`` are what it rests on. ``measures``: it is tuned again to measure what the model does not
    know, and the outlook's best is what that begins with."""

    action: Action
    why: str
    at_s: float
    held_by: Mapping[HeldBy, str] = field(default_factory=dict)
    outlook: Outlook | None = None
    notices: tuple[Notice, ...] = ()
    measures: bool = False
