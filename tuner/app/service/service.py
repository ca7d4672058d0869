"""What the routes of the service share: its store, its settings, and who may ask."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from tuner.app.service.access import Caller, Doorkeeper
from tuner.app.service.joined_reads import JoinedReads
from tuner.app.service.metrics import ServiceMetrics
from tuner.app.service.problems import Refused, bad
from tuner.app.service.tagged import Tagged
from tuner.app.service.watching import Watchers
from tuner.errors import BadInput
from tuner.study.records import StudyRecord
from tuner.study.store import Store


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, one account (``…_each``: of these at a time; ``open_studies``) and one address may take.

    ``body_s``: within which a body has to be there; ``failures``: requests that are answered with 401, 403 or 404.
    """

    body_bytes: int = 1_000_000
    requests_per_s: float = 20.0
    burst: float = 100.0
    listeners: int = 500
    listeners_each: int = 50
    open_studies: int = 20
    body_s: float = 20.0
    failures_per_s: float = 1.0
    failures_burst: float = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How the service was started. ``roots``: the folders whose files a request may name; ``launchers``: what a study
    may run on, the first where it does not say; ``metrics_open``: whether they are told to whoever asks."""

    launchers: tuple[str, ...]
    out: Path
    roots: tuple[Path, ...] = ()
    limits: Limits = Limits()
    metrics_open: bool = True


@dataclass(frozen=True, slots=True)
class Service:
    """The service, as its routes see it."""

    store: Store
    settings: Settings
    doorkeeper: Doorkeeper
    watchers: Watchers
    metrics: ServiceMetrics
    told: JoinedReads[str, Tagged | None]

    def study(self, name: str) -> StudyRecord:
        """A study; raises Refused with 404 where there is none."""
        found = self.store.find_study(name)
        if found is None:
            raise unknown(name)
        return found

    def require(self, name: str) -> None:
        """Raise Refused as ``study`` does, without reading all of it."""
        if self.store.listing.state(name) is None:
            raise unknown(name)

    def noted(self, caller: Caller, action: str, target: str, outcome: str) -> None:
        """Keep who asked what, and what came of it."""
        self.store.audit.note(caller.token, action, target, outcome)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(_service)]


def conflict(error: BadInput) -> Refused:
    """What the state of a study does not allow."""
    return bad(error, HTTPStatus.CONFLICT)


def unknown(name: str) -> Refused:
    """Of a study that does not exist."""
    return Refused(HTTPStatus.NOT_FOUND, f"there is no study {name}")
