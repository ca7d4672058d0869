"""Launches layouts on a simulated cluster."""

from __future__ import annotations

import numpy as np

from tuner.ask.deployment import UNLAUNCHED, Deployment, TwoPools
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.ask.rules import illegal
from tuner.cost.memory import estimate_memory
from tuner.errors import FailureReason, LaunchFailed
from tuner.rehearse.cluster import IN_PLACE, NAME, SimulatedCluster, SimulatedDeployment
from tuner.trial.cancel import CancelHandle
from tuner.trial.launched import installed
from tuner.trial.seams import LaunchOrder, Watch

_START_UP_SPREAD = 0.1  # standard deviation of start-up times, on a log scale


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
    def cluster(self) -> None:
        """None: each study simulates a cluster of its own."""
        return None

    @property
    def in_place(self) -> frozenset[str]:
        """As Ray Serve."""
        return IN_PLACE

    @property
    def versions(self) -> dict[str, str]:
        """Those of Parlay and Python: no engine runs."""
        return installed()

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        """It runs whatever the engine accepts."""
        if isinstance(deployment, TwoPools):
            return UNLAUNCHED
        drop = illegal(requested_model(request), deployment, self._world.cluster)
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
        model = requested_model(order.request)
        limits = (np.array([float(layout.max_num_batched_tokens)]), np.array([float(layout.max_num_seqs)]))
        memory = estimate_memory(model, layout, world.cluster, order.request.engine, *limits)
        deployment = SimulatedDeployment(
            order.app, layout, order.request, model, int(memory.kv_tokens[0]), world, _chance(order)
        )
        engine = order.request.engine
        misfit = memory.misfit(0, engine.held_tokens(order.request.max_model_len), engine.block_tokens)
        if misfit is not None:
            deployment.say(misfit)
            raise LaunchFailed(FailureReason.DOES_NOT_FIT, f"simulated: {misfit}", deployment.log_tail())
        world.hold(deployment, order.placement)
        return deployment

    def _start(self, deployment: SimulatedDeployment, order: LaunchOrder, cancel: CancelHandle) -> None:
        conditions, limit_s = self._world.conditions, order.request.engine.start_timeout_s
        reason = conditions.failure_of(order.layout)
        spread = _START_UP_SPREAD * conditions.random("start", _chance(order)).standard_normal()
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


def _chance(order: LaunchOrder) -> str:
    return f"parlay-{order.study}-{order.trial}"
