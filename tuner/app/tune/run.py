"""``parlay tune``: wires a run to the terminal, the signals, the metrics' port and the files."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from rich.console import Console

from deploy.specs.rayservice import Platform
from serve.launch.niceness import FACT as NICENESS
from serve.launch.niceness import told as niceness
from tuner.app.answers.decision import DecisionAnswer, decision_answer
from tuner.app.cli.signals import cancelled_by_signals
from tuner.app.cli.tables import trace_lines
from tuner.app.tune.bench import bench
from tuner.app.tune.event_recorder import EventRecorder
from tuner.app.tune.options import TuneOptions
from tuner.app.tune.screen import Screen
from tuner.app.tune.telemetry import Telemetry
from tuner.app.tune.telemetry_observer import TelemetryObserver
from tuner.app.tune.trial_log import LogKeeper
from tuner.app.wiring import facts, write_results
from tuner.ask.engine_policy import require_allowed
from tuner.ask.engine_version import EngineVersion
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import load_request
from tuner.decide.decision import Decision
from tuner.errors import BadInput
from tuner.rehearse.conditions import SEED_FACT
from tuner.study.patience import WORKING_S
from tuner.study.runner import StudyOrder, run_study
from tuner.study.store import Store
from tuner.study.study import default_name
from tuner.trial.cancel import CancelHandle
from tuner.trial.launched import ENGINES, installed, versions_shown


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
        store = Store(options.store_url, patience_s=WORKING_S)
        stack.callback(store.close)
        telemetry = _telemetry(options, console, stack)
        screen = Screen(console, request)
        stack.callback(screen.close)
        hurrying = cancel.listening(lambda *_: store.hurry())
        with cancelled_by_signals(cancel, screen.note), hurrying, bench(options, cluster) as made:
            if options.launcher == "simulated":
                screen.note(f"simulated cluster, seed {options.simulated_seed}: no figure is from a real engine")
            for line in trace_lines(request.workload):
                screen.note(line)
            recorder = EventRecorder(store.events, name, request)
            keeper = stack.enter_context(LogKeeper(store.logs, name, order.log_root))
            observers = (screen, recorder, keeper, TelemetryObserver(name, request, telemetry))
            decision = run_study(order, store, made.launcher, made.meter, observers, cancel, clock=made.clock)
        screen.close()
        record = store.study(name)
        decision = write_results(options.out / name, store, record, decision, platform)
        return TuneResult(decision, request, decision_answer(decision, request, record.facts))


def _order(options: TuneOptions) -> StudyOrder:
    asked, known = _with_cluster(load_request(options.request_file), options), facts()
    request = _with_release(asked, options)
    if options.launcher == "simulated":
        known[SEED_FACT] = str(options.simulated_seed)
    else:
        known[NICENESS] = niceness(options.launcher, options.ray_address)
    name = options.study or default_name(asked)
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


def _with_release(request: TuneRequest, options: TuneOptions) -> TuneRequest:
    """The request for the vLLM that is installed where its engines start; raises BadInput where it asks for another, or
    says what that release does not have."""
    found = installed(*ENGINES)
    text = next((found[name] for name in ENGINES if name != "ray" and name in found), None)
    if options.launcher == "simulated" or text is None:
        return request
    release = EngineVersion.parse(text)
    if request.engine.release not in (None, release):
        raise BadInput(
            "engine.version", request.engine.version, f"{release}, which is installed: {versions_shown(found)}"
        )
    request = request.of_release(str(release))
    require_allowed(request.engine)
    return request


def _platform(options: TuneOptions) -> Platform:
    """What the operator wants of the Kubernetes specs; refused where the launcher leaves none."""
    for option, given in (("--ray-version", options.ray_version), ("--image", options.image)):
        if given is not None and options.launcher != "ray":
            raise BadInput(option, given, f"--launcher ray; no Kubernetes spec comes of {options.launcher}")
    return Platform(ray_version=options.ray_version, image=options.image)
