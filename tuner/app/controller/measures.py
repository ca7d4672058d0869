"""What Prometheus sees of a controller, and what its log says."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from deploy.controller.names import Key

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)


class Measures:
    """The metrics of one controller; ``tell`` gets a line for each thing that went wrong."""

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        into = self.registry = CollectorRegistry()
        self._tell = tell
        self._lock, self._phases = threading.Lock(), dict[Key, str]()
        self._seconds = Histogram(
            "parlay_controller_reconcile_seconds",
            "Time of one look at a LayoutRequest.",
            buckets=_BUCKETS_S,
            registry=into,
        )
        self._waited = Histogram(
            "parlay_controller_queue_seconds",
            "How long one waited to be looked at.",
            buckets=_BUCKETS_S,
            registry=into,
        )
        self._looks = Counter(
            "parlay_controller_reconciles", "Looks, by what came of them.", ["outcome"], registry=into
        )
        self._calls = Counter(
            "parlay_controller_api_calls", "Calls of the API server.", ["verb", "kind", "code"], registry=into
        )
        self._leading = Gauge("parlay_controller_leading", "1: this controller holds the Lease.", registry=into)
        self._requests = Gauge(
            "parlay_controller_layoutrequests", "LayoutRequests, by phase.", ["phase"], registry=into
        )

    def called(self, verb: str, kind: str, code: int) -> None:
        """The API server answered with ``code``, or not at all (0)."""
        self._calls.labels(verb, kind, str(code)).inc()

    def reconciled(self, seconds: float, waited_s: float, well: bool) -> None:
        """One look."""
        self._seconds.observe(seconds)
        self._waited.observe(waited_s)
        self._looks.labels("done" if well else "again").inc()

    def failed(self, what: str, key: Key, error: Exception) -> None:
        """A look that failed; it is repeated."""
        self._looks.labels(what).inc()
        self._tell(f"{key}: {type(error).__name__}: {error}")

    def phase(self, key: Key, phase: str | None) -> None:
        """Where a LayoutRequest stands; None: it is gone."""
        with self._lock:
            if phase is None:
                self._phases.pop(key, None)
            else:
                self._phases[key] = phase
            counts = Tally(self._phases.values())
        self._requests.clear()
        for name, count in counts.items():
            self._requests.labels(name).set(count)

    def leads(self, leading: bool) -> None:
        """Whether this controller works."""
        self._leading.set(leading)
        self._tell("this controller leads" if leading else "another controller leads, or none")

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
