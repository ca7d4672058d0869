"""What the paths to engines add to the latencies that the belief has of engines: in ms, by the closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric
from tuner.cost.front_path import Path, Paths
from tuner.cost.front_stream import gap_ms
from tuner.cost.steady import Floats
from tuner.search.term_prices import TermPrices

MOST = 12.0  # times the engine's own latency: a path that does not keep up adds so much


def added_ms(
    prices: TermPrices,
    layouts: Sequence[ParallelLayout],
    rate_req_per_s: Floats,
    idle_ms: Floats,
    means_ms: tuple[Floats, Floats],
    values_ms: Sequence[tuple[tuple[Metric, float | None], Floats]],
) -> Floats:
    """What each layout's path adds, of shape (layouts, rates, metrics).

    Of shape (layouts, rates): the ``rate_req_per_s`` of whole deployments, mean TTFT and TPOT of the engines, and by
    metric at its percentile (None: the mean) their ``values_ms``; ``idle_ms`` of shape (layouts,) is their TTFT alone.
    """
    shape = (*rate_req_per_s.shape, len(values_ms))
    if not prices.clusters or not layouts:
        return np.zeros(shape)
    paths = [Path.of(layout, prices.clusters[layout.gpu]) for layout in layouts]
    (mean, tpot), idle = means_ms, idle_ms[:, None]
    load = Paths(paths, 2).load(rate_req_per_s, prices.output_tokens, tpot)
    found = np.zeros(shape)
    for place, ((metric, percentile), own) in enumerate(values_ms):
        if metric is Metric.ITL:
            seen = gap_ms(own, prices.output_tokens, load.interval_ms)
        elif metric is Metric.TPOT:
            seen = own
        else:
            decoding = 0.0 if metric is Metric.TTFT else tpot * max(prices.output_tokens - 1, 0)
            tail = () if percentile is None else (own - decoding, percentile)
            seen = load.ttft_ms(idle, mean, *tail, ticks=metric is Metric.TTFT) + decoding
        found[..., place] = np.clip(np.nan_to_num(seen - own, posinf=np.inf), 0.0, MOST * own)
    return found
