"""``parlay tune``: wires a run to the terminal, the signals, the metrics' port and the files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from deploy.specs.rayservice import Platform
from serve.launch.niceness import FACT as NICENESS
from serve.launch.niceness import told as niceness
from serve.measure.http_meter import HttpMeter
from tuner.app.answers.decision import DecisionAnswer, decision_answer
from tuner.app.cli.signals import cancelled_by_signals
from tuner.app.tune.screen import Screen
from tuner.app.tune.telemetry import Telemetry
from tuner.app.tune.telemetry_observer import TelemetryObserver
from tuner.app.wiring import facts, write_results
from tuner.ask.cluster import Cluster, Fleet
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import load_request
from tuner.decide.decision import Decision
from tuner.errors import BadInput
from tuner.rehearse.conditions import SEED_FACT, Conditions
from tuner.study.runner import StudyOrder, run_study
from tuner.study.store import Store
from tuner.study.study import default_name
from tuner.trial.cancel import CancelHandle
from tuner.trial.seams import Launcher, Meter

if TYPE_CHECKING:
    from tuner.rehearse.cluster import SimulatedCluster

LAUNCHERS = ("ray", "local", "simulated")


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What the operator gave on the command line beside the request; 0 or None for a port: any, or no endpoint.

    ``simulated_seed`` is that of the cluster of the ``simulated`` launcher. ``ray_version`` and ``image`` are the
    operator's, for the Kubernetes specs.
    """

    request_file: Path
    out: Path
    store_url: str
    study: str | None
    resume: bool
    launcher: str
    ray_address: str | None
    http_port: int
    metrics_port: int | None
    simulated_seed: int = 0
    ray_version: str | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class TuneResult:
    """A finished study: the decision, the request as it was run, and the answer for ``--json``."""

    decision: Decision
    request: TuneRequest
    answer: DecisionAnswer


def run_tune(options: TuneOptions, console: Console) -> TuneResult:
    """Run the study and write its files. Everything that can be refused is refused before anything starts."""
    platform = _platform(options)
    order, cancel = _order(options), CancelHandle()
    name, request = order.name, order.request
    cluster = order.setting().cluster
    with ExitStack() as stack:
        store = Store(options.store_url)
        stack.callback(store.close)
        telemetry = _telemetry(options, console, stack)
        screen = Screen(console, request)
        stack.callback(screen.close)
        with cancelled_by_signals(cancel, screen.note), _bench(options, cluster) as bench:
            if options.launcher == "simulated":
                screen.note(f"simulated cluster, seed {options.simulated_seed}: no figure is from a real engine")
            observers = (screen, TelemetryObserver(name, request, telemetry))
            decision = run_study(order, store, bench.launcher, bench.meter, observers, cancel, clock=bench.clock)
        screen.close()
        record = store.study(name)
        decision = write_results(options.out / name, store, record, decision, platform)
        return TuneResult(decision, request, decision_answer(decision, request, record.facts))


def _order(options: TuneOptions) -> StudyOrder:
    request, known = _with_cluster(load_request(options.request_file), options), facts()
    if options.launcher == "simulated":
        known[SEED_FACT] = str(options.simulated_seed)
    else:
        known[NICENESS] = niceness(options.launcher, options.ray_address)
    name = options.study or default_name(request)
    return StudyOrder(name, request, options.out / name / "logs", options.resume, known)


def _telemetry(options: TuneOptions, console: Console, stack: ExitStack) -> Telemetry:
    """The metrics, and their endpoint where one was asked for."""
    telemetry = Telemetry()
    if options.metrics_port is not None:
        port = telemetry.start_http(port=options.metrics_port)
        stack.callback(telemetry.stop)
        console.print(f"metrics: http://127.0.0.1:{port}/metrics", highlight=False)
    return telemetry


def _with_cluster(request: TuneRequest, options: TuneOptions) -> TuneRequest:
    """The request with its cluster discovered, where it asks for that."""
    if request.cluster != "ray" or options.launcher == "simulated":
        return request
    from serve.launch.ray_api import discover_cluster

    return request.model_copy(update={"cluster": discover_cluster(options.ray_address or "auto")})


def _platform(options: TuneOptions) -> Platform:
    """What the operator wants of the Kubernetes specs; refused where the launcher leaves none."""
    for option, given in (("--ray-version", options.ray_version), ("--image", options.image)):
        if given is not None and options.launcher != "ray":
            raise BadInput(option, given, f"--launcher ray; no Kubernetes spec comes of {options.launcher}")
    return Platform(ray_version=options.ray_version, image=options.image)


def _simulated(cluster: Cluster | Fleet, seed: int) -> SimulatedCluster:
    """A cluster whose prices differ from the model's as those of a real one may, and whose steps scatter."""
    from tuner.rehearse.cluster import SimulatedCluster

    if not isinstance(cluster, Cluster):
        raise BadInput("--launcher", "simulated", "ray or local, where the cluster has several GPUs")
    return SimulatedCluster(cluster, Conditions(seed=seed, term_error=0.1, noise=0.02))


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the study is run on, and its clock in s."""

    launcher: Launcher
    meter: Meter
    clock: Callable[[], float] = time.perf_counter


@contextmanager
def _bench(options: TuneOptions, cluster: Cluster | Fleet) -> Iterator[_Bench]:
    if options.launcher == "simulated":
        from tuner.rehearse.cluster import SimulatedLauncher, SimulatedMeter

        world = _simulated(cluster, options.simulated_seed)
        yield _Bench(SimulatedLauncher(world), SimulatedMeter(world), lambda: world.clock_s)
        return
    launcher = _real_launcher(options)
    try:
        yield _Bench(launcher, HttpMeter())
    finally:
        launcher.close()


def _real_launcher(options: TuneOptions) -> Launcher:
    if options.launcher not in LAUNCHERS:
        raise BadInput("--launcher", options.launcher, ", ".join(LAUNCHERS))
    if options.launcher == "local":
        from serve.launch.local_launcher import LocalProcessLauncher

        return LocalProcessLauncher(port=options.http_port or None, state_dir=options.out / "state")
    from serve.launch.ray_launcher import RayServeLauncher

    return RayServeLauncher(options.ray_address, options.http_port or None, state_dir=options.out / "state")
