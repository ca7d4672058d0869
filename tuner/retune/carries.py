"""How many requests/s a layout carries within the SLO, with prices as far as they are known.

The plan's goodput has the model's prices alone. Of engines of another kind that is no measure: where links are slow, or
steps take longer than was thought, one loses more by it than another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tuner.ask.request import Metric, TuneRequest
from tuner.ask.slo import log_ratio
from tuner.cost.steady import BATCHES, Floats
from tuner.plan.prune import Candidate
from tuner.search.term_prices import TermPrices, engine_of

_LOOSER = 0.25  # of the logarithm, beyond what the middle one of the engines takes for a request alone


def carries(
    request: TuneRequest,
    candidates: Sequence[Candidate],
    prices: TermPrices,
    factors: Mapping[str, tuple[float, float]],
) -> list[float]:
    """By candidate, in the closed form, with the likeliest of the prices: ``factors`` are (factor, sd of its log) by
    cost term, and ``ttft`` and ``tpot``. 0 where a request alone misses a target.

    Where that is so of every engine, all targets are loosened alike, until most of them carry something: which one
    carries more is known then too, and what slows them all is less certain than how they compare.
    """
    scale = np.array([[factors[name][0] for name in prices.terms]])
    curve = prices.curve(scale, np.arange(len(prices.index)))
    output = float(request.workload.output_tokens.mean)
    worst = np.full(curve.rate_req_per_s.shape, -np.inf)
    for target in request.slo:
        channel = Metric.TTFT if target.metric is Metric.TTFT else Metric.TPOT
        logs = np.log(curve.at(target.metric, target.percentile, output) * factors[channel.value][0])
        np.maximum(worst, log_ratio(target, logs), out=worst)
    alone = worst[:, 0]
    if alone.min() > 0:
        worst -= float(np.median(alone)) + _LOOSER
    found = []
    for candidate in candidates:
        row = prices.index[engine_of(candidate.layout)]
        most = float(candidate.prediction.sequences or candidate.layout.max_num_seqs)
        found.append(_highest(curve.rate_req_per_s[row], worst[row], most) * float(prices.replicas[row]))
    return found


def _highest(rates: Floats, worst: Floats, most: float) -> float:
    """Of a replica: the rate at which its worst target is just met, with at most so many sequences."""
    missed = np.flatnonzero((worst > 0) | (most < BATCHES))
    if not missed.size:
        return float(rates[-1])
    at = int(missed[0])
    if at == 0:
        return 0.0
    part = 0.0 if most < BATCHES[at] or not np.isfinite(worst[at]) else worst[at - 1] / (worst[at - 1] - worst[at])
    return float(rates[at - 1] + min(max(part, 0.0), 1.0) * (rates[at] - rates[at - 1]))
