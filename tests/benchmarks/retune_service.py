"""What serves in an episode: a layout, what of it is alive, and the change that is under way; with what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.benchmarks.retune_stories import Story
from tests.benchmarks.retune_world import Replica, Served, State
from tuner.ask.layout import ParallelLayout
from tuner.ask.packing import footprint

START_S = 300.0  # until a deployment answers
CANARY_S = 300.0  # beside the old one, after that
NOTHING = Served(0.0, 0.0, 60_000.0, 1_000.0)


@dataclass
class Service:
    """``layout`` serves with ``alive`` replicas (the others come back at ``whole_s``) until ``next`` takes its place at
    ``switch_s``, beside it or after it ended (``down``)."""

    story: Story
    layout: ParallelLayout
    alive: int = 0
    whole_s: float | None = None
    next: ParallelLayout | None = None
    switch_s: float = 0.0
    down: bool = False
    lost_minutes: float = 0.0
    gpu_hours: float = 0.0
    moves: list[tuple[float, ParallelLayout]] = field(default_factory=list)
    _state: State = field(default_factory=State)
    _passed: int = 0
    _replica: Replica | None = None

    def __post_init__(self) -> None:
        self.alive = self.layout.dp

    @property
    def state(self) -> State:
        """What is so as of the last look."""
        return self._state

    @property
    def spare(self) -> int:
        """GPUs that it leaves."""
        spec = self.story.world.site.request.groups[0]
        return (spec.nodes - self._state.lost) * spec.gpus_per_node - self.layout.devices

    def held(self, layout: ParallelLayout) -> int:
        """Replicas of a layout that the nodes of now hold, at most its own."""
        spec = self.story.world.site.request.groups[0]
        return min(footprint(layout, spec.gpus_per_node).held_by(spec.nodes - self._state.lost), layout.dp)

    def see(self, at_s: float) -> bool:
        """Let it be ``at_s``: nodes go and come, what starts is up. True where another layout serves since now."""
        changes = self.story.changes
        while self._passed < len(changes) and changes[self._passed].at_s <= at_s:
            self._become(at_s, changes[self._passed].state)
            self._passed += 1
        if self.whole_s is not None and at_s >= self.whole_s and not self.down:
            self.alive, self.whole_s = self.held(self.layout), None
        if self.next is None or at_s < self.switch_s:
            return False
        self.layout, self.next, self.down = self.next, None, False
        self.alive, self.whole_s, self._replica = self.held(self.layout), None, None
        self.moves.append((at_s, self.layout))
        return True

    def _become(self, at_s: float, state: State) -> None:
        if state.lost != self._state.lost:
            gone = state.lost - self._state.lost
            self._state = state
            if gone > 0:
                self.alive = max(self.alive - self._under(gone), 0)
            self.whole_s = at_s + START_S  # the others start anew where there is room
        self._state, self._replica = state, None

    def change(self, at_s: float, layout: ParallelLayout, urgent: bool = False) -> None:
        """Begin to put another layout in its place: beside it where there is room, else after it ended. What is
        ``urgent`` has no canary."""
        beside = self.spare >= layout.devices or (urgent and self._survivors_leave(layout))
        self.next, self.down = layout, not beside
        self.switch_s = at_s + START_S + (0.0 if urgent or self.down else CANARY_S)
        self.alive = 0 if self.down else self.alive

    def passed(self, seconds: float, served: Served) -> None:
        """Count the time that passed, with what requests saw."""
        targets = self.story.world.site.targets
        met = served.ttft_within >= targets[0].percentile / 100 and served.tpot_within >= targets[1].percentile / 100
        self.lost_minutes += 0.0 if met else seconds / 60
        both = self.next.devices if self.next is not None else 0
        self.gpu_hours += (self.alive * self.layout.devices_per_replica + both) * seconds / 3600

    def served(self, at_s: float) -> Served:
        """What requests see at a time, in truth."""
        if not self.alive:
            return NOTHING
        if self._replica is None:
            self._replica = self.story.world.truth(self._state).replica(self.layout)
        return self.story.served(self._replica, self.story.rate(at_s) * self._state.rate / self.alive)

    def resize(self, replicas: int) -> None:
        """Another number of replicas, at once."""
        self.layout = replace(self.layout, dp=replicas)
        self.alive = self.held(self.layout)

    def _under(self, nodes: int) -> int:
        """Replicas that so many of its nodes carry."""
        one = footprint(self.layout, self.story.world.site.request.groups[0].gpus_per_node)
        if one.on_one_node:
            return min(nodes * max(one.sharing, 1), self.alive)
        return min(-(-nodes // one.nodes), self.alive)

    def _survivors_leave(self, layout: ParallelLayout) -> bool:
        spec = self.story.world.site.request.groups[0]
        there = (spec.nodes - self._state.lost) * spec.gpus_per_node
        return there - self.alive * self.layout.devices_per_replica >= layout.devices
