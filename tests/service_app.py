"""A service in the test's own process, and what is asked of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fastapi.testclient import TestClient

from tests.fakes import document
from tuner.app.service.application import application
from tuner.app.service.issuer import Issuer
from tuner.app.service.service import Limits, Settings
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

STUDY = {"request": document({"space": {"tp": [1, 2]}, "budget.launches": 2}), "launcher": "simulated"}


def client_of(
    store: Store,
    folder: Path,
    open_to_all: bool = True,
    roots: Iterable[Path] = (),
    issuer: Issuer | None = None,
    metrics_open: bool = True,
    **limits: float,
) -> TestClient:
    """Whoever asks the service; its faults are answers, as they are to everybody else."""
    settings = Settings(("ray", "simulated"), folder / "out", tuple(roots), Limits(**limits), metrics_open)
    app = application(store, settings, open_to_all=open_to_all, issuer=issuer)
    return TestClient(app, base_url="http://localhost:8080", raise_server_exceptions=False)


def work(store: Store, folder: Path, roots: Iterable[Path] = ()) -> int:
    """Run all that waits; how many studies that was."""
    worker = Worker(store, WorkerSettings(("simulated",), None, folder / "out", tuple(roots)), CancelHandle())
    return worker.run(until_idle=True)
