"""What may have slowed everything down, where nobody saw why: every step alike, or the links alone.

That tokens take twice as long where they did not says nothing of other layouts yet. If every step takes longer, those
with more devices to a replica do better; if the links are slower, they do worse. Whatever is chosen should do either
way. And a latency that doubled under load is less than a doubled price: slower steps hold more requests at a time,
which makes them slower still.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.cost.steady import Floats
from tuner.retune.known import Known
from tuner.search.priors import fresh_sd, is_collective
from tuner.search.term_prices import TermPrices, engine_of

_USUAL = 0.7  # of the asked rate, which is that of the busiest hours: under it latencies were held against each other
_MOST = 16.0  # times slower
_HALVINGS = 14


def explained(request: TuneRequest, prices: TermPrices, known: Known) -> tuple[Known, ...]:
    """What is known, once for each cause that explains by how much TPOT is longer on the layout where that was noticed:
    as it is where it is no longer, or ``prices`` have no such engine."""
    ratio, where = known.slower.get(Metric.TPOT, 1.0), known.slower_on
    row = prices.index.get(engine_of(where)) if isinstance(where, ParallelLayout) else None
    if ratio <= 1.0 or row is None:
        return (known,)
    rate = _USUAL * request.workload.arrival.requests_per_s / float(prices.replicas[row])
    links = tuple(name for name in prices.terms if is_collective(name))
    usual = np.array([known.factors.get(name, (1.0, 0.0))[0] for name in prices.terms])
    found = []
    for slowed in (prices.terms, links):
        factor = _factor(prices, row, usual, slowed, (rate, ratio))
        if factor is not None:
            found.append(_with(known, prices, dict.fromkeys(slowed, factor)))
    return tuple(found) or (known,)


def _with(known: Known, prices: TermPrices, factors: Mapping[str, float]) -> Known:
    learnt = dict(known.factors)
    for name, factor in factors.items():
        was, sd = learnt.get(name, (1.0, fresh_sd(name, prices.unmeasured)))
        learnt[name] = (was * factor, sd)
    return replace(known, factors=learnt, slower={m: by for m, by in known.slower.items() if m is not Metric.TPOT})


def _factor(
    prices: TermPrices, row: int, usual: Floats, slowed: tuple[str, ...], seen: tuple[float, float]
) -> float | None:
    """By how much the terms that are ``slowed`` are dearer than ``usual``, where TPOT at the rate that is ``seen`` is
    so many times as long; None where they explain no such thing."""
    (rate, ratio), which = seen, np.array([name in slowed for name in prices.terms])

    def tpot_ms(times: float) -> float:
        curve = prices.curve((usual * np.where(which, times, 1.0))[None], np.array([row]))
        return float(np.interp(rate, curve.rate_req_per_s[0], curve.tpot_ms[0]))

    wanted, low, high = ratio * tpot_ms(1.0), 0.0, float(np.log(_MOST))
    if tpot_ms(_MOST) < wanted:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if tpot_ms(float(np.exp(middle))) < wanted else (low, middle)
    return float(np.exp(high))
