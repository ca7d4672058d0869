"""The load that a layout has to carry, from what was seen: the highest rate of a week, and how long requests are.

A layout has to carry the busiest hours, not those of now: a night is no reason for a smaller one, and a weekend is none
either. So a rate falls once it was low for a week; one that rose counts as soon as that is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.retune.load_sums import LoadSums
from tuner.retune.seen import Look, Tokens

RATE, PROMPT, OUTPUT, PREFIX = "rate", "prompt_tokens", "output_tokens", "prefix_share"
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
            oldest = at - int(PERIOD_S / SLOT_S)
            self._slots = {slot: sums for slot, sums in self._slots.items() if slot > oldest}
        self._slots[at] = self._slots.get(at, LoadSums()) + seen
        self._fine.append((look.at_s - look.seconds, seen))
        while self._fine[0][0] < look.at_s - _FINE_S:
            self._fine.popleft()

    def demand(self, at_s: float, since_s: Mapping[str, float] | None = None) -> Demand:
        """What has to be carried at ``at_s``. ``since_s`` says from when on ``RATE``, ``PROMPT``, ``OUTPUT`` or
        ``PREFIX`` are what they are now, where a shift of them was noticed."""
        begins = dict.fromkeys((PROMPT, OUTPUT, PREFIX), at_s - RECENT_S) | dict(since_s or {})
        busiest = self._busiest()
        if RATE in begins:
            risen = self._since(begins[RATE])
            busiest = max(busiest or 0.0, risen.arrived / risen.seconds) if risen.seconds else busiest
        seen = sum(one.seconds >= _COVERED * SLOT_S for one in self._slots.values())
        return Demand(
            busiest,
            self._since(begins[PROMPT]).prompt.seen,
            self._since(begins[OUTPUT]).output.seen,
            self._since(begins[PREFIX]).prefix_share,
            seen >= _WHOLE * PERIOD_S / SLOT_S,
        )

    def _since(self, begin_s: float) -> LoadSums:
        if self._fine and begin_s >= self._fine[0][0]:
            return sum((one for began_s, one in self._fine if began_s >= begin_s), LoadSums())
        return sum((one for at, one in self._slots.items() if at * SLOT_S >= begin_s), LoadSums())

    def _busiest(self) -> float | None:
        """The highest rate that lasted for two slots: a burst of minutes is no load to plan for."""
        known = {at: one.arrived / one.seconds for at, one in self._slots.items() if one.seconds >= _COVERED * SLOT_S}
        return max((min(rate, known[at + 1]) for at, rate in known.items() if at + 1 in known), default=None)
