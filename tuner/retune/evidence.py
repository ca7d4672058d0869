"""What notices teach of layouts: that the present one misses its SLO, and that everything is slower than was expected.

Whoever keeps it adopts what was learnt when the layout is changed: the notices begin anew then, and what they taught
would be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuner.ask.deployment import Deployment
from tuner.ask.request import Metric
from tuner.retune.asked_now import AskedNow
from tuner.retune.known import Known, Lived
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.situation import concerns

_FARTHEST = 2.0  # times slower or faster: a queue makes latencies far longer than steps


def informed(known: Known, notices: Sequence[Notice], present: Deployment, now: AskedNow) -> Known:
    """What is known, with what stands against the ``present`` layout under the load of ``now``."""
    certain = concerns(notices)
    lived = known.lived
    burns = any(one.kind is NoticeKind.SLO_BURN for one in certain)
    if burns and now.request is not None:
        missed = Lived.now(present, now.request, met=False)
        lived = (*(one for one in lived if one.deployment != present), missed)
    return replace(known, slower=_slower(known, certain), lived=lived)


def _slower(known: Known, certain: Sequence[Notice]) -> dict[Metric, float]:
    """By which factor latencies are longer, on top of what was known before. Where every token takes longer, steps are
    slower, and that explains TTFT as well: it has a queue in it, and says less."""
    ratios = {
        one.of: one.figures[_RATIO] for one in certain if one.kind is NoticeKind.RESIDUAL and _RATIO in one.figures
    }
    found = dict(known.slower)
    metric = next((one for one in (Metric.TPOT, Metric.ITL, Metric.TTFT) if one.value in ratios), None)
    if metric is not None:
        ratio = min(max(ratios[metric.value], 1 / _FARTHEST), _FARTHEST)
        channel = Metric.TTFT if metric is Metric.TTFT else Metric.TPOT
        found[channel] = found.get(channel, 1.0) * ratio
    return found


_RATIO = "measured_over_expected_ratio"
