"""What an operator allows: how much a change must gain, when it may happen, what it may cost, and who is asked."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Consent(StrEnum):
    """Who is asked before something is done."""

    ADVISE = "advise"  # nothing is ever done: it is only said
    APPROVE = "approve"  # done once a human has agreed
    AUTO = "auto"  # done


class MaintenanceWindow(BaseModel):
    """When a change may begin: on some days (all, if none is named), between two times of day, UTC."""

    model_config = _STRICT
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    begin: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "00:00"
    end: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")] = "24:00"


class CanaryPolicy(BaseModel):
    """How a new deployment is tried: with which share of the traffic, for at least so many of its requests and at most
    so long, and with which chance of a wrong answer. Without a ``tolerance`` no number of requests would show that it
    is no worse than what the SLO allows, and none would ever be promoted."""

    model_config = _STRICT
    share: Annotated[float, Field(ge=0.01, le=0.5)] = 0.1  # KubeRay deals traffic in whole percent
    least_requests: Annotated[int, Field(ge=10, le=1_000_000)] = 100
    most_minutes: Annotated[float, Field(gt=0, le=24 * 60)] = 30.0
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    tolerance: Annotated[float, Field(gt=0, le=0.5)] = 0.01  # of the share of requests within a target


class HoldPolicy(BaseModel):
    """For how long a request that finds nothing that serves waits for what is on its way, and how many may at once;
    others are refused at once, as all are where nothing is on its way. ``seconds`` 0: nobody waits."""

    model_config = _STRICT
    seconds: Annotated[float, Field(ge=0, le=3600)] = 60.0
    requests: Annotated[int, Field(ge=0, le=100_000)] = 1000


class RetunePolicy(BaseModel):
    """The limits of re-tuning. ``consent`` is for changes that can wait, ``emergency`` for a layout that cannot serve
    any more. GPU-hours are of trials alone. A gain is a share of what the present layout costs, or an SLO regained.

    What saves must have lasted ``persists_minutes`` and waits for the cool-down; what regains an SLO waits for neither,
    but must have lasted ``regains_minutes``; what the model alone expects to be missed can wait as well.
    Windows are for both, and not for an emergency. Where an SLO is missed and the model knows nothing better, a round
    measures at most once in ``measure_hours`` (0: never).
    """

    model_config = _STRICT
    consent: Consent = Consent.APPROVE
    emergency: Consent = Consent.AUTO
    horizon_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 168.0
    least_gain: Annotated[float, Field(ge=0, le=1)] = 0.05
    persists_minutes: Annotated[float, Field(ge=0, le=24 * 60)] = 30.0
    regains_minutes: Annotated[float, Field(ge=0, le=24 * 60)] = 2.0
    cool_down_hours: Annotated[float, Field(ge=0, le=24 * 30)] = 24.0
    measure_hours: Annotated[float, Field(ge=0, le=24 * 30)] = 24.0
    gpu_hours_per_day: Annotated[float, Field(ge=0)] | None = None
    trials: Literal["never", "spare", "in_place"] = "spare"
    in_place: bool = False  # the old deployment may end before the new one serves, where both do not fit
    windows: tuple[MaintenanceWindow, ...] = ()
    canary: CanaryPolicy = CanaryPolicy()
    hold: HoldPolicy = HoldPolicy()
