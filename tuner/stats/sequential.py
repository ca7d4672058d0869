"""Stop a window early: is the SLO certainly met, or certainly missed, by the requests seen so far?

Every target asks that a share of the requests (its percentile) stays within its limit. Requests are judged in the order
of sending, so that fast answers do not run ahead of slow ones: a request that waits longer than a limit is a miss at
once, and one that may still meet it holds up the judgement of all behind it.

Both tests bet on what comes next (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by
betting"): wealth that cannot grow on average while the claim is false, so that by Ville's inequality it reaches 1/alpha
with probability alpha at most, however often one looks. That holds exactly for requests that do not depend on each
other. Served requests do, so:

- MISSED bets on means over blocks of consecutive requests, longer than latencies remember;
- MET needs the evidence of single requests, which rules out rare hiccups (p99 without a miss: 244 requests, the
  ``indifference`` included), and one of two answers to dependence: the same evidence divided by the design effect (the
  number of requests that are worth one independent one), or a margin so wide that no unimodal distribution with this
  mean and spread could miss too often. In addition the latency, should it go on rising as fast as it may be rising now,
  must stay within the limit to the end of the window.

That is the honest reach of MET: a disturbance that has not shown itself yet (a rare stall of many seconds, a change in
the load) cannot be ruled out by any early answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tuner.ask.request import Metric, SloTarget
from tuner.errors import BadInput
from tuner.stats.intervals import percentile
from tuner.stats.series import design_effect, trend

Floats = NDArray[np.float64]
LEAST_BLOCK = 10  # requests whose mean is one observation of the test for a miss
LEAST_REQUESTS = 30  # before which nothing is decided: dependence and trend cannot be judged by fewer
_MEMORY_LEVEL = 90.0  # dependence is judged by crossings of this percentile: those of a higher one are too rare
_LEAST_EFFECTIVE = 5.0  # independent values, below which their spread says too little
_MISS_BETS = (0.1, 0.5, 0.9)  # shares of the largest bet that cannot go bankrupt


class Verdict(StrEnum):
    """What a window says of the SLO; None, wherever it may stand instead, says: not yet certain."""

    MET = "met"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request without an end: when it was sent, its first token (None: none yet) and the tokens that it asked for."""

    index: int
    sent_s: float
    first_token_s: float | None = None
    output_tokens: int | None = None


@dataclass(slots=True)
class _Stream:
    """One target's judged requests, in order: the share (0 to 1) within the limit; when sent and how slow, if not
    failed."""

    target: SloTarget
    within: list[float] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)
    value_ms: list[float] = field(default_factory=list)

    def judge(self, sent_s: float, values_ms: Sequence[float]) -> None:
        """A request that cannot have the metric (TPOT of one token) says nothing."""
        if len(values_ms):
            kept = sum(value <= self.target.ms for value in values_ms) / len(values_ms)
            self.sent_s.append(sent_s)
            self.value_ms.append(percentile(values_ms, self.target.percentile) or 0.0)
            self.within.append(kept)


