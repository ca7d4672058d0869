"""Whether the SLO's budget of misses burns too fast: several windows, several rates, as SRE practice has it.

A target at the 99th percentile has a budget: 1 % of the requests may miss it. A burn rate of 1 spends that of 30 days
in 30 days. A tier is breached where the share of misses is over its burn rate times the budget in a long window, which
makes it certain, and in a short one, which ends it soon after the trouble (Google, "The Site Reliability Workbook",
2018, chapter 5, "Multiwindow, multi-burn-rate alerts", whose figures these are; the alerts in ``deploy/monitoring/``
have the same). As there, a limit is never beyond half of what could be missed in addition, and fewer than five misses
are no evidence. Long windows that are young hold few requests: a breach also has to be beyond chance, by one in a
hundred (normal approximation, as if misses did not depend on each other).

Histograms tell within bounds how many requests missed (``Within``): a breach is certain where even the least number of
misses makes one, and *may be* where the likely or only the most does; its confidence is then at most a half. Fewer
requests than five misses take at the limit of the tier with the longest window but one are too few: ``BLIND``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.ask.request import SloTarget, TargetKey
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Blindness, Look
from tuner.stats.buckets import Within

LEAST_MISSES = 5
MOST_CHANCE = 0.01
LIKELY, POSSIBLE = 0.5, 0.25  # confidence where the likely number of misses breaches, and where only the most does


@dataclass(frozen=True, slots=True)
class Tier:
    """Breached where misses come at ``burn_rate`` times what the budget allows, in both windows."""

    burn_rate: float
    long_s: float
    short_s: float

    def limit(self, budget: float) -> float:
        """The share of misses that breaches it."""
        return min(self.burn_rate * budget, (1 + budget) / 2)


_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86_400.0
TIERS = (
    Tier(14.4, 1 * _HOUR_S, 5 * _MINUTE_S),
    Tier(6.0, 6 * _HOUR_S, 30 * _MINUTE_S),
    Tier(1.0, 3 * _DAY_S, 6 * _HOUR_S),
)
# What would page somebody in days is re-tuned within hours: a target that is missed three times as often as it may be.
SOON = Tier(3.0, 2 * _HOUR_S, 15 * _MINUTE_S)
Misses = tuple[float, float, float, float]  # requests; misses: at least, likely and at most; summed up since the start
_NONE: Misses = (0.0, 0.0, 0.0, 0.0)


class _Window:
    """The sums over the last ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sums: deque[tuple[float, Misses]] = deque()
        self._before = _NONE

    def add(self, at_s: float, sums: Misses) -> Misses:
        begin_s = at_s - self._seconds
        self._sums.append((at_s, sums))
        while self._sums[0][0] <= begin_s:
            self._before = self._sums.popleft()[1]
        before = self._before
        return sums[0] - before[0], sums[1] - before[1], sums[2] - before[2], sums[3] - before[3]


@dataclass(frozen=True, slots=True)
class _Breach:
    tier: Tier
    confidence: float
    certain: bool
    misses: float
    requests: float
    limit: float


def _chance(misses: float, requests: float, limit: float) -> float:
    """That so many miss or more where ``limit`` is the share that does."""
    scale = math.sqrt(limit * (1 - limit) * requests)
    return 0.5 * math.erfc((misses - limit * requests) / scale / math.sqrt(2)) if scale else 0.0


