"""What a study taught of the model's prices: by which factors they have to be multiplied."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.ask.cluster import requested_cluster
from tuner.ask.requested_model import requested_model
from tuner.decide.decision import Decision
from tuner.search.belief import Belief
from tuner.study.records import StudyRecord

_SURER, _MOVED = 0.9, 0.05  # a price counts as learnt: a tenth surer, or moved by five per cent


@dataclass(frozen=True, slots=True)
class LearntPrice:
    """What the trials say of one price of the model: it has to be multiplied by ``factor``, with 95 % between ``low``
    and ``high``; before any trial that was ``prior_low`` to ``prior_high``. ``ttft`` and ``tpot`` stand for all of that
    latency which no term explains."""

    term: str
    factor: float
    low: float
    high: float
    prior_low: float
    prior_high: float


def learnt_prices(record: StudyRecord, decision: Decision) -> tuple[LearntPrice, ...]:
    """Prices that the trials moved or made surer, those that moved most first."""
    if not record.ranked:
        return ()
    model, cluster = requested_model(record.request), requested_cluster(record.request)
    belief = Belief.of(record.request, record.ranked, model, cluster)
    before = belief.factors
    belief.observe({summary.layout: [s for t in summary.trials for s in t.steps] for summary in decision.standings})
    found = []
    for term, (factor, sd) in belief.factors.items():
        middle, prior_sd = before[term]
        if sd < _SURER * prior_sd or abs(math.log(factor / middle)) > _MOVED:
            wide = [m * math.exp(sign * 1.96 * s) for m, s in ((factor, sd), (middle, prior_sd)) for sign in (-1, 1)]
            found.append(LearntPrice(term, factor, *wide))
    return tuple(sorted(found, key=lambda one: -abs(math.log(one.factor))))
