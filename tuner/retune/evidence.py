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
from tuner.retune.demand import OUTPUT, PROMPT, RATE, RECENT_S, LoadRecord
from tuner.retune.known import AS_HEAVY, Known, Lived
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.situation import concerns

ILL = frozenset(
    {NoticeKind.SLO_BURN, NoticeKind.BLIND, NoticeKind.NODE_LOST}
)  # while one holds, it does not serve well
_LENGTHS = {PROMPT, OUTPUT}
_SLOWS = {NoticeKind.RESIDUAL, NoticeKind.VERSION_CHANGED, NoticeKind.LINK_CHANGED, NoticeKind.STRAGGLER}
_LOADS = {RATE: "req_per_s", PROMPT: PROMPT, OUTPUT: OUTPUT}  # what is of more weight where it is more, and its figure
LASTING_S = 3600.0  # of a day: bursts of minutes are none
_FARTHEST = 2.0  # times slower or faster: a queue makes latencies far longer than steps


def informed(
    known: Known,
    notices: Sequence[Notice],
    present: Deployment,
    now: AskedNow,
    missing: bool = False,
    at_s: float | None = None,
) -> Known:
    """What is known, with what stands against the ``present`` layout under the load of ``now``: a budget that burns, or
    targets that are ``missing`` just now (``LoadRecord.missing``) while it is slower than it was, or its load is
    heavier, which is no burst. ``at_s`` is now.

    While lengths are on the move, what met its SLO shows nothing of the room that was asked for beyond the load that
    it had: that it will be needed is likely.
    """
    certain = concerns(notices)
    lived = known.lived
    if now.request is not None and any(one.kind is NoticeKind.WORKLOAD_SHIFT and one.of in _LENGTHS for one in certain):
        room = AS_HEAVY * now.request.workload.arrival.requests_per_s
        lived = tuple(one for one in lived if not one.met or one.req_per_s >= room)
    kinds = {one.kind for one in certain}
    burns = NoticeKind.SLO_BURN in kinds or (missing and (bool(kinds & _SLOWS) or any(map(_heavier, certain))))
    if burns and now.request is not None:
        missed = Lived.now(present, now.request, met=False, at_s=at_s)
        lived = (*(one for one in lived if one.deployment != present), missed)
    slower = _slower(known, certain)
    on = known.slower_on if slower == dict(known.slower) else present
    return replace(known, slower=slower, slower_on=on, lived=lived)


def since_alike(well_s: float, notices: Sequence[Notice]) -> float:
    """From when on what a deployment shows is of now: since nothing was the matter that could be seen (``well_s``), and
    nothing changed under it that certain notices tell."""
    under = (one.since_s for one in concerns(notices) if one.kind in _SLOWS)
    return max([well_s, *under])


def lived_since(record: LoadRecord, deployment: Deployment, since_s: float, at_s: float) -> Lived | None:
    """What a deployment shows that has served since then, while nothing ``ILL`` was noticed, which the caller knows.

    That it meets its SLO, once it served for a day, which has its busy hours; that it misses it, where in the last day
    it did so for ``LASTING_S``: a target that is missed by a few requests in busy hours alone burns no budget, and has
    no room left. None where it has not served for so long, or nobody saw its load.
    """
    missed = record.missed_s(max(since_s, at_s - RECENT_S)) >= LASTING_S
    if at_s - since_s < RECENT_S and not missed:
        return None
    rate, load = record.busiest(after_s=since_s), record.demand(at_s)
    if rate is None or load.prompt is None or load.output is None:
        return None
    return Lived(deployment, rate, load.prompt.mean, load.output.mean, met=not missed, at_s=at_s)


def _heavier(one: Notice) -> bool:
    """Is it a shift to a heavier load?"""
    if one.kind is not NoticeKind.WORKLOAD_SHIFT or one.of not in _LOADS:
        return False
    now, before = (one.figures.get(name) for name in (_LOADS[one.of], f"{_LOADS[one.of]}_before"))
    return now is not None and before is not None and now > before


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
