"""A simulated cluster behind the ``Launcher`` and ``Meter`` seams: 1,024 GPUs, faults and drift on a laptop.

It serves with the simulator, under conditions that a study does not know: prices that differ from the model's, noise,
failures, hardware that slows down. The same seed gives the same world. All that it says of itself starts with
``simulated``, so that nobody takes its figures for measured ones.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np

from tuner.ask.arrivals import offered
from tuner.ask.cluster import Cluster
from tuner.ask.deployment import UNLAUNCHED, Deployment, TwoPools
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape, load_model
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.rules import illegal
from tuner.cost.memory import estimate_memory
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.rehearse.conditions import AT_REST, Conditions, TrueCosts
from tuner.simulate import SimulationResult, SimulationSettings, Simulator
from tuner.stats.intervals import percentile, quantiles
from tuner.trial.cancel import CancelHandle
from tuner.trial.launched import Launched, NoEngine, installed, model_source
from tuner.trial.results import LoadStep, StepResult
from tuner.trial.seams import LaunchOrder, RunningDeployment, Watch

__all__ = ["Conditions", "SimulatedCluster", "SimulatedDeployment", "SimulatedLauncher", "SimulatedMeter"]

NAME = "simulated"
_START_UP_SPREAD = 0.1  # standard deviation of start-up times, on a log scale


class SimulatedCluster:
    """The world: devices, what runs on them, and the simulated time. It outlives the launchers that use it.

    Safe to use from several threads. With a pace, all of them live in one time, which goes by as real time does, faster
    by ``1 / pace``: starts and load steps of several deployments overlap. Without one the clock stands still but for
    starts and load steps, which follow each other whoever asks for them.
    """

    def __init__(self, cluster: Cluster, conditions: Conditions = AT_REST) -> None:
        self.cluster, self.conditions = cluster, conditions
        self._lock = threading.RLock()
        self._lost_devices = 0
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
        """Devices that no deployment holds; below 0 while lost nodes are still missed."""
        with self._lock:
            return self.cluster.devices - self._lost_devices - self._held_devices()

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
        """Take nodes away; the youngest deployments die until the others fit."""
        with self._lock:
            self._lost_devices = min(self._lost_devices + count * self.cluster.gpus_per_node, self.cluster.devices)
            for deployment in reversed(list(self._running.values())):
                if self.free_devices >= 0:
                    return
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

    def hold(self, deployment: SimulatedDeployment) -> None:
        """Give a deployment its devices. Raises LaunchFailed where too few are free, BadInput for a name in use."""
        with self._lock:
            if deployment.app in self._running:
                raise BadInput("app", deployment.app, "a name that nothing running has")
            free = max(self.free_devices, 0)
            if deployment.layout.devices > free:
                words = f"needs {deployment.layout.devices} devices, {free} of {self.cluster.devices} are free"
                raise LaunchFailed(FailureReason.PLACEMENT_IMPOSSIBLE, f"simulated: {words}")
            self._count_busy()
            self._running[deployment.app] = deployment

    def free(self, app: str) -> bool:
        """Take back a deployment's devices; True if it had any."""
        with self._lock:
            self._count_busy()
            return self._running.pop(app, None) is not None


@dataclass(eq=False)
class SimulatedDeployment:
    """One layout on the simulated cluster; implements ``tuner.trial.seams.RunningDeployment``."""

    app: str
    layout: ParallelLayout
    request: TuneRequest
    model: ModelShape
    kv_tokens: int
    world: SimulatedCluster
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


