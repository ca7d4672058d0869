"""What one driver is given: a study, and what it may use for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuner.ask.request import TuneRequest
from tuner.study.observer import Observer
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle
from tuner.trial.devices import Node
from tuner.trial.ledger import Price
from tuner.trial.seams import Launcher, Meter


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a driver works on, a study, and what it may use for it; ``cancel`` asks it to end.

    ``held`` is asked before each launch: why there may be none for now, or None. What runs then goes on to its end.
    """

    study: str
    request: TuneRequest
    nodes: tuple[Node, ...]
    price: Price
    log_root: Path
    store: Store
    launcher: Launcher
    meter: Meter
    observer: Observer
    driver: str
    clock: Callable[[], float]
    cancel: CancelHandle
    held: Callable[[], str | None] = lambda: None
