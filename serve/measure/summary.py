"""From the samples of one window to its figures: pure, the same for ``parlay measure`` and for the trials of a study.

Every latency counts from the actual send; TTFT is also kept from the intended send, which is what a user of this
arrival process would wait. Rates divide by the time in which requests were offered: the wait for stragglers offers no
load, and would make a rate depend on how long answers are. What was answered divides by the same window, or until the
last answer where that came later, as answers are made until then: never by the time between the first request and the
last, which is none of a single one.

Requests and tokens that follow each other are alike (one batch, one queue), so intervals count them as fewer than they
are: as many as independent ones would tell as much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.load.request_sample import Outcome, Sample
from serve.measure.token_counts import TokenCounts, token_counts
from tuner.ask.request import Metric, SloTarget
from tuner.ask.slo import Seen, Verdict, attained, verdict, within
from tuner.stats.histogram import Histogram
from tuner.stats.intervals import percentile, wilson
from tuner.stats.serial import serial_interval
from tuner.stats.series import BATCHES, design_effect, effective_size, in_flight, trend, warm_up

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
_LEAST_FOR_TREND = 100
Interval = tuple[float, float]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Latency:
    """One latency in milliseconds: percentiles by level, the 95 % interval of each (None of too few samples), and all
    values by bucket, to be merged with those of other windows."""

    count: int
    mean_ms: float
    at_ms: Mapping[float, float]
    interval_ms: Mapping[float, Interval | None]
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """One SLO target: the value at its percentile with a 95 % interval, and the share of requests within its limit."""

    target: SloTarget
    value_ms: float | None
    interval_ms: Interval | None
    attainment: float | None

    @property
    def met(self) -> bool | None:
        """True where the value is within the limit; None where nothing was measured."""
        return None if self.value_ms is None else within(self.target, self.value_ms)

    @property
    def certain(self) -> bool:
        """True where the whole interval lies on one side of the limit."""
        return self.interval_ms is not None and len({within(self.target, bound) for bound in self.interval_ms}) == 1


@dataclass(frozen=True, slots=True)
class WindowFigures:
    """The figures of a window over the requests that it judges (see ``judged``); ``attainment_asked`` is the share of
    them that must meet every target, None where none was asked. ``prompt_tok_per_s`` counts as the server does, where
    it does."""

    sent: int
    completed: int
    failed: int
    cut_off: int
    offered_s: float
    wall_s: float
    errors: Mapping[str, int]
    latency: Mapping[Metric, Latency]
    ttft_from_intended: Latency | None
    targets: tuple[TargetFigures, ...]
    attainment: float | None
    attainment_interval: Interval | None
    offered_req_per_s: float | None
    achieved_req_per_s: float | None
    goodput_req_per_s: float | None
    prompt_tok_per_s: float | None
    output_tok_per_s: float | None
    schedule_lag_p50_ms: float | None
    schedule_lag_p99_ms: float | None
    schedule_lag_max_ms: float | None
    tokens: TokenCounts
    attainment_asked: float | None = None

    @property
    def seen(self) -> Seen:
        """What of it speaks for and against the SLO."""
        values_ms = {one.target.key: one.value_ms for one in self.targets}
        return Seen(values_ms, self.completed, self.failed, self.attainment)

    @property
    def verdict(self) -> Verdict:
        """What the figures alone say of the SLO; UNKNOWN too where none was asked."""
        return self.says(self.seen)

    def says(self, seen: Seen) -> Verdict:
        """The verdict on the same targets of ``seen``, in which more is known of the window."""
        return verdict([one.target for one in self.targets], seen, self.attainment_asked)

    @property
    def certain(self) -> bool:
        """True where chance in the arrivals cannot turn the verdict: 95 % intervals, or a request that failed."""
        found, asked = self.verdict, self.attainment_asked
        low, high = self.attainment_interval or (0.0, 1.0)
        if found is Verdict.MISSED:
            few = asked is not None and high < asked
            return self.failed > 0 or few or any(one.certain and one.met is False for one in self.targets)
        enough = asked is None or low >= asked
        return found is Verdict.MET and enough and all(one.certain for one in self.targets)


def judged(samples: Sequence[Sample], slo: Sequence[SloTarget]) -> list[Sample]:
    """The requests on which a window that was cut off is judged: by intended send, up to the first undecided one.

    A request in flight at the cut is decided once its age alone misses a target. Leaving out single requests instead
    would keep the fast and drop the slow.
    """
    kept: list[Sample] = []
    for sample in sorted(samples, key=lambda one: (one.intended_s, one.index)):
        if sample.outcome is Outcome.CUT_OFF and attained(one_ms(sample), slo):
            break
        kept.append(sample)
    return kept


def figures(
    samples: Sequence[Sample],
    slo: Sequence[SloTarget],
    offered_s: float,
    start_s: float = 0.0,
    attainment: float | None = None,
) -> WindowFigures:
    """Fold the samples of a window in which requests were offered for ``offered_s`` seconds from ``start_s`` on, held
    against targets and, where it is asked, the ``attainment``.

    Where requests were cut off, the window ends for all figures at the first one that is undecided.
    """
    counted = judged(samples, slo)
    if len(counted) < len(samples):
        kept = {sample.index for sample in counted}
        offered_s = min(offered_s, min(s.intended_s for s in samples if s.index not in kept) - start_s)
    whole = [sample for sample in counted if sample.ok]
    cut = [sample for sample in counted if sample.outcome is Outcome.CUT_OFF]
    latency_ms = {metric: np.asarray(values) * 1e3 for metric, values in latency_s(counted).items()}
    waits_ms = [s.ttft_from_intended_s * 1e3 for s in whole if s.ttft_from_intended_s is not None]
    kept_slo = [sample.ok and attained(one_ms(sample), slo) for sample in counted]
    good = sum(kept_slo)
    wall_s = max([offered_s, *(sample.end_s - start_s for sample in counted)])
    lag_ms = [sample.lag_s * 1e3 for sample in counted]
    return WindowFigures(
        sent=len(counted),
        completed=len(whole),
        failed=len(counted) - len(whole) - len(cut),
        cut_off=len(cut),
        offered_s=offered_s,
        wall_s=wall_s,
        errors=dict(Counter(s.error for s in counted if not s.ok and s.outcome is not Outcome.CUT_OFF)),
        latency={metric: latency(values) for metric, values in latency_ms.items()},
        ttft_from_intended=latency(np.asarray(waits_ms)) if waits_ms else None,
        targets=tuple(_target(target, latency_ms, counted) for target in slo),
        attainment=good / len(counted) if counted else None,
        attainment_interval=attainment_interval(kept_slo),
        offered_req_per_s=_rate(len(counted), offered_s) if counted else None,
        achieved_req_per_s=_rate(len(whole), wall_s) if whole else None,
        goodput_req_per_s=_rate(good, offered_s) if counted else None,
        prompt_tok_per_s=_rate(sum(_prompt_tokens(s) for s in whole), wall_s) if whole else None,
        output_tok_per_s=_rate(sum(s.output_tokens or 0 for s in whole), wall_s) if whole else None,
        schedule_lag_p50_ms=percentile(lag_ms, 50),
        schedule_lag_p99_ms=percentile(lag_ms, 99),
        schedule_lag_max_ms=max(lag_ms, default=None),
        tokens=token_counts(counted),
        attainment_asked=attainment,
    )


def attainment_interval(kept_slo: Sequence[bool]) -> Interval | None:
    """The 95 % interval of the share of requests that keep the SLO, of requests in order of time."""
    return wilson(sum(kept_slo), len(kept_slo), size=effective_size(kept_slo))


def unsteady(samples: Sequence[Sample]) -> str | None:
    """In words: the queue grew throughout the window, so that its figures depend on how long it was; else None.

    Both must rise beyond chance and materially: the requests in flight (by half of their mean and by two) and TTFT
    (by a quarter of its mean). Fewer than a hundred answers show no trend.
    """
    whole = sorted((s for s in samples if s.ok and s.ttft_s is not None), key=lambda sample: sample.sent_s)
    if len(whole) < _LEAST_FOR_TREND:
        return None
    first_s, last_s = whole[0].sent_s, whole[-1].sent_s
    at_s = np.linspace(first_s, last_s, 20 * BATCHES)
    busy = in_flight([s.sent_s for s in samples], [s.end_s for s in samples], at_s).astype(np.float64)
    wait_ms = np.asarray([s.ttft_s or 0.0 for s in whole]) * 1e3
    queue, wait = trend(at_s, busy), trend([s.sent_s for s in whole], wait_ms)
    more, slower_ms = queue.per_s * (last_s - first_s), wait.per_s * (last_s - first_s)
    grew = queue.rises and more >= max(2.0, 0.5 * float(busy.mean()))
    slowed = wait.rises and slower_ms >= 0.25 * float(wait_ms.mean())
    if not (grew and slowed):
        return None
    return f"requests in flight rose by {more:.0f} and TTFT by {slower_ms:.0f} ms over the window"


def warm_up_left_s(samples: Sequence[Sample]) -> float | None:
    """Seconds from the first send in which answers began much more slowly than in all the rest of the window, as while
    an engine still compiles or fills its caches; None where nothing of the kind shows, or in fewer than a hundred
    answers.

    The cut is MSER-5's. The mean TTFT before it must exceed that after it by half, and by five standard errors of as
    many requests of the rest: a queue at 90 % of its capacity passes for that in one window of ten, one at 30 % in one
    of 40, so this decides nothing.
    """
    whole = sorted((s for s in samples if s.ok and s.ttft_s is not None), key=lambda sample: sample.sent_s)
    wait_s = np.asarray([s.ttft_s for s in whole], dtype=np.float64)
    cut = warm_up(wait_s) if wait_s.size >= _LEAST_FOR_TREND else None
    if not cut:
        return None
    rest_s = wait_s[cut:]
    error_s = float(rest_s.std()) * np.sqrt(design_effect(rest_s) * (1 / cut + 1 / rest_s.size))
    more_s = float(wait_s[:cut].mean() - rest_s.mean())
    slow = more_s >= 0.5 * float(rest_s.mean()) and more_s > 5 * error_s
    return whole[cut].sent_s - whole[0].sent_s if slow else None


def latency(samples_ms: Floats) -> Latency:
    """Mean, percentiles and their intervals of at least one sample, in milliseconds, in order of time."""
    at_ms = {level: percentile(samples_ms, level) or 0.0 for level in PERCENTILES}
    spread = {level: serial_interval(samples_ms, level) for level in PERCENTILES}
    return Latency(int(samples_ms.size), float(samples_ms.mean()), at_ms, spread, Histogram.of(samples_ms))


def latency_s(samples: Sequence[Sample]) -> dict[Metric, list[float]]:
    """Every metric's samples in seconds over the completed requests, in the order of the requests; ITL in that of time:
    it has one sample per gap, the others one per request.

    A request that was cut off stands with what it had waited by then, which its latency exceeds; its TPOT with that
    share of it that each token which it asked for would have, were the last one there by then. A metric without a
    sample is absent.
    """
    found: dict[Metric, list[float]] = {metric: [] for metric in Metric}
    gap_ended_s: list[float] = []
    for sample in samples:
        if sample.ok or sample.outcome is Outcome.CUT_OFF:
            for metric, values in _one_s(sample).items():
                found[metric].extend(values)
        if sample.ok:
            gap_ended_s.extend(sample.message_s[1:])
    found[Metric.ITL] = np.asarray(found[Metric.ITL])[np.argsort(gap_ended_s, kind="stable")].tolist()
    return {metric: values for metric, values in found.items() if values}


def one_ms(sample: Sample) -> dict[Metric, list[float]]:
    """The latencies of one request in milliseconds."""
    return {metric: [value * 1e3 for value in values] for metric, values in _one_s(sample).items()}


def _one_s(sample: Sample) -> dict[Metric, list[float]]:
    if sample.outcome is Outcome.CUT_OFF:
        age_s = sample.end_s - sample.sent_s
        known = {Metric.TTFT: [age_s if sample.ttft_s is None else sample.ttft_s], Metric.E2E: [age_s]}
        gaps = (sample.asked_output_tokens or 0) - 1
        if sample.ttft_s is not None and gaps > 0:
            known[Metric.TPOT] = [(age_s - sample.ttft_s) / gaps]
        return known
    single = ((Metric.TTFT, sample.ttft_s), (Metric.TPOT, sample.tpot_s), (Metric.E2E, sample.e2e_s))
    values = {metric: [value] for metric, value in single if value is not None}
    return {**values, Metric.ITL: sample.itl_s}


def _target(target: SloTarget, latency_ms: Mapping[Metric, Floats], samples: Sequence[Sample]) -> TargetFigures:
    values_ms = latency_ms.get(target.metric, np.empty(0))
    within = sum(attained(one_ms(sample), (target,)) for sample in samples if sample.ok)
    return TargetFigures(
        target,
        percentile(values_ms, target.percentile),
        serial_interval(values_ms, target.percentile),
        within / len(samples) if samples else None,
    )


def _prompt_tokens(sample: Sample) -> int:
    return sample.prompt_tokens if sample.counted_prompt_tokens is None else sample.counted_prompt_tokens


def _rate(count: float, seconds: float) -> float | None:
    return count / seconds if seconds > 0 else None
