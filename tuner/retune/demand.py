"""The load that a layout has to carry, from what was seen: the highest rate of a week, and how long requests are.

A layout has to carry the busiest hours, not those of now: a night is no reason for a smaller one, and a weekend is none
either. So a rate falls once it was low for a week. One that rose counts as soon as that was noticed: what is twice the
load of the same hour a week ago will be twice the load of the busiest hour.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from tuner.retune.load_sums import LoadSums, TokenSums
from tuner.retune.misses import Misses
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look, Tokens

RATE, PROMPT, OUTPUT, PREFIX = "rate", "prompt_tokens", "output_tokens", "prefix_share"  # what a shift is of
SLOT_S = 900.0
PERIOD_S = 7 * 86400.0  # loads repeat by the week
RECENT_S = 86400.0  # over which lengths are averaged where no shift of them is known: they may differ by the hour
_LATEST_S = RECENT_S / 4  # and where one is: what still drifts is further by now than on average since it began
_FINE_S = 2 * 3600.0  # for which each look is kept by itself
_FASTEST = 1.25  # times as long in a day: what grows faster is no drift
_MIXED_S = 60.0
_ENOUGH = 30  # requests, for a mean of lengths
_COVERED = 0.6  # of a slot has to be seen, before its rate counts
_WHOLE = 0.9  # of the slots of a period


@dataclass(frozen=True, slots=True)
class Demand:
    """What a layout has to carry: ``req_per_s`` at the busiest; tokens of prompts and answers; ``prefix_share`` of the
    prompts' tokens that a cache holds. None where nobody saw it. ``whole``: a whole period was seen, so that a rate
    below the asked one is no night."""

    req_per_s: float | None = None
    prompt: Tokens | None = None
    output: Tokens | None = None
    prefix_share: float | None = None
    whole: bool = False

    def else_as(self, before: Demand) -> Demand:
        """With what was seen ``before``, under another layout, where nobody has seen it yet: a load does not go back to
        what was asked because something else serves it."""
        return Demand(
            before.req_per_s if self.req_per_s is None else self.req_per_s,
            self.prompt or before.prompt,
            self.output or before.output,
            before.prefix_share if self.prefix_share is None else self.prefix_share,
            self.whole,
        )


class LoadRecord:
    """The looks of a week, added up by quarters of an hour. Not for several threads at once."""

    def __init__(self) -> None:
        self._slots: dict[int, LoadSums] = {}
        self._sums: dict[int, LoadSums] = {}  # of slots that are over, from each on that was asked for
        self._lasting: list[tuple[int, float]] = []  # of two slots that are over: the first, and the lower rate
        self._fine: deque[tuple[float, LoadSums]] = deque()  # (when it began, what came)
        self._misses = Misses(SLOT_S)
        self._heeded: dict[str, float] = {}  # when lengths became those that were decided for last

    def add(self, look: Look) -> None:
        """One more look, the newest; what is older than the period is forgotten."""
        seen, at = LoadSums.of(look), int((look.at_s - look.seconds / 2) // SLOT_S)
        if at not in self._slots:
            self._begin(at)
        self._slots[at] = self._slots.get(at, LoadSums()) + seen
        self._fine.append((look.at_s - look.seconds, seen))
        while self._fine[0][0] < look.at_s - _FINE_S:
            self._fine.popleft()
        self._misses.add(look)

    def _begin(self, at: int) -> None:
        """The slot before this one is over."""
        self._sums.clear()
        last = max(self._slots, default=at)
        rates = [self._rate(one) for one in (last - 1, last)]
        if last < at and rates[0] is not None and rates[1] is not None:
            self._lasting.append((last - 1, min(rates[0], rates[1])))
        oldest = at - int(PERIOD_S / SLOT_S) - 1
        while self._slots and (first := next(iter(self._slots))) < oldest:
            del self._slots[first]
        while self._lasting and self._lasting[0][0] < oldest:
            del self._lasting[0]
        self._misses.ended(last, oldest)

    def _rate(self, at: int) -> float | None:
        one = self._slots.get(at)
        return one.arrived / one.seconds if one is not None and one.seconds >= _COVERED * SLOT_S else None

    def heed(self, notices: Sequence[Notice]) -> None:
        """A decision heeds these, and they are not told again: what came before is of another load all the same. What
        was missed so far says nothing of what was decided."""
        self._misses = Misses(SLOT_S)
        shifts = [one for one in notices if one.kind is NoticeKind.WORKLOAD_SHIFT]
        rises = [one.since_s for one in shifts if one.of == RATE]
        first_s = min(rises, default=None)
        if first_s is not None:
            first_s = self._not_risen(first_s)  # the first of a week stands for those after it
        self._heeded |= {one.of: one.since_s for one in shifts} | ({} if first_s is None else {RATE: first_s})

    @property
    def missing(self) -> bool:
        """Is a target missed just now, for certain?"""
        return self._misses.now

    def missed_s(self, after_s: float) -> float:
        """For how long since then a target was missed, by whole slots."""
        return self._misses.seconds(after_s)

    def demand(self, at_s: float, notices: Sequence[Notice] = ()) -> Demand:
        """What has to be carried at ``at_s``; a shift that was noticed says since when its part is what it is now.
        Lengths that grow by the day are those of a day ahead: what is decided has to last until the next change."""
        shifts = [one for one in notices if one.kind is NoticeKind.WORKLOAD_SHIFT]
        begins = {name: max(at_s - RECENT_S, self._heeded.get(name, 0.0)) for name in (PROMPT, OUTPUT, PREFIX)}
        moving = {name for name in (PROMPT, OUTPUT) if self._heeded.get(name, 0.0) > at_s - 2 * RECENT_S}
        begins |= {name: max(begins[name], at_s - _LATEST_S) for name in moving}
        told = {one.of for one in shifts} | moving  # what was decided for yesterday may go on
        begins |= {one.of: self._unmixed(one.since_s, at_s) if one.of in begins else one.since_s for one in shifts}
        busiest = self.busiest()
        rates = [busiest, *(self._risen(begins[RATE], busiest) if RATE in begins else ())]
        if self.missing:  # whatever layout comes next has to carry what comes now
            rates.append(self._misses.rate_now(at_s))
        busiest = max((rate for rate in rates if rate), default=None)
        ahead = {name: self._trend(name) if name in told else 1.0 for name in (PROMPT, OUTPUT)}
        since = {begin_s: self._since(begin_s) for begin_s in {begins[name] for name in (PROMPT, OUTPUT, PREFIX)}}
        return Demand(
            busiest,
            _longer(since[begins[PROMPT]].prompt.seen, ahead[PROMPT]),
            _longer(since[begins[OUTPUT]].output.seen, ahead[OUTPUT]),
            since[begins[PREFIX]].prefix_share,
            len(self._slots) >= _WHOLE * PERIOD_S / SLOT_S,
        )

    def _unmixed(self, since_s: float, at_s: float) -> float:
        """From when on lengths are those since a shift alone: the first of its looks may be of both, where enough came
        after that."""
        later_s = min(since_s + _MIXED_S, at_s - _MIXED_S)
        enough = self._since(later_s).arrived >= _ENOUGH
        return max(later_s if enough else since_s, at_s - _LATEST_S)

    def _trend(self, name: str) -> float:
        """By which factor lengths grow in a day: in each half of the last day, against the same hours of the day
        before, the lower one, so that a step is none. 1 where they do not, or that cannot be told."""
        day, last = int(RECENT_S / SLOT_S), max(self._slots, default=0)
        halves = [(last - day, last - day // 2), (last - day // 2, last)]
        factors = [self._growth(name, range(*half), day) for half in halves]
        return min(*(factor or 1.0 for factor in factors), _FASTEST) if all(factors) else 1.0

    def _growth(self, name: str, slots: range, day: int) -> float | None:
        sums = []
        for shift in (0, day):
            seen = (self._slots[at - shift] for at in slots if at - shift in self._slots)
            sums.append(sum((one.prompt if name == PROMPT else one.output for one in seen), TokenSums()).seen)
        now, before = sums
        return max(now.mean / before.mean, 1.0) if now is not None and before is not None and before.mean else None

    def _since(self, begin_s: float) -> LoadSums:
        """All looks since then; those of the fine record where it reaches back so far, else slots that are over."""
        if self._fine and begin_s >= self._fine[0][0]:
            return sum((one for began_s, one in self._fine if began_s >= begin_s), LoadSums())
        first = math.ceil(begin_s / SLOT_S)
        if first not in self._sums:
            running = max(self._slots, default=0)
            over = (one for at, one in self._slots.items() if first <= at < running)
            self._sums[first] = sum(over, LoadSums())
        return self._sums[first]

    def _risen(self, begin_s: float, busiest: float | None) -> tuple[float, ...]:
        """Rates that a rise since ``begin_s`` makes likely: its own, and as many times the busiest of before it as it
        is that of the same hours a week ago."""
        now = self._since(begin_s)
        if not now.seconds:
            return ()
        rate, period = now.arrived / now.seconds, int(PERIOD_S / SLOT_S)
        first, last = int(begin_s // SLOT_S), max(self._slots)
        past = [self._slots[at - period] for at in range(first, last + 1) if at - period in self._slots]
        before = [one.arrived / one.seconds for one in past if one.seconds and one.arrived]
        earlier = self.busiest(before_s=self._not_risen(begin_s))
        if not before or earlier is None:
            return (rate,)
        return rate, earlier * rate / (sum(before) / len(before))

    def _not_risen(self, begin_s: float) -> float:
        """Until when, before a rise since ``begin_s``, rates were what they are compared with, those of a week ago:
        until a rise of this week that a decision has heeded already."""
        heeded_s = self._heeded.get(RATE, begin_s)
        return min(begin_s, heeded_s) if heeded_s > begin_s - PERIOD_S else begin_s

    def busiest(self, after_s: float = 0.0, before_s: float = float("inf")) -> float | None:
        """The highest rate that lasted for two slots: a burst of minutes is no load to plan for."""
        first = bisect_left(self._lasting, after_s, key=lambda one: one[0] * SLOT_S)
        stop = bisect_right(self._lasting, before_s, key=lambda one: (one[0] + 2) * SLOT_S)
        return max(map(itemgetter(1), self._lasting[first:stop]), default=None)


def _longer(seen: Tokens | None, factor: float) -> Tokens | None:
    if seen is None or factor == 1.0:
        return seen
    return Tokens(seen.requests, factor * seen.mean, None if seen.sd is None else factor * seen.sd)
