"""What ``parlay tune`` runs a study on: the launcher and the meter that were asked for, and their clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve.measure.http_meter import HttpMeter
from tuner.app.tune.options import TuneOptions
from tuner.ask.cluster import Cluster, Fleet
from tuner.errors import BadInput
from tuner.rehearse.conditions import Conditions
from tuner.trial.seams import Launcher, Meter

if TYPE_CHECKING:
    from tuner.rehearse.cluster import SimulatedCluster

LAUNCHERS = ("ray", "local", "simulated")


def _simulated(cluster: Cluster | Fleet, seed: int) -> SimulatedCluster:
    """A cluster whose prices differ from the model's as those of a real one may, and whose steps scatter."""
    from tuner.rehearse.cluster import SimulatedCluster

    if not isinstance(cluster, Cluster):
        raise BadInput("--launcher", "simulated", "ray or local, where the cluster has several GPUs")
    return SimulatedCluster(cluster, Conditions(seed=seed, term_error=0.1, noise=0.02))


@dataclass(frozen=True, slots=True)
class Bench:
    """What the study is run on, and its clock in s."""

    launcher: Launcher
    meter: Meter
    clock: Callable[[], float] = time.perf_counter


@contextmanager
def bench(options: TuneOptions, cluster: Cluster | Fleet) -> Iterator[Bench]:
    """What ``options`` ask for, closed at the end; raises BadInput for a launcher that does not exist."""
    if options.launcher == "simulated":
        from tuner.rehearse.launcher import SimulatedLauncher
        from tuner.rehearse.meter import SimulatedMeter

        world = _simulated(cluster, options.simulated_seed)
        yield Bench(SimulatedLauncher(world), SimulatedMeter(world), lambda: world.clock_s)
        return
    launcher = _real_launcher(options)
    try:
        yield Bench(launcher, HttpMeter())
    finally:
        launcher.close()


def _real_launcher(options: TuneOptions) -> Launcher:
    if options.launcher not in LAUNCHERS:
        raise BadInput("--launcher", options.launcher, ", ".join(LAUNCHERS))
    from serve.launch.engine_caches import EngineCaches

    caches, state_dir = EngineCaches.of(options.engine_caches), options.out / "state"
    caches.clean()
    if options.launcher == "local":
        from serve.launch.local_launcher import LocalProcessLauncher

        return LocalProcessLauncher(port=options.http_port or None, state_dir=state_dir, caches=caches)
    from serve.launch.ray_launcher import RayServeLauncher

    return RayServeLauncher(options.ray_address, options.http_port or None, state_dir=state_dir, caches=caches)
