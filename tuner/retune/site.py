"""The seam to a place that serves: plain Ray Serve, KubeRay, or one that is only simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from tuner.ask.request import TuneRequest
from tuner.retune.live import LiveDeployment
from tuner.retune.policy import HoldPolicy


class Readiness(StrEnum):
    """How a deployment stands, as its place says."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"  # it will not come up, or it has died
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class DeploymentSeen:
    """One deployment: how it stands and why, and how many requests it is answering (None: unknown)."""

    readiness: Readiness
    why: str = ""
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class SiteSeen:
    """All that is there of one watched study: by name, the shares of traffic that go to each (their sum is 1, or there
    are none), and what somebody else changed by hand, in words; None where nobody did."""

    deployments: Mapping[str, DeploymentSeen] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    foreign: str | None = None


@runtime_checkable
class Site(Protocol):
    """A place that serves one watched study. Each method may be called again after a kill anywhere, to the same end;
    none waits for engines. What cannot be asked raises ParlayError."""

    @property
    def name(self) -> str:
        """``ray-serve``, ``kuberay``, ``simulated``."""

    @property
    def url(self) -> str | None:
        """Where clients ask, without ``/v1``; the same for ever. None before anything serves."""

    def see(self) -> SiteSeen:
        """What is there now."""

    def no_room_for(self, live: LiveDeployment, request: TuneRequest) -> str | None:
        """Why it cannot run beside what is there, or None where it can."""

    def start(self, live: LiveDeployment, request: TuneRequest) -> None:
        """Have it brought up, if it is not there; no traffic goes to it."""

    def warm(self, name: str) -> bool:
        """Send it first requests, if it is ready; True once they were answered."""

    def route(self, shares: Mapping[str, float]) -> None:
        """Have new requests go to these by these shares, and to no other; requests under way are left alone."""

    def hold(self, bounds: HoldPolicy | None) -> None:
        """Have requests that find nothing that serves wait within these bounds, where the place can, for what is on its
        way. None: nothing is, and they are refused at once."""

    def stop(self, name: str) -> None:
        """Have it end, and give back its devices; it has no traffic."""