class SimulatedLauncher:
    """Launches on a simulated cluster; implements ``tuner.trial.seams.Launcher``."""

    def __init__(self, world: SimulatedCluster) -> None:
        self._world = world

    @property
    def name(self) -> str:
        """What it is."""
        return NAME

    @property
    def parallel(self) -> int:
        """As many as there are devices, where time goes by with a pace; else one, since nothing overlaps."""
        return self._world.cluster.devices if self._world.conditions.pace else 1

    @property
    def versions(self) -> dict[str, str]:
        """Those of Parlay and Python: no engine runs."""
        return installed()

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        """It runs whatever the engine accepts."""
        if isinstance(deployment, TwoPools):
            return UNLAUNCHED
        drop = illegal(load_model(request.model), deployment, self._world.cluster)
        return drop.figure if drop is not None else None

    def launch(self, order: LaunchOrder, watch: Watch) -> SimulatedDeployment:
        """Start a deployment; it is ready at once in real time, unless the conditions set a pace."""
        deployment = self._placed(order)
        try:
            watch.progress(f"simulated: starting {order.layout}")
            self._start(deployment, order, watch.cancel)
        except BaseException:
            deployment.teardown()
            raise
        return deployment

    def _placed(self, order: LaunchOrder) -> SimulatedDeployment:
        world, layout = self._world, order.layout
        model = load_model(order.request.model)
        limits = (np.array([float(layout.max_num_batched_tokens)]), np.array([float(layout.max_num_seqs)]))
        memory = estimate_memory(model, layout, world.cluster, order.request.engine, *limits)
        deployment = SimulatedDeployment(order.app, layout, order.request, model, int(memory.kv_tokens[0]), world)
        misfit = memory.misfit(0, order.request.max_model_len)
        if misfit is not None:
            deployment.say(misfit)
            raise LaunchFailed(FailureReason.DOES_NOT_FIT, f"simulated: {misfit}", deployment.log_tail())
        world.hold(deployment)
        return deployment

    def _start(self, deployment: SimulatedDeployment, order: LaunchOrder, cancel: CancelHandle) -> None:
        conditions, limit_s = self._world.conditions, order.request.engine.start_timeout_s
        reason = conditions.failure_of(order.layout)
        spread = _START_UP_SPREAD * conditions.random("start", order.app).standard_normal()
        start_up_s = conditions.start_up_s * float(np.exp(spread))
        if reason is FailureReason.START_TIMED_OUT or start_up_s > limit_s:
            self._world.pass_time(limit_s, cancel=cancel)
            words = f"not ready within {limit_s:g} s"
            deployment.say(words)
            raise LaunchFailed(FailureReason.START_TIMED_OUT, f"simulated: {words}", deployment.log_tail())
        self._world.pass_time(start_up_s, cancel=cancel)
        deployment.require_alive()
        if reason not in (None, FailureReason.REPLICA_DIED):
            deployment.say(f"fails to start: {reason}")
            raise LaunchFailed(reason, f"simulated: {reason.value} at start", deployment.log_tail())
        deployment.ready_after_s = start_up_s
        deployment.say("ready")

    def remove_orphan(self, app: str) -> bool:
        """Take back the devices of a deployment whose study died."""
        return self._world.free(app)

    def close(self) -> None:
        """The world stays as it is."""


class SimulatedMeter:
    """Measures deployments of a simulated cluster; implements ``tuner.trial.seams.Meter``."""

    def __init__(self, world: SimulatedCluster) -> None:
        self._world = world

    def measure(self, deployment: RunningDeployment, step: LoadStep, request: TuneRequest, watch: Watch) -> StepResult:
        """Simulate the load step that a real meter would send, with the prices that are true here."""
        if not isinstance(deployment, SimulatedDeployment):
            raise BadInput("deployment", deployment.url, "one of the simulated cluster")
        conditions = self._world.conditions
        if conditions.failure_of(deployment.layout) is FailureReason.REPLICA_DIED and not step.warmup:
            deployment.die("a worker was killed")
        deployment.require_alive()
        since_s = self._world.clock_s
        random = conditions.random("noise", deployment.app, step.index, step.seed)
        factor = self._world.slowdown * float(np.exp(conditions.noise * random.standard_normal()))
        simulator = Simulator(
            TrueCosts(deployment.model, self._world.cluster, conditions, factor),
            deployment.layout,
            kv_tokens=deployment.kv_tokens,
            longest_tokens=request.max_model_len,
            settings=SimulationSettings.for_slo(request.workload, request.slo, seed=step.seed),
        )
        result = simulator.run(offered(request.workload, step.rate_req_per_s, step.duration_s, step.seed))
        self._world.pass_time(result.duration_s, since_s, watch.cancel)
        deployment.require_alive()
        deployment.say(f"served {len(result.arrival_s)} requests at {step.rate_req_per_s:g}/s")
        return _step_result(result, step, request)


def _step_result(result: SimulationResult, step: LoadStep, request: TuneRequest) -> StepResult:
    """As ``serve.measure.summary.figures`` counts: goodput over the window, requests beyond the timeout failed."""
    done = result.e2e_ms <= request.load.request_timeout_s * 1e3
    sent, completed = len(done), int(done.sum())
    if not completed:
        raise LaunchFailed(FailureReason.CLIENT_ERROR, f"simulated: all {sent} requests timed out")
    tpot_ms = result.tpot_ms[done[result.output_tokens > 1]]
    samples = {Metric.TTFT: result.ttft_ms[done], Metric.TPOT: tpot_ms, Metric.E2E: result.e2e_ms[done]}
    latency = {metric: found for metric, values in samples.items() if (found := quantiles(values)) is not None}
    gaps = result.quantiles(Metric.ITL)
    if gaps is not None:
        latency[Metric.ITL] = gaps
    values_ms = {
        t.key: result.at(*t.key) if t.metric is Metric.ITL else percentile(samples[t.metric], t.percentile)
        for t in request.slo
    }
    good = int((result.met(request.slo) & done).sum())
    return StepResult(
        step=step,
        sent=sent,
        completed=completed,
        failed=sent - completed,
        wall_s=result.duration_s,
        latency=latency,
        slo_values_ms=values_ms,
        attainment=good / sent,
        goodput_req_per_s=good / step.duration_s,
        output_tok_per_s=float(result.output_tokens[done].sum()) / result.duration_s,
        schedule_lag_p99_ms=None,
        errors={"timeout": sent - completed} if completed < sent else {},
    )
