"""The seam to where a watched study serves: the site that is acted on, and what is seen of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from serve.measure.live_reader import Places
from tuner.ask.deployment import Deployment
from tuner.ask.request import TuneRequest
from tuner.retune.seen import Fingerprint
from tuner.retune.site import Site
from tuner.trial.launched import Launched


class Place(Protocol):
    """One kind of place. What cannot be asked raises ParlayError; no method waits for engines."""

    @property
    def site(self) -> Site:
        """What is acted on."""

    def told_at(self, names: Collection[str]) -> Places:
        """Where the deployments of these names tell what they have counted."""

    def fingerprint(self) -> Fingerprint:
        """What the cluster is now."""

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        """Why the place cannot run a deployment, or None."""

    def launched(self, name: str, deployment: Deployment, request: TuneRequest, measured: Launched | None) -> Launched:
        """What is started for a deployment that gets this name: as it was ``measured``, where it was."""

    def prepare(self) -> None:
        """Have ready, beside, what a start would wait for: for whoever watches for long. May be called again."""

    def close(self) -> None:
        """Let go of the cluster; what serves goes on serving."""
