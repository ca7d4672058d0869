"""A Site on simulated time. Its place outlives any process that has a Site on it, and may lie in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tuner.ask.request import TuneRequest
from tuner.retune.live import LiveDeployment
from tuner.retune.policy import HoldPolicy
from tuner.retune.site import DeploymentSeen, Readiness, SiteSeen


@dataclass
class Thing:
    """What stands for a deployment; times are in s of the place."""

    devices: int
    ready_s: float
    broken: bool = False
    died: str | None = None
    gone_s: float | None = None
    in_flight: int = 0
    meddled: bool = False


@dataclass
class SimulatedPlace:
    """What is there. ``start_s`` and ``stop_s`` are what a start and an end take; ``broken`` never come up."""

    devices: int = 1_000_000
    start_s: float = 60.0
    stop_s: float = 5.0
    now_s: float = 0.0
    broken: set[str] = field(default_factory=set)
    things: dict[str, Thing] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    held: bool = False
    file: Path | None = None

    def keep(self) -> None:
        """Write it to its file, if it has one."""
        if self.file is not None:
            document = asdict(self) | {"broken": sorted(self.broken), "file": str(self.file)}
            draft = self.file.with_suffix(".tmp")
            draft.write_text(json.dumps(document))
            draft.replace(self.file)

    @classmethod
    def read(cls, file: Path) -> SimulatedPlace:
        """As it was kept."""
        found = json.loads(file.read_text())
        things = {name: Thing(**one) for name, one in found["things"].items()}
        return cls(**found | {"broken": set(found["broken"]), "things": things, "file": file})

    def readiness(self, name: str) -> Readiness:
        """How one stands now."""
        thing = self.things.get(name)
        if thing is None or (thing.gone_s is not None and thing.gone_s <= self.now_s):
            return Readiness.ABSENT
        if thing.gone_s is not None:
            return Readiness.LEAVING
        if thing.died is not None or (thing.broken and thing.ready_s <= self.now_s):
            return Readiness.FAILED
        return Readiness.STARTING if thing.ready_s > self.now_s else Readiness.READY

    def kill(self, name: str, why: str = "killed") -> None:
        """Have it die for good; nothing where it is not there."""
        if self.readiness(name) in (Readiness.STARTING, Readiness.READY):
            self.things[name].died = why
            self.things[name].in_flight = 0
        self.keep()

    def present(self) -> list[str]:
        """Names of what is there in any state."""
        return [name for name in self.things if self.readiness(name) is not Readiness.ABSENT]


class SimulatedSite:
    """Implements ``tuner.retune.site.Site``. ``answers``: whether a deployment gives its first answers."""

    def __init__(self, place: SimulatedPlace, answers: Callable[[str], bool] = lambda name: True) -> None:
        self.place, self._answers = place, answers

    @property
    def name(self) -> str:
        return "simulated"

    @property
    def url(self) -> str | None:
        return "http://simulated"

    def see(self) -> SiteSeen:
        deployments = {}
        for name in self.place.present():
            thing, readiness = self.place.things[name], self.place.readiness(name)
            why = thing.died or ("does not start" if readiness is Readiness.FAILED else "")
            deployments[name] = DeploymentSeen(readiness, why, thing.in_flight)
        meddled = [name for name in deployments if self.place.things[name].meddled]
        foreign = f"somebody changed {', '.join(meddled)}" if meddled else None
        return SiteSeen(deployments, dict(self.place.shares), foreign)

    def no_room_for(self, live: LiveDeployment, request: TuneRequest) -> str | None:
        left = self.place.devices - sum(self.place.things[name].devices for name in self.place.present())
        needs = live.deployment.devices
        return None if needs <= left else f"{live.name} needs {needs} devices, and {left} are free"

    def start(self, live: LiveDeployment, request: TuneRequest) -> None:
        if self.place.readiness(live.name) is Readiness.ABSENT:
            broken = live.name in self.place.broken or self.no_room_for(live, request) is not None
            ready_s = self.place.now_s + self.place.start_s
            self.place.things[live.name] = Thing(live.deployment.devices, ready_s, broken)
        self.place.keep()

    def warm(self, name: str) -> bool:
        return self.place.readiness(name) is Readiness.READY and self._answers(name)

    def route(self, shares: Mapping[str, float]) -> None:
        self.place.shares = dict(shares)
        self.place.keep()

    def hold(self, bounds: HoldPolicy | None) -> None:
        self.place.held = bounds is not None
        self.place.keep()

    def stop(self, name: str) -> None:
        if self.place.readiness(name) not in (Readiness.ABSENT, Readiness.LEAVING):
            self.place.things[name].gone_s = self.place.now_s + self.place.stop_s
            self.place.things[name].in_flight = 0
        self.place.keep()
