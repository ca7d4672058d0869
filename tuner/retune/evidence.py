"""What notices teach of layouts: that the present one misses its SLO, and that everything is slower than was expected.

Whoever keeps it adopts what was learnt when the layout is changed: the notices begin anew then, and what they taught
would be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuner.ask.deployment import Deployment
from tuner.ask.request import Metric
from tuner.retune.asked_now import AskedNow, in_steps
from tuner.retune.demand import RECENT_S, LoadRecord
from tuner.retune.known import Known, Lived
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.situation import concerns

ILL = frozenset(
    {NoticeKind.SLO_BURN, NoticeKind.BLIND, NoticeKind.NODE_LOST}
)  # while one holds, it does not serve well
_SLOWS = {NoticeKind.RESIDUAL, NoticeKind.VERSION_CHANGED, NoticeKind.LINK_CHANGED, NoticeKind.STRAGGLER}
_FARTHEST = 2.0  # times slower or faster: a queue makes latencies far longer than steps


def informed(
    known: Known, notices: Sequence[Notice], present: Deployment, now: AskedNow, missing: bool = False
) -> Known:
    """What is known, with what stands against the ``present`` layout under the load of ``now``: a budget that burns, or
    targets that are ``missing`` just now (``LoadRecord.missing``) while it is slower than it was, which is no burst."""
    certain = concerns(notices)
    lived = known.lived
    kinds = {one.kind for one in certain}
    burns = NoticeKind.SLO_BURN in kinds or (missing and bool(kinds & _SLOWS))
    if burns and now.request is not None:
        missed = Lived.now(present, now.request, met=False)
        lived = (*(one for one in lived if one.deployment != present), missed)
    return replace(known, slower=_slower(known, certain), lived=lived)


def served_well(record: LoadRecord, deployment: Deployment, since_s: float, at_s: float) -> Lived | None:
    """What it shows that a deployment has met its SLO since then, as nothing ``ILL`` was noticed all the while, which
    the caller knows. None before it did for a day, which has its busy hours."""
    if at_s - since_s < RECENT_S:
        return None
    rate, load = record.busiest(after_s=since_s), record.demand(at_s)
    if rate is None or load.prompt is None or load.output is None:
        return None
    return Lived(deployment, rate, load.prompt.mean, load.output.mean, met=True)


def _slower(known: Known, certain: Sequence[Notice]) -> dict[Metric, float]:
    """By which factor latencies are longer, on top of what was known before. Where every token takes longer, steps are
    slower, and that explains TTFT as well: it has a queue in it, and says less."""
    ratios = {
        one.of: one.figures[_RATIO] for one in certain if one.kind is NoticeKind.RESIDUAL and _RATIO in one.figures
    }
    found = dict(known.slower)
    metric = next((one for one in (Metric.TPOT, Metric.ITL, Metric.TTFT) if one.value in ratios), None)
    if metric is not None:
        ratio = in_steps(min(max(ratios[metric.value], 1 / _FARTHEST), _FARTHEST))
        channel = Metric.TTFT if metric is Metric.TTFT else Metric.TPOT
        found[channel] = found.get(channel, 1.0) * ratio
    return found


_RATIO = "measured_over_expected_ratio"