class SloTest:
    """Judges the requests ``first_index``, ``first_index`` + 1, ... of one window of ``window_s`` seconds.

    ``alpha`` bounds the chance of MISSED while all targets hold, and of MET while one is missed by more than the
    ``indifference``: MET means that the share of misses is below (1 + ``indifference``) times the allowed one. An ITL
    target is judged by the mean over requests of the share of their gaps within the limit.
    """

    def __init__(
        self,
        targets: Sequence[SloTarget],
        window_s: float,
        *,
        alpha: float = 0.05,
        indifference: float = 0.5,
        first_index: int = 0,
    ) -> None:
        if not 0 < alpha < 0.5:
            raise BadInput("alpha", alpha, "above 0 and below 0.5")
        if not 0 <= indifference < 1:
            raise BadInput("indifference", indifference, "at least 0 and below 1")
        self.alpha, self.indifference, self.window_s = alpha, indifference, window_s
        self._streams = [_Stream(target) for target in targets]
        self._next = [first_index] * len(self._streams)
        self._ended: dict[int, tuple[float, Mapping[Metric, Sequence[float]] | None]] = {}
        self._longest_s = 0.0

    def ended(self, index: int, sent_s: float, latency_ms: Mapping[Metric, Sequence[float]] | None) -> None:
        """A request ended; of its latencies ITL has one per gap, the others one each. None: it failed, a miss."""
        self._ended[index] = (sent_s, latency_ms)
        e2e_ms = (latency_ms or {}).get(Metric.E2E)
        if e2e_ms:
            self._longest_s = max(self._longest_s, e2e_ms[0] / 1e3)

    def update(self, now_s: float, waiting: Iterable[Waiting] = ()) -> Verdict | None:
        """The verdict at ``now_s`` seconds of the window, with all ``waiting`` requests; to be asked about twice a
        second."""
        open_now = {request.index: request for request in waiting}
        for place, stream in enumerate(self._streams):
            self._next[place] = self._judge(stream, self._next[place], open_now, now_s)
        if not self._streams:
            return None
        if any(self._is_missed(stream) for stream in self._streams):
            return Verdict.MISSED
        oldest_s = max((now_s - request.sent_s for request in open_now.values()), default=0.0)
        filled = now_s >= 2 * max(oldest_s, self._longest_s)  # as many requests leave as come
        return Verdict.MET if filled and all(self._is_met(stream, now_s) for stream in self._streams) else None

    def _judge(self, stream: _Stream, index: int, waiting: Mapping[int, Waiting], now_s: float) -> int:
        """Judge on from ``index`` up to the first request that is undecided, and return its index."""
        while True:
            if index in self._ended:
                sent_s, latency_ms = self._ended[index]
                if latency_ms is None:
                    stream.within.append(0.0)
                else:
                    stream.judge(sent_s, latency_ms.get(stream.target.metric, ()))
            elif index in waiting and (known_ms := _known_ms(waiting[index], stream.target, now_s)) is not None:
                stream.judge(waiting[index].sent_s, (known_ms,))
            else:
                return index
            index += 1

    def _is_missed(self, stream: _Stream) -> bool:
        """Is it certain that fewer requests than asked are within the limit?"""
        share, within = stream.target.percentile / 100, np.asarray(stream.within)
        if within.size < LEAST_REQUESTS or within.mean() >= share:
            return False
        if share == 1:  # no miss is allowed, and no number of requests shows that there will be none
            return True
        memory = design_effect(_high(_without_line(np.asarray(stream.value_ms))))
        blocks = within.size // max(LEAST_BLOCK, math.ceil(2 * memory))
        means = np.array([block.mean() for block in np.array_split(within, blocks)]) if blocks else within[:0]
        bets = np.array(_MISS_BETS)[:, None] / (1 - share)
        wealth = np.exp(np.log1p(bets * (share - means)).sum(axis=1)).mean()
        return bool(wealth >= len(self._streams) / self.alpha and blocks and means[-1] < share)

    def _is_met(self, stream: _Stream, now_s: float) -> bool:
        """Is it certain that as many requests as asked, less the indifference, are within the limit, and stay so?"""
        share, within = stream.target.percentile / 100, np.asarray(stream.within)
        if within.size < LEAST_REQUESTS or share == 1:
            return False
        misses = (1 - share) * min(1 + self.indifference, 1 + share)  # of low percentiles some must stay within
        values_ms = np.asarray(stream.value_ms)
        if values_ms.size < LEAST_REQUESTS or not self._evident(within, share, misses, 1.0):
            return False
        if _bound_ms(values_ms, misses) > stream.target.ms and not self._evident(
            within, share, misses, design_effect(_high(values_ms))
        ):
            return False
        rise_ms = trend(stream.sent_s, values_ms).at_most_per_s * max(0.0, self.window_s - now_s)
        level_ms = percentile(values_ms, stream.target.percentile) or 0.0
        return level_ms + max(0.0, rise_ms) <= stream.target.ms

    def _evident(self, within: Floats, share: float, misses: float, worth: float) -> bool:
        """Were the share of misses ``misses``, would these requests be unlikely, ``worth`` of them counting as one?"""
        hoped = 1 - (1 - share) * np.array([0.1, 0.6])
        bets = (hoped - 1 + misses) / (misses * (1 - misses))
        evidence = np.log1p(bets[:, None] * (within - 1 + misses)).sum(axis=1) / worth
        return bool(np.logaddexp.reduce(evidence) - math.log(len(hoped)) >= math.log(1 / self.alpha))


def _known_ms(request: Waiting, target: SloTarget, now_s: float) -> float | None:
    """The latency of a request that has not ended, where it can no longer change or already misses the target."""
    age_ms = (now_s - request.sent_s) * 1e3
    if target.metric is Metric.TTFT and request.first_token_s is not None:
        return (request.first_token_s - request.sent_s) * 1e3
    if target.metric is Metric.TPOT and request.first_token_s is not None and (request.output_tokens or 0) > 1:
        age_ms = (now_s - request.first_token_s) * 1e3 / ((request.output_tokens or 0) - 1)
    elif target.metric in (Metric.TPOT, Metric.ITL):
        return None
    return age_ms if age_ms > target.ms else None


def _high(values: Floats) -> Floats:
    """1 where a value is above the percentile by whose crossings dependence is judged, else 0."""
    return (values > (percentile(values, _MEMORY_LEVEL) or 0.0)).astype(np.float64)


def _without_line(values: Floats) -> Floats:
    """The values less their straight line over the order: a queue that grows would pass for endless memory."""
    place = np.arange(values.size) - (values.size - 1) / 2
    return values - place * (float(place @ values) / float(place @ place)) if values.size > 1 else values


def _bound_ms(values_ms: Floats, misses: float) -> float:
    """A latency that at most the share ``misses`` exceeds, whatever the distribution, if it has a single peak.

    The one-sided Vysochanskij-Petunin inequality (Mercadier and Strobel 2021, "A one-sided Vysochanskii-Petunin
    inequality with financial applications"): at most 4 / 9(1 + k²) lies k standard deviations above the mean, for
    k² ≥ 5/3, else 4 / 3(1 + k²) − 1/3. Mean and deviation are taken at their upper 95 % limits, as known from the
    effective number of values (the deviation's by Wilson and Hilferty's approximation of chi-square).
    """
    size = values_ms.size / design_effect(values_ms)
    if size < _LEAST_EFFECTIVE:
        return math.inf
    free, z = size - 1, NormalDist().inv_cdf(0.95)
    chi_square = free * (1 - 2 / (9 * free) - z * math.sqrt(2 / (9 * free))) ** 3
    deviation_ms = float(values_ms.std(ddof=1)) * math.sqrt(free / chi_square)
    k_square = (4 / (9 * misses) if misses <= 1 / 6 else 4 / (3 * misses + 1)) - 1
    mean_ms = float(values_ms.mean()) + z * deviation_ms / math.sqrt(size)
    return mean_ms + math.sqrt(max(k_square, 0.0)) * deviation_ms