class _Target:
    """One target of the SLO."""

    def __init__(self, target: SloTarget, tiers: Sequence[Tier]) -> None:
        self._target, self._budget = target, 1 - target.percentile / 100
        self._tiers = [(tier, tier.limit(self._budget), _Window(tier.long_s), _Window(tier.short_s)) for tier in tiers]
        by_window = sorted(tiers, key=lambda tier: tier.long_s)
        self._enough = by_window[-2:][0]  # whose long window has to have requests enough: the longest but one
        self._needed = LEAST_MISSES / self._enough.limit(self._budget) if self._budget else LEAST_MISSES
        self._sums = _NONE
        self._looks: deque[tuple[float, float, float]] = deque()  # begin, requests and certain misses of each
        self._since_s: float | None = None
        self._few_since_s: float | None = None
        self._longest_s = max(tier.long_s for tier in tiers)

    @property
    def name(self) -> str:
        return f"{self._target.metric.value} p{self._target.percentile:g}"

    def look(self, look: Look, within: Within | None) -> list[Notice]:
        if within is not None and within.total > 0:
            total, at_least, likely, at_most = self._sums
            missed = max(0.0, within.total - within.most)
            self._sums = (
                total + within.total,
                at_least + missed,
                likely + max(missed, within.total - within.likely),
                at_most + max(missed, within.total - within.least),
            )
            self._looks.append((look.at_s - look.seconds, within.total, missed))
            while self._looks and self._looks[0][0] < look.at_s - self._longest_s:
                self._looks.popleft()
        breach, requests = None, 0.0
        for tier, limit, long, short in self._tiers:
            in_long, in_short = long.add(look.at_s, self._sums), short.add(look.at_s, self._sums)
            requests = in_long[0] if tier is self._enough else requests
            found = _breach(tier, limit, in_long, in_short)
            if found is not None and (breach is None or (found.certain and not breach.certain)):
                breach = found
        return [*self._burning(look, breach), *self._few(look, requests, breach)]

    def _burning(self, look: Look, breach: _Breach | None) -> list[Notice]:
        if breach is None:
            self._since_s = None
            return []
        if self._since_s is None:
            self._since_s = self._onset(breach, look)
        share = breach.misses / breach.requests
        hours = breach.tier.long_s / _HOUR_S
        miss = "miss" if breach.certain else "may miss"
        evidence = (
            f"{share:.2%} of {breach.requests:.0f} requests {miss} {self._target} in {hours:g} h: over the limit of "
            f"{breach.limit:.2%}, {breach.tier.burn_rate:g} times the budget at most"
        )
        figures = {
            "missed_share": share,
            "limit_share": breach.limit,
            "requests": breach.requests,
        }
        if self._budget:
            figures["burn_rate"] = share / self._budget
        return [Notice(NoticeKind.SLO_BURN, self.name, evidence, breach.confidence, self._since_s, figures)]

    def _onset(self, breach: _Breach, look: Look) -> float:
        """From when on, until now, misses are the most in excess of the limit; where none is certain, now."""
        best, excess, since_s = 0.0, 0.0, look.at_s - look.seconds
        for begin_s, requests, missed in reversed(self._looks):
            if begin_s < look.at_s - breach.tier.long_s:
                break
            excess += missed - breach.limit * requests
            if excess > best:
                best, since_s = excess, begin_s
        return since_s

    def _few(self, look: Look, requests: float, breach: _Breach | None) -> list[Notice]:
        if requests >= self._needed or breach is not None:
            self._few_since_s = None
            return []
        if self._few_since_s is None:
            self._few_since_s = look.at_s - look.seconds
        hours = self._enough.long_s / _HOUR_S
        evidence = f"{requests:.0f} requests in {hours:g} h: too few to tell whether {self._target} holds"
        figures = {"requests": requests, "needed_requests": self._needed}
        return [Notice(NoticeKind.BLIND, self.name, evidence, 1.0, self._few_since_s, figures, Blindness.FEW_REQUESTS)]


def _breach(tier: Tier, limit: float, in_long: Misses, in_short: Misses) -> _Breach | None:
    if not in_long[0] or not in_short[0]:
        return None
    for place, certainty in ((1, 1.0), (2, LIKELY), (3, POSSIBLE)):
        misses = in_long[place]
        over = misses > limit * in_long[0] and in_short[place] > limit * in_short[0]
        if over and misses >= LEAST_MISSES:
            chance = _chance(misses, in_long[0], limit)
            if chance <= MOST_CHANCE:
                return _Breach(tier, min(certainty, 1 - chance), certainty == 1, misses, in_long[0], limit)
    return None


class BurnRate:
    """Detects that, target by target; see above."""

    def __init__(self, slo: Sequence[SloTarget], tiers: Sequence[Tier] = TIERS) -> None:
        self._slo, self._tiers = tuple(slo), tuple(tiers)
        self._targets = self._fresh()

    def _fresh(self) -> dict[TargetKey, _Target]:
        return {target.key: _Target(target, self._tiers) for target in self._slo}

    def look(self, look: Look) -> tuple[Notice, ...]:
        """The targets whose budget burns, and those that too few requests tell of."""
        return tuple(n for key, one in self._targets.items() for n in one.look(look, look.within.get(key)))

    def decided(self, at_s: float) -> None:
        """Another deployment has not spent anything yet."""
        self._targets = self._fresh()
