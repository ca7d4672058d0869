"""What Prometheus sees of the service: how it answers, its store, its listeners, and the studies in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from tuner.app.service.deployed import Seen
from tuner.app.service.deployed_metrics import DeployedMetrics
from tuner.app.service.event_metrics import EventMetrics
from tuner.app.service.stored_metrics import StoredMetrics
from tuner.app.service.watch_metrics import WatchMetrics
from tuner.study.store import Store
from tuner.trial.launched import parlay_version

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ANSWER_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
_STORE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ServiceMetrics:
    """The metrics of one service. Labels are route patterns, methods and statuses, never what stood in their place."""

    def __init__(self, store: Store, deployed: Callable[[], Sequence[Seen]] = tuple) -> None:
        self.registry = registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self._requests = Counter("parlay_api_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "parlay_api_request_seconds", "Time to the start of the answer.", ("route", "method"),
            buckets=_ANSWER_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._transactions = Histogram(
            "parlay_store_transaction_seconds", "Transactions of this process with the store.", ("kind",),
            buckets=_STORE_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "parlay_store_failures", "Transactions that the store did not take.", ("kind",), registry=registry
        )
        for kind in ("read", "write"):  # a series that is there before the first failure shows the first
            self._transactions.labels(kind)
            self._failures.labels(kind)
        build = Gauge("parlay_build_info", "1 for the version that runs.", ("version",), registry=registry)
        build.labels(parlay_version()).set(1)
        self.events = EventMetrics(registry)
        ProcessCollector(registry=registry)
        registry.register(StoredMetrics(store))
        registry.register(DeployedMetrics(deployed))
        registry.register(WatchMetrics(store))
        store.listen(self._transacted)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route, known).observe(seconds)

    def text(self) -> bytes:
        """As Prometheus scrapes it."""
        return generate_latest(self.registry)

    def _transacted(self, kind: str, seconds: float, failed: bool) -> None:
        self._transactions.labels(kind).observe(seconds)
        if failed:
            self._failures.labels(kind).inc()
