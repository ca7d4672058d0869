"""What Prometheus sees of deployed winners: how they hold their SLO, and whether that can be seen at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tuner.app.service.deployed import Blind, Seen
from tuner.stats.buckets import BOUNDS

_TARGET = ("study", "metric", "percentile")


class DeployedMetrics(Collector):
    """Shows what is known at a scrape. What is not seen has no line: no share is 0 or 1 because nobody answered."""

    def __init__(self, seen: Callable[[], Sequence[Seen]]) -> None:
        self._seen = seen

    def describe(self) -> Iterable[Metric]:
        """The same metrics without samples."""
        return _families(())

    def collect(self) -> Iterable[Metric]:
        return _families(self._seen())


def _families(all_seen: Sequence[Seen]) -> tuple[Metric, ...]:
    blind = GaugeMetricFamily(
        "parlay_deployed_blind", "1 where a deployed winner is not seen, or not wholly, for this reason, else 0.",
        labels=("study", "reason"),
    )  # fmt: skip
    required = GaugeMetricFamily(
        "parlay_deployed_required_ratio", "Share of requests that a target asks to be within it.", labels=_TARGET
    )
    requests = CounterMetricFamily(
        "parlay_deployed_requests", "Latencies that the engines have counted since the service looks.", labels=_TARGET
    )
    within = CounterMetricFamily(
        "parlay_deployed_within_target", "Of these, those within the target.", labels=(*_TARGET, "bound")
    )
    share = GaugeMetricFamily(
        "parlay_deployed_attainment_ratio", "Their share, of the last five minutes.", labels=(*_TARGET, "bound")
    )
    for seen in all_seen:
        for reason in Blind:
            blind.add_metric([seen.study, reason.value], float(reason in seen.blind))
        for target in seen.slo:
            labels = [seen.study, target.metric.value, f"{target.percentile:g}"]
            required.add_metric(labels, target.percentile / 100)
            if (count := (seen.counts or {}).get(target.key)) is not None:
                requests.add_metric(labels, count.total)
                for bound in BOUNDS:
                    within.add_metric([*labels, bound], getattr(count, bound))
            if (recent := (seen.recent or {}).get(target.key)) is not None:
                for bound, value in (recent.shares or {}).items():
                    share.add_metric([*labels, bound], value)
    return blind, required, requests, within, share
