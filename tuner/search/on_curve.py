"""Where rates lie on load curves, and what windows of load show there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuner.ask.request import Metric
from tuner.cost.steady import BATCHES, Curve, Floats

# Near saturation a batch fills more slowly than a window lasts: in one of n requests those meet a mean batch of
# b ÷ (1 + FILLING × b ÷ n), where b is that of a steady load. With this figure simulated windows of 300 requests differ
# from the curves by about the same at every batch (``python -m tests.benchmarks.belief_transfer --filling``).
FILLING = 3.0
_OVERLOAD = 8.0  # power by which latency grows with the rate beyond the last batch of a curve


@dataclass(frozen=True, slots=True)
class OnCurve:
    """Where rates lie on curves, ``beyond`` the last batch or before it; arrays of (curves, rates)."""

    high: NDArray[np.intp]
    share: Floats
    batch: Floats
    beyond: NDArray[np.bool_]
    excess: Floats

    @classmethod
    def of(cls, curve: Curve, rate_req_per_s: Floats) -> OnCurve:
        """Of rates of a replica, of shape (curves, rates)."""
        known = curve.rate_req_per_s
        above = np.stack([(known < rate[:, None]).sum(axis=1) for rate in rate_req_per_s.T], axis=1)
        high = np.clip(above, 1, known.shape[1] - 1)
        start, end = np.take_along_axis(known, high - 1, 1), np.take_along_axis(known, high, 1)
        share = np.clip((rate_req_per_s - start) / np.maximum(end - start, 1e-12), 0.0, 1.0)
        batch = BATCHES[high - 1] + share * (BATCHES[high] - BATCHES[high - 1])
        excess = np.log(np.maximum(rate_req_per_s / known[:, -1:], 1.0))
        return cls(high, share, batch, above >= known.shape[1], excess)

    def within(self, requests: Floats) -> OnCurve:
        """At the mean batch that a window of so many ``requests`` to a replica meets."""
        batch = self.batch / (1 + FILLING * self.batch / np.maximum(requests, 1.0))
        high = np.clip(np.searchsorted(BATCHES, batch), 1, BATCHES.size - 1)
        start, end = BATCHES[high - 1], BATCHES[high]
        return replace(self, high=high, share=np.clip((batch - start) / (end - start), 0.0, 1.0), batch=batch)

    def log_of(self, values: Floats) -> Floats:
        """Log of a curve's values at these rates, steeply rising beyond capacity."""
        low, high = np.take_along_axis(values, self.high - 1, 1), np.take_along_axis(values, self.high, 1)
        return np.asarray(np.log(low + self.share * (high - low)) + _OVERLOAD * self.excess)


def log_seen(
    curve: Curve, keys: Sequence[tuple[Metric, float | None]], output_tokens: float, rates: Floats, requests: Floats
) -> tuple[OnCurve, list[Floats]]:
    """Where ``rates`` lie, and logs of metrics at percentiles (None: means) there, in ms, in windows of ``requests`` to
    a replica; all of shape (curves, rates). First tokens come as under a steady load: what waits is not a batch."""
    steady = OnCurve.of(curve, rates)
    filling = steady.within(requests)
    return steady, [
        (steady if metric is Metric.TTFT else filling).log_of(curve.at(metric, percentile, output_tokens))
        for metric, percentile in keys
    ]
