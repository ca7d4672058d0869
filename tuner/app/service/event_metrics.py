"""What Prometheus sees of those who watch: how many, and how late they hear what happens."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram

_BUCKETS_S = (0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1, 2, 5, 15, 60)


class EventMetrics:
    """The listeners of one service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.listeners = Gauge("parlay_event_listeners", "Who listens to the events of a study now.", registry=registry)
        text = (
            "From an event to its hand-over to a listener, by the store's clock and this one; history does not count."
        )
        self._lag = Histogram("parlay_event_lag_seconds", text, buckets=_BUCKETS_S, registry=registry)

    def handed_over(self, seconds: float) -> None:
        """One event, to one listener. Two clocks may differ: what seems to come before its event comes with it."""
        self._lag.observe(max(0.0, seconds))
