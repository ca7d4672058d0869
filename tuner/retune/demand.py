"""The load that a layout has to carry, from what was seen: the highest rate of a week, and how long requests are.

A layout has to carry the busiest hours, not those of now: a night is no reason for a smaller one, and a weekend is none
either. So a rate falls once it was low for a week. One that rose counts as soon as that was noticed: what is twice the
load of the same hour a week ago will be twice the load of the busiest hour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.retune.load_sums import LoadSums
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look, Tokens

RATE, PROMPT, OUTPUT, PREFIX = "rate", "prompt_tokens", "output_tokens", "prefix_share"  # what a shift is of
SLOT_S = 900.0
PERIOD_S = 7 * 86400.0  # loads repeat by the week
RECENT_S = 86400.0  # over which lengths are averaged where no shift of them is known: they may differ by the hour
_FINE_S = 2 * 3600.0  # for which each look is kept by itself
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


class LoadRecord:
    """The looks of a week, added up by quarters of an hour. Not for several threads at once."""

    def __init__(self) -> None:
        self._slots: dict[int, LoadSums] = {}
        self._fine: deque[tuple[float, LoadSums]] = deque()  # (when it began, what came)

    def add(self, look: Look) -> None:
        """One more look, the newest; what is older than the period is forgotten."""
        seen, at = LoadSums.of(look), int((look.at_s - look.seconds / 2) // SLOT_S)
        if at not in self._slots:
            oldest = at - int(PERIOD_S / SLOT_S) - 1
            self._slots = {slot: sums for slot, sums in self._slots.items() if slot >= oldest}
        self._slots[at] = self._slots.get(at, LoadSums()) + seen
        self._fine.append((look.at_s - look.seconds, seen))
        while self._fine[0][0] < look.at_s - _FINE_S:
            self._fine.popleft()

    def demand(self, at_s: float, notices: Sequence[Notice] = ()) -> Demand:
        """What has to be carried at ``at_s``; a shift that was noticed says since when its part is what it is now."""
        shifts = (one for one in notices if one.kind is NoticeKind.WORKLOAD_SHIFT)
        begins = dict.fromkeys((PROMPT, OUTPUT, PREFIX), at_s - RECENT_S) | {one.of: one.since_s for one in shifts}
        busiest = self._busiest()
        if RATE in begins:
            busiest = max([rate for rate in (busiest, *self._risen(begins[RATE], busiest)) if rate], default=None)
        seen = sum(one.seconds >= _COVERED * SLOT_S for one in self._slots.values())
        return Demand(
            busiest,
            self._since(begins[PROMPT]).prompt.seen,
            self._since(begins[OUTPUT]).output.seen,
            self._since(begins[PREFIX]).prefix_share,
            seen >= _WHOLE * PERIOD_S / SLOT_S,
        )

    def _since(self, begin_s: float) -> LoadSums:
        """All looks since then; those of the fine record where it reaches back so far, else whole slots."""
        if self._fine and begin_s >= self._fine[0][0]:
            return sum((one for began_s, one in self._fine if began_s >= begin_s), LoadSums())
        return sum((one for at, one in self._slots.items() if at * SLOT_S >= begin_s), LoadSums())

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
        earlier = self._busiest(before_s=begin_s)
        if not before or earlier is None:
            return (rate,)
        return rate, earlier * rate / (sum(before) / len(before))

    def _busiest(self, before_s: float = float("inf")) -> float | None:
        """The highest rate that lasted for two slots: a burst of minutes is no load to plan for."""
        known = {
            at: one.arrived / one.seconds
            for at, one in self._slots.items()
            if one.seconds >= _COVERED * SLOT_S and (at + 1) * SLOT_S <= before_s
        }
        return max((min(rate, known[at + 1]) for at, rate in known.items() if at + 1 in known), default=None)
