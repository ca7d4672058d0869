"""What is not seen. A deployment of which nothing is known is neither fine nor in trouble: that is said, with why."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.ask.request import SloTarget
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Blindness, Look

_TOLD = {
    Blindness.UNREACHABLE: "an address of its metrics cannot be read",
    Blindness.NO_METRICS: "its metrics have no histogram that the SLO needs",
    Blindness.FEW_REQUESTS: "too few requests came for a judgement",
}
Missing = tuple[Blindness, str]  # why, and of what


class Blind:
    """Says what looks lack: counts for every target, and of requests. That the cluster is not seen says
    ``ClusterChange``, which compares it."""

    def __init__(self, slo: Sequence[SloTarget]) -> None:
        self._slo = tuple(slo)
        self._since_s: dict[Missing, float] = {}

    def look(self, look: Look) -> tuple[Notice, ...]:
        """Everything that this look lacks, and since when looks have lacked it."""
        found = _missing(look, self._slo)
        begin_s = look.at_s - look.seconds
        self._since_s = {one: self._since_s.get(one, begin_s) for one in found}
        return tuple(
            Notice(NoticeKind.BLIND, of, evidence, 1.0, self._since_s[why, of], blindness=why)
            for (why, of), evidence in found.items()
        )

    def decided(self, at_s: float) -> None:
        """What is not seen is not seen of any deployment."""


def _missing(look: Look, slo: Sequence[SloTarget]) -> dict[Missing, str]:
    found = {(why, why.value): _TOLD[why] for why in sorted(look.blind & _TOLD.keys())}
    if Blindness.UNREACHABLE in look.blind:
        return found  # all else is missing for that reason
    if look.arrived is None:
        found[Blindness.NO_METRICS, "requests"] = "nobody counts how many requests come"
    for target in slo:
        if target.key not in look.within:
            of = f"{target.metric.value} p{target.percentile:g}"
            found[Blindness.NO_METRICS, of] = (
                f"no engine has a histogram of {target.metric.value}, which {target} needs"
            )
    return found
