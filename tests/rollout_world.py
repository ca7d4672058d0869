"""A rollout on a simulated place, from move to move, as a watcher does it; with humans and accidents between."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace

from tests.fakes import make_request
from tests.rollouts import a_live, a_rollout
from tests.simulated_site import SimulatedPlace, SimulatedSite
from tuner.errors import BadInput
from tuner.retune.moves import Answer, CanaryAnswer, Facts, Move, Patience, Route, Start, Stop, Wait, Warm, Write
from tuner.retune.next_step import next_step
from tuner.retune.policy import CanaryPolicy
from tuner.retune.rollout import ENDS, Rollout, Step, Way, Wish
from tuner.retune.site import Readiness
from tuner.retune.wishes import heeded

REQUEST = make_request()
PATIENCE = Patience(start_s=300, warm_s=60, drain_s=120, empty_s=30, held_s=600)
TICK_S = 10.0


@dataclass
class RolloutWorld:
    """``canary`` is what a canary would say now; ``blips`` are moments at which nothing served although it could."""

    rollout: Rollout
    place: SimulatedPlace
    canary: Answer = Answer.HOLD
    answers: bool = True
    warmed: bool = False
    moves: list[Move] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    blips: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, way: Way = Way.BESIDE, *, old: str | None = "old", **changes):
        """A world where the old one serves, or in an emergency has died."""
        place = SimulatedPlace(start_s=60, stop_s=20)
        world = cls(a_rollout(way, old=old, **changes), place)
        if old is not None:
            world.site.start(a_live(old), REQUEST)
            place.now_s += 60
            if way is Way.REPLACE:
                place.kill(old)
            else:
                world.site.route({old: 1.0})
        world.rollout = replace(world.rollout, began_s=place.now_s, step_since_s=place.now_s)
        return world

    @property
    def site(self) -> SimulatedSite:
        return SimulatedSite(self.place, lambda name: self.answers)

    @property
    def ended(self) -> bool:
        return self.rollout.step in ENDS

    def facts(self) -> Facts:
        said = CanaryAnswer(self.canary, f"the canary says {self.canary}")
        policy = CanaryPolicy(share=0.25, most_minutes=5)
        return Facts(self.site.see(), self.place.now_s, said, self.warmed, False, policy, PATIENCE)

    def move(self) -> Move:
        """The next move, made."""
        move, site = next_step(self.rollout, self.facts()), self.site
        self.moves.append(move)
        match move:
            case Write(rollout):
                assert rollout != self.rollout
                self.rollout, self.warmed = rollout, False
                self.steps.append(rollout.step.value)
            case Start(name):
                site.start(a_live(name), REQUEST)
            case Warm(name):
                self.warmed = site.warm(name)
            case Route(shares):
                site.route(shares)
            case Stop(name):
                assert self.place.shares.get(name, 0) == 0, "what has traffic is stopped"
                site.stop(name)
        return move

    def settle(self) -> None:
        """Move until it waits."""
        for _ in range(60):
            before = self.warmed
            move = self.move()
            if isinstance(move, Wait) or (isinstance(move, Warm) and self.warmed == before):
                break
        else:
            raise AssertionError(f"it never waits: {self.moves[-8:]}")
        self.look()

    def look(self) -> None:
        """Note where traffic goes nowhere although one can serve."""
        ready = [name for name in self.place.present() if self.place.readiness(name) is Readiness.READY]
        served = sum(share for name, share in self.place.shares.items() if name in ready)
        if ready and self.rollout.step.value not in ("stopping_old",) and served < 0.999:
            self.blips.append(f"{self.rollout.step}: {ready}, {self.place.shares}")

    def wish(self, wish: Wish) -> None:
        """What a human asks, where it is not refused."""
        with suppress(BadInput):
            self.rollout = heeded(self.rollout, wish, self.place.now_s)

    def tick(self) -> None:
        """Let time go by, then move until it waits."""
        self.place.now_s += TICK_S
        self.settle()

    def run(self, ticks: int = 400) -> RolloutWorld:
        """To its end."""
        self.settle()
        for _ in range(ticks):
            if self.ended:
                return self
            self.tick()
        raise AssertionError(f"it does not end: {self.rollout}, {self.place}")


def at_step(world: RolloutWorld, step: Step, ticks: int = 200) -> RolloutWorld:
    """Run it until it comes to a step."""
    world.settle()
    for _ in range(ticks):
        if world.rollout.step is step:
            return world
        world.tick()
    raise AssertionError(f"it never comes to {step}: {world.steps}")
