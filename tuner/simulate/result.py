"""What a simulated run shows: one record per request, and everything that is asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.ask.request import Metric, SloTarget, TargetKey
from tuner.ask.slo import Seen, Verdict, met, needed, verdict
from tuner.errors import BadInput
from tuner.simulate.state import GAP_FLOOR_MS, GAP_RATIO
from tuner.stats.intervals import Quantiles, percentile, quantiles
from tuner.stats.streamed import per_token

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BATCHES = 10  # of consecutive requests, by which the noise of a run is judged
_STUDENT_T = 2.262  # 97.5 % quantile with 9 degrees of freedom


@dataclass(frozen=True, slots=True, eq=False)
class SimulationResult:
    """Arrays have one entry per request in the order of arrival, or per replica; times in s from the start.

    ``prefill_share`` and ``decode_share`` are each replica's busy time by what it was for, as shares of the run;
    ``kv_share`` is the mean occupancy of its KV cache, ``kv_peak_share`` the highest. ``slow_gaps`` [request, limit]
    counts inter-token gaps above each of ``gap_limits_ms``; ``gap_counts`` is the histogram of all gaps. ``offered_s``
    is the window in which the requests were offered, None of a closed loop. Where tokens were sent on in messages,
    ``messages`` has how many, and ``first_tokens`` the tokens of the first; None: each token is one.
    """

    arrival_s: Floats
    scheduled_s: Floats
    first_token_s: Floats
    end_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    preemptions: Ints
    replica: Ints
    prefill_share: Floats
    decode_share: Floats
    kv_share: Floats
    kv_peak_share: Floats
    steps: Ints
    gap_counts: Ints
    gap_sum_ms: float
    gap_limits_ms: Floats
    slow_gaps: Ints
    offered_s: float | None = None
    first_tokens: Ints | None = None
    messages: Ints | None = None

    @property
    def ttft_ms(self) -> Floats:
        """Time to the first token."""
        return (self.first_token_s - self.arrival_s) * 1e3

    @property
    def e2e_ms(self) -> Floats:
        """Time to the last token."""
        return (self.end_s - self.arrival_s) * 1e3

    @property
    def tpot_ms(self) -> Floats:
        """TPOT (``tuner.stats.streamed``) of the requests that have more than one token."""
        return self._tpot_or_nan_ms[self.output_tokens > 1]

    @property
    def _tpot_or_nan_ms(self) -> Floats:
        opening = 1 if self.first_tokens is None else self.first_tokens
        return per_token((self.end_s - self.first_token_s) * 1e3, self.e2e_ms, self.output_tokens, opening)

    def samples_ms(self, metric: Metric) -> Floats:
        """One value per request that has the metric; ITL has no value per request and is refused."""
        if metric is Metric.ITL:
            raise BadInput("metric", metric.value, "ttft, tpot, e2e (ITL is kept as a histogram)")
        return {Metric.TTFT: self.ttft_ms, Metric.TPOT: self.tpot_ms, Metric.E2E: self.e2e_ms}[metric]

    def quantiles(self, metric: Metric) -> Quantiles | None:
        """Count, mean and percentiles in ms; None where no request has the metric. ITL is right to 0.3 %."""
        if metric is not Metric.ITL:
            return quantiles(self.samples_ms(metric))
        count = int(self.gap_counts.sum())
        if not count:
            return None
        p50_ms, p90_ms, p95_ms, p99_ms = (self._gap_ms(level) for level in (50, 90, 95, 99))
        return Quantiles(count, self.gap_sum_ms / count, p50_ms, p90_ms, p95_ms, p99_ms)

    def at(self, metric: Metric, level: float) -> float | None:
        """The ``level`` percentile of a metric in ms; None where no request has it."""
        if metric is Metric.ITL:
            return self._gap_ms(level) if self.gap_counts.any() else None
        return percentile(self.samples_ms(metric), level)

    def _gap_ms(self, level: float) -> float:
        reached = np.cumsum(self.gap_counts)
        bin_ = int(np.searchsorted(reached, np.ceil(level * reached[-1] / 100 - 1e-9)))
        return float(GAP_FLOOR_MS * GAP_RATIO ** (bin_ + 0.5))

    def interval_ms(self, metric: Metric, level: float) -> tuple[float, float] | None:
        """95 % interval of a percentile over the chance of arrivals: batch means of the share at or below it.

        Requests that follow each other are alike, so the spread of the share between ten batches of consecutive ones
        counts, not that of single requests (Conway 1963). None with fewer than ten requests per batch, and for ITL.
        """
        if metric is Metric.ITL or len(values := self.samples_ms(metric)) < _BATCHES * 10:
            return None
        value = percentile(values, level) or 0.0
        shares = [float(np.mean(batch <= value)) for batch in np.array_split(values, _BATCHES)]
        spread = 100 * _STUDENT_T * float(np.std(shares, ddof=1)) / np.sqrt(_BATCHES)
        low = percentile(values, max(level - spread, 1e-6))
        high = percentile(values, min(level + spread, 100.0))
        return (low or 0.0, high or 0.0)

    def met(self, slo: Sequence[SloTarget]) -> NDArray[np.bool_]:
        """Which requests met every target, each judged as ``tuner.ask.slo.attained`` judges a measured one.

        An ITL target must be one of ``gap_limits_ms``; of a request's own gaps, its percentile of them counts.
        """
        found = np.ones(len(self.arrival_s), dtype=bool)
        for target in slo:
            if target.metric is Metric.ITL:
                found &= self._gaps_met(target)
            else:
                values = {Metric.TTFT: self.ttft_ms, Metric.TPOT: self._tpot_or_nan_ms, Metric.E2E: self.e2e_ms}
                found &= met(target, values[target.metric])
        return found

    def _gaps_met(self, target: SloTarget) -> NDArray[np.bool_]:
        index = np.flatnonzero(self.gap_limits_ms == target.ms)
        if not index.size:
            raise BadInput("slo.itl", target.ms, f"one of the simulation's limits: {list(self.gap_limits_ms)}")
        gaps = (self.output_tokens if self.messages is None else self.messages) - 1
        return np.asarray(gaps - self.slow_gaps[:, index[0]] >= needed(gaps, target.percentile))

    def attainment(self, slo: Sequence[SloTarget]) -> float:
        """Share of requests that met every target."""
        return float(self.met(slo).mean())

    def values_ms(self, slo: Sequence[SloTarget]) -> dict[TargetKey, float | None]:
        """By target, the value at its percentile over all requests; None where no request has the metric."""
        return {target.key: self.at(target.metric, target.percentile) for target in slo}

    def verdict(self, slo: Sequence[SloTarget], attainment: float | None = None) -> Verdict:
        """What the run says of the targets, and of the asked ``attainment`` if any."""
        share = None if attainment is None else self.attainment(slo)
        return verdict(slo, Seen(self.values_ms(slo), len(self.arrival_s), attainment=share), attainment)

    @property
    def duration_s(self) -> float:
        """From the first arrival to the last token."""
        return float(self.end_s.max() - self.arrival_s.min())

    @property
    def served_s(self) -> float:
        """The window in which requests were offered, or until the last token where that came later."""
        return self.duration_s if self.offered_s is None else max(self.offered_s, float(self.end_s.max()))

    def goodput_req_per_s(self, slo: Sequence[SloTarget]) -> float:
        """Requests per second that met every target, of the window in which they were offered."""
        return float(self.met(slo).sum()) / (self.offered_s or self.duration_s)

    @property
    def output_tok_per_s(self) -> float:
        """Output tokens per second of the whole deployment."""
        return float(self.output_tokens.sum()) / self.served_s

    @property
    def utilisation(self) -> float:
        """Busy share of the run, mean over replicas."""
        return float((self.prefill_share + self.decode_share).mean())
