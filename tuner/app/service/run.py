"""``parlay serve`` and ``parlay worker``: the processes of the service, from their start to their end."""

from __future__ import annotations

import os
import socket
import sys
import threading
from functools import partial

from rich.console import Console

from serve.launch.processes import identify
from tuner.app.cli.signals import cancelled_by_signals
from tuner.app.service.keeping import workers
from tuner.app.service.options import ServeOptions, WorkerOptions
from tuner.app.service.retention import Rule, tidying
from tuner.app.service.watching_worker import watching
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.app.tune.telemetry import Telemetry
from tuner.errors import BadInput, Cancelled, Cause
from tuner.study.patience import WORKING_S
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle


def run_worker(options: WorkerOptions, console: Console) -> int:
    """Work until told to end; how many studies were run. Raises BadInput for devices of a Ray that is not named."""
    if options.ray_devices and ("ray" not in options.runs_on or options.ray_address is None):
        raise BadInput("--ray-devices", options.ray_devices, "0, unless --ray-address names a running cluster")
    stop, store, telemetry = CancelHandle(), Store(options.store_url, patience_s=WORKING_S), Telemetry()
    named = (options.cluster, options.ray_devices)
    settings = WorkerSettings(options.runs_on, options.ray_address, options.out, options.root, *named)
    try:
        with (
            cancelled_by_signals(stop, lambda text: console.print(text, highlight=False)),
            stop.listening(lambda *_: store.hurry()),
        ):
            _end_with(options.parent, stop)
            if options.metrics_port is not None:
                port = telemetry.start_http(options.metrics_host, options.metrics_port)
                console.print(f"metrics: http://{options.metrics_host}:{port}/metrics", highlight=False)
            with watching(store, options, stop, lambda text: console.print(text, highlight=False, markup=False)):
                return Worker(store, settings, stop, telemetry).run(until_idle=options.until_idle)
    finally:
        telemetry.stop()
        store.close()


def run_serve(options: ServeOptions, console: Console) -> None:
    """Answer until told to end. Raises BadInput for an address that is not to be had, or would be open to others."""
    from tuner.app.service.application import application
    from tuner.app.service.deployed import DeployedWinner, DeployedWinners, deployed_at
    from tuner.app.service.server import Server
    from tuner.app.service.service import Settings

    if options.no_auth and not options.loopback:
        raise BadInput("--no-auth", f"--host {options.host}", "a loopback address such as 127.0.0.1, or tokens")
    settings = Settings(options.runs_on, options.out, options.root, metrics_open=options.metrics_open)
    issuer, places = options.issuer, deployed_at(options.deployed)
    rule = Rule.of(options.keep_days, options.archive_to, places)
    listening = _listen(options.host, options.port)
    store = Store(options.store_url)
    stop, words = CancelHandle(), partial(_worker_words, options)

    def tell(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    deployed = DeployedWinners(store, (DeployedWinner(study, urls) for study, urls in places.items()), tell)
    app = application(store, settings, open_to_all=options.no_auth, issuer=issuer, deployed=lambda: deployed.seen)
    try:
        with (
            cancelled_by_signals(stop, tell),
            deployed,
            workers(words, options.workers, stop, tell, {"PARLAY_STORE": options.store_url}),
            tidying(store, rule, stop, tell),
        ):
            port = listening.getsockname()[1]
            console.print(f"parlay: serving http://{options.host}:{port}", highlight=False)
            console.print(f"parlay: {_who(options, store)}", highlight=False)
            Server(app, listening).run(stop)
    finally:
        store.close()


def _who(options: ServeOptions, store: Store) -> str:
    if options.no_auth:
        return "no token is asked for: whoever is on this machine may do everything"
    if options.oidc_issuer is not None:
        return f"requests need a token, of this store or of {options.oidc_issuer}"
    if store.accounts.tokens():
        return "requests need a token"
    return "requests need a token, and there is none yet: `parlay token create` makes one"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise BadInput("--host, --port", f"{host}:{port}", f"a free address of this machine ({error})") from None


def _worker_words(options: ServeOptions, number: int) -> list[str]:
    """Of one worker; without the store's URL, which may hold a password: that goes by the environment."""
    words = [sys.executable, "-m", "tuner.app.cli.commands", "worker"]
    words += ["--out", str(options.out), "--launchers", options.launchers, "--parent", str(os.getpid())]
    if options.metrics_port is not None:
        words += ["--metrics-port", str(options.metrics_port + number), "--metrics-host", options.metrics_host]
    words += [word for root in options.root for word in ("--root", str(root))]
    return words + (["--ray-address", options.ray_address] if options.ray_address else [])


def _end_with(parent: int, stop: CancelHandle) -> None:
    """Have the worker end when that process has ended, however it did."""
    if not parent:
        return
    started_by = identify(parent)

    def look() -> None:
        while started_by is not None and started_by.alive:
            try:
                stop.wait(1.0)
            except Cancelled:
                return
        stop.cancel(Cause.SHUTDOWN, "the service is gone")

    threading.Thread(target=look, name="parent", daemon=True).start()
