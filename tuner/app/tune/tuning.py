"""``parlay tune``: a request and its options become a study on a launcher, a meter, a store and the observers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from serve.launch.niceness import FACT as NICENESS
from serve.launch.niceness import told as niceness
from serve.measure.window import HttpMeter
from tuner.app.answers import decision_answer
from tuner.app.tune.screen import Screen
from tuner.app.tune.telemetry import Telemetry
from tuner.app.tune.telemetry_observer import TelemetryObserver
from tuner.app.wiring import facts, why_infeasible, write_results
from tuner.ask.arrivals import offered
from tuner.ask.cluster import Cluster, Fleet, requested_cluster
from tuner.ask.model import load_model
from tuner.ask.request import TuneRequest, load_request
from tuner.ask.space import load_space
from tuner.decide.decision import Decision
from tuner.errors import BadInput
from tuner.rehearse.conditions import SEED_FACT, Conditions, simulated_seed
from tuner.study.observer import Fanout, Observer
from tuner.study.store import Store
from tuner.study.study import Setting, Study, default_name
from tuner.trial.trial import Launcher, Meter

if TYPE_CHECKING:
    from tuner.rehearse.cluster import SimulatedCluster

LAUNCHERS = ("ray", "local", "simulated")


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What the operator gave on the command line beside the request; 0 or None for a port: any, or no endpoint.

    ``simulated_seed`` is that of the cluster of the ``simulated`` launcher.
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


@dataclass(frozen=True, slots=True)
class TuneResult:
    """A finished study: the decision, the request as it was run, and the answer for ``--json``."""

    decision: Decision
    request: TuneRequest
    answer: dict[str, Any]


def run_tune(options: TuneOptions, console: Console) -> TuneResult:
    """Run the study and write its files. Everything that can be refused is refused before anything starts."""
    request = _with_cluster(load_request(options.request_file), options)
    offered(request.workload, request.rates_req_per_s[0], request.load.seconds, seed=0)  # a loop or no trace is refused
    name = options.study or default_name(request)
    setting = Setting(
        name=name,
        request=request,
        model=load_model(request.model),
        cluster=requested_cluster(request),
        space=load_space(request.space),
        log_root=options.out / name / "logs",
    )
    with ExitStack() as stack:
        stack.enter_context(_terminated_like_interrupted())
        store = Store(options.store_url)
        stack.callback(store.close)
        observers: list[Observer] = []
        telemetry = Telemetry()
        if options.metrics_port is not None:
            port = telemetry.start_http(port=options.metrics_port)
            stack.callback(telemetry.stop)
            console.print(f"metrics: http://127.0.0.1:{port}/metrics", highlight=False)
        screen = Screen(console, request)
        stack.callback(screen.close)
        observers += [screen, TelemetryObserver(name, request, telemetry)]
        known = facts()
        launcher: Launcher
        meter: Meter
        clock: Callable[[], float] = time.perf_counter
        if options.launcher == "simulated":
            from tuner.rehearse.cluster import SimulatedLauncher, SimulatedMeter

            world = _simulated(setting.cluster, options.simulated_seed)
            launcher, meter, clock = SimulatedLauncher(world), SimulatedMeter(world), lambda: world.clock_s
            known[SEED_FACT] = str(options.simulated_seed)
            screen.note(f"simulated cluster, seed {options.simulated_seed}: no figure is from a real engine")
        else:
            known[NICENESS] = niceness(options.launcher, options.ray_address)
            meter = HttpMeter()
            launcher = stack.enter_context(_launcher(options))
        _same_kind(store, options, name, known)
        study = Study(setting, store, launcher, meter, Fanout(observers), clock=clock)
        decision = study.run(options.resume, known)
        screen.close()
        record = store.study(name)
        files = write_results(options.out / name, store, record, decision)
        reasons = None if decision.winner else why_infeasible(request, decision)
        paths = {kind: str(path) for kind, path in files.items()}
        answer = decision_answer(decision, request, paths, record.facts, reasons)
        store.save_decision(name, answer)
        return TuneResult(decision, request, answer)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM and a closed terminal tear down what Ctrl-C tears down."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_cluster(request: TuneRequest, options: TuneOptions) -> TuneRequest:
    """The request with its cluster discovered, where it asks for that."""
    if request.cluster != "ray" or options.launcher == "simulated":
        return request
    from serve.launch.ray_api import discover_cluster

    return request.model_copy(update={"cluster": discover_cluster(options.ray_address or "auto")})


def _simulated(cluster: Cluster | Fleet, seed: int) -> SimulatedCluster:
    """A cluster whose prices differ from the model's as those of a real one may, and whose steps scatter."""
    from tuner.rehearse.cluster import SimulatedCluster

    if not isinstance(cluster, Cluster):
        raise BadInput("--launcher", "simulated", "ray or local, where the cluster has several GPUs")
    return SimulatedCluster(cluster, Conditions(seed=seed, term_error=0.1, noise=0.02))


def _same_kind(store: Store, options: TuneOptions, name: str, facts: Mapping[str, str]) -> None:
    """Refuse to go on with a study on another kind of cluster, or in another simulated world."""
    known = store.find_study(name) if options.resume else None
    if known is not None and simulated_seed(known.facts) != simulated_seed(facts):
        seed = simulated_seed(known.facts)
        kind = "a real launcher" if seed is None else f"--launcher simulated --simulated-seed {seed}"
        raise BadInput("--launcher", options.launcher, f"{kind}, with which study {name} began")


@contextmanager
def _launcher(options: TuneOptions) -> Iterator[Launcher]:
    if options.launcher not in LAUNCHERS:
        raise BadInput("--launcher", options.launcher, ", ".join(LAUNCHERS))
    launcher: Launcher
    if options.launcher == "local":
        from serve.launch.local_launcher import LocalProcessLauncher

        launcher = LocalProcessLauncher(port=options.http_port or None, state_dir=options.out / "state")
    else:
        from serve.launch.ray_launcher import RayServeLauncher

        launcher = RayServeLauncher(options.ray_address, options.http_port or None, state_dir=options.out / "state")
    try:
        yield launcher
    finally:
        launcher.close()
