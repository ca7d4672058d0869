"""One look at what serves: the difference between two readings of what its engines and its ways in have counted.

What began anew between the two counts from its new start; what is seen for the first time counts from now on, since
nobody knows how old its counts are. A second way of counting is never mixed with the first: requests are counted where
they come in, if that is seen, and by the engines else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from serve.measure.live_counts import EngineCounts, Summed
from serve.measure.live_ingress import Answered, is_failure
from tuner.ask.request import Metric, SloTarget, TargetKey
from tuner.decide.attainment import Attainment
from tuner.retune.seen import Blindness, Look, Tokens
from tuner.stats.buckets import Buckets, Within

_ENGINE_FAILED = ("error",)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one deployment has counted, at ``at_s`` (s since 1970). ``engines`` by a name that stays theirs;
    ``statuses`` by way in and status; ``front`` what stands before all of it, if it tells; ``unread`` names addresses
    that could not be read."""

    at_s: float
    engines: Mapping[str, EngineCounts] = field(default_factory=dict)
    statuses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    front: Answered | None = None
    unread: tuple[str, ...] = ()


def look_between(before: Reading, now: Reading, slo: Sequence[SloTarget]) -> Look:
    """What came between two readings of one deployment, the earlier one first."""
    both = [(before.engines[name], one) for name, one in now.engines.items() if name in before.engines]
    arrived, failed = _requests(before, now, both)
    attainment = Attainment(slo)
    for reading in (before, now):
        attainment.add("", {name: one.latencies for name, one in reading.engines.items()})
    within = attainment.counts if both else {}
    return Look(
        at_s=now.at_s,
        seconds=now.at_s - before.at_s,
        arrived=arrived,
        failed=failed,
        within=within,
        mean_ms=_means(both),
        prompt=_tokens((then.prompt, one.prompt) for then, one in both),
        output=_tokens((then.output, one.output) for then, one in both),
        prefix_share=_prefix_share(both),
        waiting=_waiting(now),
        step_ms_by_rank=_steps(before, now),
        blind=_blind(now, slo, within),
    )


Pairs = Sequence[tuple[EngineCounts, EngineCounts]]


def _requests(before: Reading, now: Reading, both: Pairs) -> tuple[float | None, float | None]:
    """(how many requests came, how many of them failed), by the first way that counts them."""
    if before.front is not None and now.front is not None:
        return _grown(before.front.requests, now.front.requests), _grown(before.front.failed, now.front.failed)
    ways = [(before.statuses[way], counts) for way, counts in now.statuses.items() if way in before.statuses]
    if ways:
        grown = [(status, _grown(then.get(status, 0.0), n)) for then, counts in ways for status, n in counts.items()]
        return sum(n for _, n in grown), sum(n for status, n in grown if is_failure(status))
    told = [(then.finished, one.finished) for then, one in both if then.finished is not None and one.finished]
    if not told:
        return None, None
    ended = [(why, _grown((then or {}).get(why, 0.0), n)) for then, counts in told for why, n in (counts or {}).items()]
    return sum(n for _, n in ended), sum(n for why, n in ended if why in _ENGINE_FAILED)


def _grown(before: float, now: float) -> float:
    """What a counter grew by; one that fell began anew."""
    return now - before if now >= before else now


def _grown_sum(before: Summed, now: Summed) -> Summed:
    if now.count < before.count:
        return now
    then = before.buckets if before.buckets is not None else None
    buckets = now.buckets.grown_from(then) if now.buckets is not None else None
    return Summed(max(0.0, now.total - before.total), now.count - before.count, buckets)


def _means(both: Pairs) -> dict[Metric, float]:
    found = {}
    for metric in Metric:
        sums = [_grown_sum(then.times[metric], one.times[metric]) for then, one in both if _have(metric, then, one)]
        if count := sum(one.count for one in sums):
            found[metric] = 1000 * sum(one.total for one in sums) / count
    return found


def _have(metric: Metric, *engines: EngineCounts) -> bool:
    return all(metric in one.times for one in engines)


def _tokens(pairs: Iterable[tuple[Summed | None, Summed | None]]) -> Tokens | None:
    known = [(then, now) for then, now in pairs if then is not None and now is not None]
    if not known:
        return None
    grown = [_grown_sum(then, now) for then, now in known]
    requests = sum(one.count for one in grown)
    if not requests:
        return None
    return Tokens(requests, sum(one.total for one in grown) / requests, _deviation([one.buckets for one in grown]))


def _deviation(parts: Sequence[Buckets | None]) -> float | None:
    """Standard deviation of the values in histograms, spread evenly over each bucket; what the last holds, which has no
    upper bound, is taken for its lower one."""
    count = first = second = 0.0
    for part in parts:
        if part is None:
            return None
        lower = below = 0.0
        for bound, at_most in zip(part.bounds, part.at_most, strict=True):
            upper, here = (lower if math.isinf(bound) else bound), at_most - below
            count, first = count + here, first + here * (lower + upper) / 2
            second += here * (lower * lower + lower * upper + upper * upper) / 3
            lower, below = upper, at_most
    return math.sqrt(max(0.0, second / count - (first / count) ** 2)) if count else None


def _prefix_share(both: Pairs) -> float | None:
    asked = _figure(both, lambda one: one.figures.prefix_queries_tokens)
    held = _figure(both, lambda one: one.figures.prefix_hits_tokens)
    return None if not asked or held is None else min(1.0, held / asked)


def _figure(both: Pairs, of: Callable[[EngineCounts], float | None]) -> float | None:
    known = [(then, now) for one in both if (then := of(one[0])) is not None and (now := of(one[1])) is not None]
    return sum(_grown(then, now) for then, now in known) if known else None


def _waiting(now: Reading) -> float | None:
    queued = [one.figures.waiting for one in now.engines.values() if one.figures.waiting is not None]
    held = now.front.waiting if now.front is not None else None
    known = [*queued, *([held] if held is not None else [])]
    return sum(known) if known else None


def _steps(before: Reading, now: Reading) -> dict[str, float]:
    """Mean ms between two tokens, by engine."""
    found = {}
    for name, one in now.engines.items():
        then = before.engines.get(name)
        if then is not None and _have(Metric.ITL, then, one):
            grown = _grown_sum(then.times[Metric.ITL], one.times[Metric.ITL])
            if grown.count:
                found[name] = 1000 * grown.total / grown.count
    return found


def _blind(now: Reading, slo: Sequence[SloTarget], within: Mapping[TargetKey, Within]) -> frozenset[Blindness]:
    found = {Blindness.UNREACHABLE} if now.unread else set()
    if not now.engines or any(target.key not in within for target in slo):
        found.add(Blindness.NO_METRICS)
    return frozenset(found)
