"""How a watcher has a study decided anew: by the queue of a service, whose workers run it, or in its own process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from tuner.app.tune.bench import bench
from tuner.app.tune.event_recorder import EventRecorder
from tuner.app.tune.options import TuneOptions
from tuner.app.tune.trial_log import LogKeeper
from tuner.app.wiring import facts
from tuner.ask.request import TuneRequest
from tuner.errors import Cancelled, Cause, reason
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Terms
from tuner.study.runner import StudyOrder, run_study
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

OVER = frozenset({StudyState.DECIDED, StudyState.FAILED, StudyState.CANCELLED})


class Rounds(Protocol):
    """Has studies run; each method may be called again."""

    def begin(self, name: str, request: TuneRequest) -> None:
        """Have a study of this name run, if it is not there."""

    def stands(self, name: str) -> StudyState | None:
        """How it stands, and have it go on where nobody runs it; None where there is no such study."""

    def close(self) -> None:
        """Run nothing more here; what was begun can go on later."""


class QueuedRounds:
    """Rounds in the queue of a store: its workers run them. ``owner`` is the account that they count for."""

    def __init__(
        self, store: Store, launcher: str, owner: str = "", seed: int | None = None, priority: int = 0
    ) -> None:
        self._store, self._terms = store, Terms(owner, launcher, seed, priority)

    def begin(self, name: str, request: TuneRequest) -> None:
        """Queue it."""
        if self._store.listing.state(name) is None:
            self._store.orders.submit(name, request, self._terms)

    def stands(self, name: str) -> StudyState | None:
        """As the store says."""
        return self._store.listing.state(name)

    def close(self) -> None:
        """Nothing runs here."""


class OwnRounds:
    """Rounds that run in a thread of this process, one at a time, on a Ray cluster."""

    def __init__(self, store: Store, out: Path, ray_address: str | None) -> None:
        self._store, self._out, self._address = store, out, ray_address
        self._thread: threading.Thread | None = None
        self._cancel = CancelHandle()
        self._problems: dict[str, str] = {}

    def begin(self, name: str, request: TuneRequest) -> None:
        """Run it; nothing while one runs."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._run, args=(name, request), name=f"round {name}", daemon=True)
        self._thread.start()

    def stands(self, name: str) -> StudyState | None:
        """As the store says; one that nobody runs goes on here."""
        state = self._store.listing.state(name)
        running = self._thread is not None and self._thread.is_alive()
        if name in self._problems:
            return StudyState.FAILED
        if state is not None and state not in OVER and not running:
            self.begin(name, self._store.study(name).request)
        return StudyState.RUNNING if state is None and running else state

    def close(self) -> None:
        """Stop what runs; its devices are free when this returns."""
        self._cancel.cancel(Cause.PAUSE, "the watcher ends")
        if self._thread is not None:
            self._thread.join()

    def _run(self, name: str, request: TuneRequest) -> None:
        resume = self._store.listing.state(name) is not None
        order = StudyOrder(name, request, self._out / name / "logs", resume, facts())
        options = TuneOptions(
            request_file=self._out / name / "request.yaml", out=self._out, launcher="ray", ray_address=self._address
        )
        recorder = EventRecorder(self._store.events, name, request)
        try:
            keeper = LogKeeper(self._store.logs, name, order.log_root)
            with bench(options, order.setting().cluster) as made, keeper:
                run_study(
                    order, self._store, made.launcher, made.meter, (recorder, keeper), self._cancel, clock=made.clock
                )
        except Cancelled:
            return
        except Exception as error:  # a fault of ours too: it would be begun again with every look
            self._problems[name] = reason(error)
