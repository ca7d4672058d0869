"""A Ray cluster as a place that is watched: Ray Serve behind a front of this machine; what is seen comes from Ray's own
agents, which show the counts of vLLM and of Serve."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from threading import Thread

from deploy.rollout.application import measured as as_measured
from deploy.rollout.application import planned
from deploy.rollout.ray_site import RaySite, named_after
from serve.launch.engine import refused
from serve.launch.ray_api import import_quietly, is_connected, ray_nodes_alive, serve_details, serve_runs
from serve.launch.ray_seen import nodes_seen
from serve.measure.live_ray import places_of
from serve.measure.live_reader import Places
from tuner.ask.deployment import UNLAUNCHED, Deployment, TwoPools, one_group
from tuner.ask.request import TuneRequest
from tuner.errors import ParlayError
from tuner.retune.seen import Fingerprint
from tuner.study.live import live_name
from tuner.trial.launched import ENGINES, Launched, RayApplication, installed


class RayPlace:
    """Implements ``tuner.app.watch.place.Place`` for one watched study. Raises BadInput for an address that does not
    answer."""

    def __init__(self, study: str, address: str, port: int, state: Path) -> None:
        first = live_name(study, 1)
        self._loading: Thread | None = None
        self._site = RaySite(address, state / first.rpartition("-")[0], named_after(first), port=port)

    @property
    def site(self) -> RaySite:
        """Ray Serve, and the front."""
        return self._site

    def told_at(self, names: Collection[str]) -> Places:
        """The agents of all nodes, which replicas are whose, and what the front has counted."""
        self._connect()
        try:
            details = serve_details() if serve_runs() else {}
            front = {name: one for name, one in self._site.answered().items() if name in names}
            return places_of(ray_nodes_alive(), details, names, front)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ParlayError(f"Ray cannot be asked: {error}") from None

    def fingerprint(self) -> Fingerprint:
        """Nodes as Ray has them, and the engine's and Ray's versions: every node runs this machine's Ray."""
        self._connect()
        versions = {name.removesuffix("-cpu"): text for name, text in installed(*ENGINES).items() if name in ENGINES}
        return Fingerprint(nodes_seen(ray_nodes_alive()), versions)

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        """What Ray Serve LLM cannot run, or this cluster's Serve has another front for."""
        if isinstance(deployment, TwoPools):
            return UNLAUNCHED
        return refused(deployment, request) or self._site.other_front(deployment)

    def launched(self, name: str, deployment: Deployment, request: TuneRequest, measured: Launched | None) -> Launched:
        """The application that was measured, under its new name and on any node; else the one that would be tried."""
        if measured is not None and isinstance(measured.payload, RayApplication):
            return as_measured(measured, name)
        return planned(name, one_group(deployment), request)

    def _connect(self) -> None:
        if not is_connected():
            self._site.see()  # it joins Ray, or says why it cannot

    def prepare(self) -> None:
        """Load Ray Serve LLM, and with it vLLM: in an emergency nobody should wait for that."""
        if self._loading is None:
            self._loading = Thread(target=import_quietly, name="loading", daemon=True)
            self._loading.start()

    def close(self) -> None:
        """Leave Ray."""
        self._site.close()
