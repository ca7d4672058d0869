"""How a deployment holds an SLO while it serves: counts that only grow, from its engines' own histograms.

Each target is counted by itself: an engine's histograms do not tell which of their values are of one request, so the
share of requests that meet every target at once is not to be had from them. Nor do they hold what waits before the
engine: the way over the network, and a router's queue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuner.ask.request import Metric, SloTarget, TargetKey
from tuner.stats.buckets import NOTHING, Buckets, Within, within_all

Latencies = Mapping[Metric, Buckets]  # of one engine, in seconds, since it was started


class Attainment:
    """What was counted for each target since the engines were seen first; what they had counted before is left out."""

    def __init__(self, slo: Sequence[SloTarget]) -> None:
        self.slo = tuple(slo)
        self._last: dict[str, dict[str, Latencies]] = {}
        self._counts: dict[TargetKey, Within] = {}

    @property
    def counts(self) -> Mapping[TargetKey, Within]:
        """By target; one that no engine has a histogram for is absent."""
        return dict(self._counts)

    def add(self, source: str, engines: Mapping[str, Latencies]) -> None:
        """What the engines behind one address show now, by their names.

        What came between two looks counts, that of an engine that began anew meanwhile from its new start. One that is
        seen for the first time, or shows other buckets, counts from now on: nobody knows how old its values are.
        """
        before = self._last.get(source, {})
        for target in self.slo:
            shown = {name: one[target.metric] for name, one in engines.items() if target.metric in one}
            grown = (one.grown_from(before.get(name, {}).get(target.metric)) for name, one in shown.items())
            if shown:
                new = within_all((one for one in grown if one is not None), target.ms / 1000)
                self._counts[target.key] = self._counts.get(target.key, NOTHING) + new
        self._last[source] = dict(engines)
