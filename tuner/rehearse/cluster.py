"""A simulated cluster and what runs on it: 1,024 GPUs, faults and drift on a laptop.

It serves with the simulator, under conditions that a study does not know: prices that differ from the model's, noise,
failures, hardware that slows down. The same seed gives the same world. All that it says of itself starts with
``simulated``, so that nobody takes its figures for measured ones.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Isolation, TuneRequest
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.rehearse.conditions import AT_REST, Conditions
from tuner.trial.cancel import CancelHandle
from tuner.trial.devices import Node, Placement, Reservation, place, room_for
from tuner.trial.launched import Launched, NoEngine, installed, model_source
from tuner.trial.seams import Watch

NAME = "simulated"
IN_PLACE = frozenset({"stream_interval_ms", "ingress_replicas"})  # as Ray Serve
NOWHERE = Placement(())  # of what holds no devices yet


class SimulatedCluster:
    """The world: devices, what runs on them, and the simulated time. It outlives the launchers that use it.

    Safe to use from several threads. With a pace, all of them live in one time, which goes by as real time does, faster
    by ``1 / pace``: starts and load steps of several deployments overlap. Without one the clock stands still but for
    starts and load steps, which follow each other whoever asks for them.
    """

    def __init__(self, cluster: Cluster, conditions: Conditions = AT_REST) -> None:
        self.cluster, self.conditions = cluster, conditions
        self._lock = threading.RLock()
        self._nodes = [Node(cluster.gpus_per_node)] * cluster.nodes
        self._running: dict[str, SimulatedDeployment] = {}
        self._began_at, self._passed_s = time.perf_counter(), 0.0
        self._busy_device_s, self._counted_until_s = 0.0, 0.0

    @property
    def clock_s(self) -> float:
        """Simulated seconds since the world began."""
        pace = self.conditions.pace
        return (time.perf_counter() - self._began_at) / pace if pace else self._passed_s

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the deployments that hold devices, oldest first."""
        with self._lock:
            return tuple(self._running)

    @property
    def free_devices(self) -> int:
        """Devices that no deployment holds."""
        with self._lock:
            return len(self._nodes) * self.cluster.gpus_per_node - self._held_devices()

    @property
    def busy_device_s(self) -> float:
        """Simulated seconds for which devices were held, summed over devices."""
        with self._lock:
            self._count_busy()
            return self._busy_device_s

    @property
    def slowdown(self) -> float:
        """By which factor everything is slower than when the world began."""
        return 1 + self.conditions.slowdown_per_hour * self.clock_s / 3600

    def _held_devices(self) -> int:
        return sum(deployment.layout.devices for deployment in self._running.values())

    def _count_busy(self) -> None:
        now_s = self.clock_s
        self._busy_device_s += self._held_devices() * (now_s - self._counted_until_s)
        self._counted_until_s = now_s

    def lose_nodes(self, count: int) -> None:
        """Take the last nodes away; what has devices on them dies."""
        with self._lock:
            self._nodes = self._nodes[: max(len(self._nodes) - count, 0)]
            for deployment in list(self._running.values()):
                if any(node >= len(self._nodes) for node in deployment.placement.nodes):
                    deployment.die("a node was lost")

    def pass_time(self, seconds: float, since_s: float | None = None, cancel: CancelHandle | None = None) -> None:
        """Let simulated time go by until so long after ``since_s`` (now, if left out), or until ``cancel`` is asked."""
        cancel = cancel or CancelHandle()
        if self.conditions.pace:
            until_s = (self.clock_s if since_s is None else since_s) + seconds
            while (left_s := until_s - self.clock_s) > 0:
                cancel.wait(left_s * self.conditions.pace)
            return
        cancel.raise_if_cancelled()
        with self._lock:
            self._count_busy()
            self._passed_s += seconds
            self._count_busy()

    def hold(self, deployment: SimulatedDeployment, leased: Placement | None = None) -> None:
        """Give a deployment its devices: those ``leased`` to it, or where it finds room.

        Raises LaunchFailed where they are not free, BadInput for a name in use.
        """
        with self._lock:
            if deployment.app in self._running:
                raise BadInput("app", deployment.app, "a name that nothing running has")
            used = [Reservation(one.placement, measuring=False) for one in self._running.values()]
            if leased is None:
                leased = place(deployment.layout, self._nodes, used, Isolation.NONE)
            if leased is None or not room_for(leased, self._nodes, used):
                free = f"{self.free_devices} of {self.cluster.devices} are free"
                words = f"needs {deployment.layout.devices} devices, {free} on {len(self._nodes)} nodes"
                raise LaunchFailed(FailureReason.PLACEMENT_IMPOSSIBLE, f"simulated: {words}")
            self._count_busy()
            deployment.placement = leased
            self._running[deployment.app] = deployment

    def free(self, app: str) -> bool:
        """Take back a deployment's devices; True if it had any."""
        with self._lock:
            self._count_busy()
            return self._running.pop(app, None) is not None


@dataclass(eq=False)
class SimulatedDeployment:
    """One layout on the simulated cluster; implements ``tuner.trial.seams.RunningDeployment``.

    ``chance`` names what its noise is drawn by: the trial, so that one that is launched again measures the same.
    """

    app: str
    layout: ParallelLayout
    request: TuneRequest
    model: ModelShape
    kv_tokens: int
    world: SimulatedCluster
    chance: str
    placement: Placement = NOWHERE
    ready_after_s: float = 0.0
    _death: tuple[FailureReason, str] | None = None
    _log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """No endpoint that anything else could reach."""
        return f"simulated://{self.app}"

    @property
    def model_id(self) -> str:
        """The model's name in the request."""
        return self.request.model

    @property
    def launched(self) -> Launched:
        """Nothing that could be deployed."""
        world = NoEngine(f"simulated cluster, seed {self.world.conditions.seed}")
        return Launched(NAME, installed(), model_source(self.request.model), world)

    def reconfigure(self, layout: ParallelLayout, watch: Watch) -> None:
        """Serve behind another path, in no time. Raises as ``tuner.trial.seams.Reconfigurable``, and BadInput where
        more than the path would be another."""
        if layout.without(IN_PLACE) != self.layout.without(IN_PLACE):
            raise BadInput("layout", str(layout), f"{self.layout}, with another {' or '.join(sorted(IN_PLACE))}")
        self.require_alive()
        watch.cancel.raise_if_cancelled()
        self.layout, self.ready_after_s = layout, 0.0
        self.say(f"serves as {layout}")

    def say(self, words: str) -> None:
        """Add a line to the log."""
        self._log.append(f"simulated engine, {self.world.clock_s:.0f} s: {words}")

    def die(self, why: str) -> None:
        """Break, and give the devices back."""
        self._death = (FailureReason.REPLICA_DIED, f"simulated: {why}")
        self.say(why)
        self.world.free(self.app)

    def failure(self) -> tuple[FailureReason, str] | None:
        """Why it is not healthy any more, or None."""
        return self._death

    def require_alive(self) -> None:
        """Raise LaunchFailed if nothing answers any more."""
        if self._death is not None:
            raise LaunchFailed(*self._death, self.log_tail())
        if self.app not in self.world.running:
            raise LaunchFailed(FailureReason.CLIENT_ERROR, "simulated: it was torn down", self.log_tail())

    def log_tail(self, lines: int = 20) -> tuple[str, ...]:
        """Its last log lines."""
        return tuple(self._log[-lines:])

    def teardown(self) -> None:
        """Give its devices back."""
        self.world.free(self.app)
