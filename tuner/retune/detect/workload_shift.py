"""Whether the workload is another than the one that was decided for: rate, lengths, prefix share.

Each part is a series whose level is tested (``levels``, where the test and its source stand): lengths and prefix share
as they are, by bins of at least thirty requests, for neither depends on the time of day by itself; the rate against the
same time before (``season``). No more than ``false_per_week`` of each part's settings come about by accident.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuner.retune.detect.bins import BIN_SIZE, BinSize
from tuner.retune.detect.departure import Departed, Departure
from tuner.retune.detect.signals import Lengths, PrefixShare, SeasonalRate, Signal, SteadyRate
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look


def signals(*, seasonal: bool = True, size: BinSize = BIN_SIZE) -> tuple[Signal, ...]:
    """The parts of a workload; ``seasonal``: the rate follows days and weeks."""
    rate: Signal = SeasonalRate() if seasonal else SteadyRate()
    return rate, Lengths("prompt", size), Lengths("output", size), PrefixShare(size)


class WorkloadShift:
    """Detects that; see above."""

    def __init__(self, parts: Sequence[Signal] | None = None) -> None:
        shown = signals() if parts is None else parts
        self._parts = [(part, Departure(part.settings, part.reference)) for part in shown]

    def look(self, look: Look) -> tuple[Notice, ...]:
        """The parts that are away from what they were."""
        found = []
        for part, series in self._parts:
            one = part.add(look)
            if one is not None:
                series.add(one)
                part.settled(series.departed.level if series.departed else None)
            if series.departed is not None:
                found.append(_notice(part, series.departed))
        return tuple(found)

    def decided(self, at_s: float) -> None:
        """What came last was decided for."""
        for part, series in self._parts:
            part.decided()
            series.decided()


def _notice(part: Signal, departed: Departed) -> Notice:
    before, now = part.value(departed.reference), part.value(departed.level)
    evidence = f"{now:.4g} {part.unit} in place of {before:.4g}"
    figures = {f"{part.figure}_before": before, part.figure: now, "false_per_week": departed.per_week}
    return Notice(NoticeKind.WORKLOAD_SHIFT, part.of, evidence, departed.confidence, departed.since_s, figures)
