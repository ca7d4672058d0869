"""``parlay controller``: the process, from its start to its end."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.controller.asking import Runs
from deploy.specs.rayservice import Platform
from deploy.specs.site_values import Site, read_site
from deploy.specs.study_cluster import read_trials
from tuner.app.cli.signals import cancelled_by_signals
from tuner.app.controller.client import KubeClient
from tuner.app.controller.controller import ALL, Controller, Place
from tuner.app.controller.health import HealthPort
from tuner.app.controller.measures import Measures
from tuner.app.controller.options import ControllerOptions
from tuner.app.service.confine import confine
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import parse_request
from tuner.errors import BadInput, Cancelled
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LOOK_S = 3600.0


def run_controller(options: ControllerOptions, console: Console) -> None:
    """Work until told to end. Raises BadInput where nothing says which cluster, or which namespace."""

    def tell(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    measures = Measures(tell)
    kubeconfig = None if options.kubeconfig is None else str(options.kubeconfig)
    kube = KubeClient(kubeconfig, measures.called, threads=options.threads + 8)
    place = _place(options)
    site = Site() if options.site is None else read_site(options.site)
    platform = Platform.at(site, ray_version=options.ray_version, image=options.image)
    trials = None if options.trials is None else read_trials(options.trials)
    runs = Runs(options.runs_on, options.ray_cluster, platform, trials)
    stop, store = CancelHandle(), Store(options.store_url)
    controller = Controller(kube, store, place, lambda document: _read(document, options.root), runs, measures)
    checks = {"/healthz": lambda: controller.alive, "/readyz": lambda: controller.ready}
    port = HealthPort(options.host, options.port, checks, measures.text)
    try:
        with cancelled_by_signals(stop, tell):
            port.start()
            controller.start()
            of = "all namespaces" if options.all_namespaces else ", ".join(place.namespaces)
            tell(f"parlay: controller {place.identity} of {of}; health on port {port.port}")
            _wait(stop)
    finally:
        controller.stop()
        port.stop()
        store.close()


def _wait(stop: CancelHandle) -> None:
    while stop.cause is None:
        try:
            stop.wait(_LOOK_S)
        except Cancelled:
            return


def _place(options: ControllerOptions) -> Place:
    if options.all_namespaces and options.namespace:
        raise BadInput("--all-namespaces", "with --namespace", "one of the two")
    if options.all_namespaces:
        namespaces: tuple[str, ...] = (ALL,)
        lease = options.lease_namespace or _own_namespace("--lease-namespace")
    else:
        namespaces = options.namespace or (_own_namespace("--namespace"),)
        lease = options.lease_namespace or namespaces[0]
    identity = options.identity or f"{socket.gethostname()}-{os.getpid()}"
    return Place(namespaces, lease, identity, options.lease_name, options.threads)


def _own_namespace(otherwise: str) -> str:
    try:
        return _OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        raise BadInput(otherwise, None, "a namespace, outside of a pod") from None


def _read(document: dict[str, Any], roots: tuple[Path, ...]) -> TuneRequest:
    confine(document, roots)
    return parse_request(document)
