"""Whether a target is missed on end: in each quarter of the last hour, by more requests for certain than it allows.

A budget that is spent in days burns slowly while a layout misses its target in every busy hour, by a few requests more
than it may: 8 % of them beyond a p95 is no burn rate that wakes anybody, and for hours nothing would be told. A burst
of minutes is in two quarters at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.ask.request import SloTarget, TargetKey
from tuner.retune.misses import over
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look
from tuner.stats.buckets import NOTHING, Within

SLOT_S = 900.0
SLOTS = 4


@dataclass(slots=True)
class _Target:
    running: Within = NOTHING
    missed: int = 0  # slots on end, up to the last that is over
    of: Within = NOTHING  # what came in them


class OnEnd:
    """Detects that, target by target. ``slot_s``: how long a quarter is."""

    def __init__(self, slo: Sequence[SloTarget], slot_s: float = SLOT_S) -> None:
        self._slo, self._slot_s = {target.key: target for target in slo}, slot_s
        self._slot: int | None = None
        self._targets: dict[TargetKey, _Target] = {}
        self.decided(0.0)

    def look(self, look: Look) -> tuple[Notice, ...]:
        """The targets that are, as of the last quarter that is over."""
        slot = int((look.at_s - look.seconds / 2) // self._slot_s)
        if self._slot is not None and slot > self._slot:
            for key, one in self._targets.items():
                self._ended(key, one, unseen=slot > self._slot + 1)
        self._slot = slot if self._slot is None else max(slot, self._slot)
        for key, within in look.within.items():
            if key in self._targets:
                self._targets[key].running += within
        missed = [(key, one) for key, one in self._targets.items() if one.missed >= SLOTS]
        return tuple(self._notice(key, one) for key, one in missed)

    def decided(self, at_s: float) -> None:
        """Of another deployment nothing was seen yet."""
        self._slot = None
        self._targets = {key: _Target() for key in self._slo}

    def _ended(self, key: TargetKey, one: _Target, unseen: bool) -> None:
        """A quarter is over; ``unseen``: so is another, in which nobody looked."""
        if over({key: one.running}):
            one.missed, one.of = one.missed + 1, one.of + one.running
        if unseen or not over({key: one.running}):
            one.missed, one.of = 0, NOTHING
        one.running = NOTHING

    def _notice(self, key: TargetKey, one: _Target) -> Notice:
        target, slot = self._slo[key], self._slot or 0
        share = (one.of.total - one.of.most) / one.of.total
        minutes = one.missed * self._slot_s / 60
        evidence = f"{share:.1%} of {one.of.total:.0f} requests miss {target}, for {minutes:.0f} min on end"
        figures = {"missed_share": share, "limit_share": 1 - key[1] / 100, "requests": one.of.total}
        name = f"{key[0].value} p{key[1]:g} on end"
        return Notice(NoticeKind.SLO_BURN, name, evidence, 1.0, (slot - one.missed) * self._slot_s, figures)
