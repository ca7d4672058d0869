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
        seasonal = (SeasonalRate,)
        self._parts = [
            (part, Departure(part.settings, 0.0 if isinstance(part, seasonal) else None))
            for part in (signals() if parts is None else parts)
        ]

    def look(self, look: Look) -> tuple[Notice, ...]:
        """The parts that are away from what they were."""
        found = []
        for part, departure in self._parts:
            one = part.add(look)
            if one is not None:
                departure.add(one)
                departed = departure.departed
                part.settled(departed is not None, departed.level if departed else None)
            if departure.departed is not None:
                found.append(_notice(part, departure.departed))
        return tuple(found)

    def decided(self, at_s: float) -> None:
        """What came last was decided for."""
        for part, departure in self._parts:
            part.decided()
            departure.decided()


def _notice(part: Signal, departed: Departed) -> Notice:
    before, now = part.figures(departed.reference, departed.level)
    name = part.name.replace(" ", "_") if part.unit in ("tokens", "share") else part.unit
    unit = {"tokens": " per request", "share": "", "req_per_s": " requests/s"}[part.unit]
    evidence = f"{part.name}: {now:.3g}{unit} in place of {before:.3g}"
    figures = {f"{name}_before": before, name: now, "false_per_week": departed.per_week}
    return Notice(
        NoticeKind.WORKLOAD_SHIFT, part.name.replace(" ", "_"), evidence, departed.confidence, departed.since_s, figures
    )
