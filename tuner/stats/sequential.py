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
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tuner.ask.request import Metric, SloTarget
from tuner.ask.slo import Verdict, attained, ratio, within
from tuner.errors import BadInput
from tuner.stats.intervals import percentile
from tuner.stats.series import design_effect, trend

Floats = NDArray[np.float64]
Latencies = Mapping[Metric, Sequence[float]]
LEAST_BLOCK = 10  # requests whose mean is one observation of the test for a miss
LEAST_REQUESTS = 30  # before which nothing is decided: dependence and trend cannot be judged by fewer
_MEMORY_LEVEL = 90.0  # dependence is judged by crossings of this percentile: those of a higher one are too rare
_LEAST_EFFECTIVE = 5.0  # independent values, below which their spread says too little
_MISS_BETS = (0.1, 0.5, 0.9)  # shares of the largest bet that cannot go bankrupt


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request without an end: when it was sent, its first token (None: none yet) and the tokens that it asked for."""

    index: int
    sent_s: float
    first_token_s: float | None = None
    output_tokens: int | None = None


Judged = tuple[float, float]  # of a request: the share (0 to 1) of it within the limit, and how slow it was


class _Claim(Protocol):
    """What must hold for at least ``percentile`` % of the requests; ``limit`` is in the unit of how slow they are."""

    @property
    def percentile(self) -> float: ...
    @property
    def limit(self) -> float: ...
    def judged(self, latency_ms: Latencies) -> Judged | None:
        """A request that ended; None of one that says nothing."""

    def known(self, request: Waiting, now_s: float) -> Judged | None:
        """A request that has not ended; None while it is undecided."""


@dataclass(frozen=True, slots=True)
class _WithinTarget:
    """One target holds, in ms."""

    target: SloTarget

    @property
    def percentile(self) -> float:
        return self.target.percentile

    @property
    def limit(self) -> float:
        return self.target.ms

    def judged(self, latency_ms: Latencies) -> Judged | None:
        """A request that cannot have the metric (TPOT of one token) says nothing."""
        values_ms = latency_ms.get(self.target.metric, ())
        if not len(values_ms):
            return None
        kept = sum(within(self.target, value) for value in values_ms) / len(values_ms)
        return kept, percentile(values_ms, self.target.percentile) or 0.0

    def known(self, request: Waiting, now_s: float) -> Judged | None:
        known_ms = _known_ms(request, self.target, now_s)
        return None if known_ms is None else (float(within(self.target, known_ms)), known_ms)


@dataclass(frozen=True, slots=True)
class _Attained:
    """The asked share of the requests meets every target; how slow one is, is its worst latency ÷ target."""

    targets: Sequence[SloTarget]
    share: float
    limit: float = 1.0

    @property
    def percentile(self) -> float:
        return self.share * 100

    def judged(self, latency_ms: Latencies) -> Judged | None:
        at_ms = ((one, percentile(latency_ms.get(one.metric, ()), one.percentile)) for one in self.targets)
        slow = max((ratio(one, value) for one, value in at_ms if value is not None), default=0.0)
        return float(attained(latency_ms, self.targets)), slow

    def known(self, request: Waiting, now_s: float) -> Judged | None:
        """One target that is missed already decides; else all have to be known."""
        known_ms = [(one, _known_ms(request, one, now_s)) for one in self.targets]
        slow = [ratio(one, value) for one, value in known_ms if value is not None]
        missed = any(value is not None and not within(one, value) for one, value in known_ms)
        return (float(not missed), max(slow)) if missed or len(slow) == len(self.targets) else None


@dataclass(slots=True)
class _Stream:
    """The requests judged by one claim, in order: the share within the limit; when sent and how slow, if not failed."""

    claim: _Claim
    within: list[float] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)

    def add(self, sent_s: float, judged: Judged | None) -> None:
        """Keep what was judged of a request; None: it says nothing."""
        if judged is not None:
            self.within.append(judged[0])
            self.sent_s.append(sent_s)
            self.value.append(judged[1])


class SloTest:
    """Judges the requests ``first_index``, ``first_index`` + 1, ... of one window of ``window_s`` seconds.

    ``attainment`` is the share of requests that must meet every target, None where none is asked: it is judged beside
    the targets and as they are. ``alpha`` bounds the chance of MISSED while all of these hold, and of MET while one is
    missed by more than the ``indifference``: MET means that the share of misses is below (1 + ``indifference``) times
    the allowed one. An ITL target is judged by the mean over requests of the share of their gaps within the limit.
    """

    def __init__(
        self,
        targets: Sequence[SloTarget],
        window_s: float,
        *,
        attainment: float | None = None,
        alpha: float = 0.05,
        indifference: float = 0.5,
        first_index: int = 0,
    ) -> None:
        if not 0 < alpha < 0.5:
            raise BadInput("alpha", alpha, "above 0 and below 0.5")
        if not 0 <= indifference < 1:
            raise BadInput("indifference", indifference, "at least 0 and below 1")
        self.alpha, self.indifference, self.window_s = alpha, indifference, window_s
        claims: list[_Claim] = [_WithinTarget(target) for target in targets]
        if targets and attainment is not None:
            claims.append(_Attained(tuple(targets), attainment))
        self._streams = [_Stream(claim) for claim in claims]
        self._next = [first_index] * len(self._streams)
        self._ended: dict[int, tuple[float, Latencies | None]] = {}
        self._longest_s = 0.0

    def ended(self, index: int, sent_s: float, latency_ms: Latencies | None) -> None:
        """A request ended; of its latencies ITL has one per gap, the others one each. None: it failed, a miss."""
        self._ended[index] = (sent_s, latency_ms)
        e2e_ms = (latency_ms or {}).get(Metric.E2E)
        if e2e_ms:
            self._longest_s = max(self._longest_s, e2e_ms[0] / 1e3)

    def update(self, now_s: float, waiting: Iterable[Waiting] = ()) -> Verdict:
        """The verdict at ``now_s`` seconds of the window, with all ``waiting`` requests, UNKNOWN while none is certain;
        to be asked about twice a second."""
        open_now = {request.index: request for request in waiting}
        for place, stream in enumerate(self._streams):
            self._next[place] = self._judge(stream, self._next[place], open_now, now_s)
        if not self._streams:
            return Verdict.UNKNOWN
        if any(self._is_missed(stream) for stream in self._streams):
            return Verdict.MISSED
        oldest_s = max((now_s - request.sent_s for request in open_now.values()), default=0.0)
        filled = now_s >= 2 * max(oldest_s, self._longest_s)  # as many requests leave as come
        certain = filled and all(self._is_met(stream, now_s) for stream in self._streams)
        return Verdict.MET if certain else Verdict.UNKNOWN

    def _judge(self, stream: _Stream, index: int, waiting: Mapping[int, Waiting], now_s: float) -> int:
        """Judge on from ``index`` up to the first request that is undecided, and return its index."""
        while True:
            if index in self._ended:
                sent_s, latency_ms = self._ended[index]
                if latency_ms is None:
                    stream.within.append(0.0)
                else:
                    stream.add(sent_s, stream.claim.judged(latency_ms))
            elif index in waiting and (known := stream.claim.known(waiting[index], now_s)) is not None:
                stream.add(waiting[index].sent_s, known)
            else:
                return index
            index += 1

    def _is_missed(self, stream: _Stream) -> bool:
        """Is it certain that fewer requests than asked are within the limit?"""
        share, kept = stream.claim.percentile / 100, np.asarray(stream.within)
        if kept.size < LEAST_REQUESTS or kept.mean() >= share:
            return False
        if share == 1:  # no miss is allowed, and no number of requests shows that there will be none
            return True
        memory = design_effect(_high(_without_line(np.asarray(stream.value))))
        blocks = kept.size // max(LEAST_BLOCK, math.ceil(2 * memory))
        means = np.array([block.mean() for block in np.array_split(kept, blocks)]) if blocks else kept[:0]
        bets = np.array(_MISS_BETS)[:, None] / (1 - share)
        wealth = np.exp(np.log1p(bets * (share - means)).sum(axis=1)).mean()
        return bool(wealth >= len(self._streams) / self.alpha and blocks and means[-1] < share)

    def _is_met(self, stream: _Stream, now_s: float) -> bool:
        """Is it certain that as many requests as asked, less the indifference, are within the limit, and stay so?"""
        share, kept = stream.claim.percentile / 100, np.asarray(stream.within)
        if kept.size < LEAST_REQUESTS or share == 1:
            return False
        misses = (1 - share) * min(1 + self.indifference, 1 + share)  # of low percentiles some must stay within
        values = np.asarray(stream.value)
        if values.size < LEAST_REQUESTS or not self._evident(kept, share, misses, 1.0):
            return False
        if _bound(values, misses) > stream.claim.limit and not self._evident(
            kept, share, misses, design_effect(_high(values))
        ):
            return False
        rise = trend(stream.sent_s, values).at_most_per_s * max(0.0, self.window_s - now_s)
        level = percentile(values, stream.claim.percentile) or 0.0
        return level + max(0.0, rise) <= stream.claim.limit

    def _evident(self, kept: Floats, share: float, misses: float, worth: float) -> bool:
        """Were the share of misses ``misses``, would these requests be unlikely, ``worth`` of them counting as one?"""
        hoped = 1 - (1 - share) * np.array([0.1, 0.6])
        bets = (hoped - 1 + misses) / (misses * (1 - misses))
        evidence = np.log1p(bets[:, None] * (kept - 1 + misses)).sum(axis=1) / worth
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
    return None if within(target, age_ms) else age_ms


def _high(values: Floats) -> Floats:
    """1 where a value is above the percentile by whose crossings dependence is judged, else 0."""
    return (values > (percentile(values, _MEMORY_LEVEL) or 0.0)).astype(np.float64)


def _without_line(values: Floats) -> Floats:
    """The values less their straight line over the order: a queue that grows would pass for endless memory."""
    place = np.arange(values.size) - (values.size - 1) / 2
    return values - place * (float(place @ values) / float(place @ place)) if values.size > 1 else values


def _bound(values: Floats, misses: float) -> float:
    """A value that at most the share ``misses`` exceeds, whatever the distribution, if it has a single peak.

    The one-sided Vysochanskij-Petunin inequality (Mercadier and Strobel 2021, "A one-sided Vysochanskii-Petunin
    inequality with financial applications"): at most 4 / 9(1 + k²) lies k standard deviations above the mean, for
    k² ≥ 5/3, else 4 / 3(1 + k²) − 1/3. Mean and deviation are taken at their upper 95 % limits, as known from the
    effective number of values (the deviation's by Wilson and Hilferty's approximation of chi-square).
    """
    size = values.size / design_effect(values)
    if size < _LEAST_EFFECTIVE:
        return math.inf
    free, z = size - 1, NormalDist().inv_cdf(0.95)
    chi_square = free * (1 - 2 / (9 * free) - z * math.sqrt(2 / (9 * free))) ** 3
    deviation = float(values.std(ddof=1)) * math.sqrt(free / chi_square)
    k_square = (4 / (9 * misses) if misses <= 1 / 6 else 4 / (3 * misses + 1)) - 1
    mean = float(values.mean()) + z * deviation / math.sqrt(size)
    return mean + math.sqrt(max(k_square, 0.0)) * deviation
