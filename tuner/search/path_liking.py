"""Which path to an engine is worth a measurement, by the model of the path and what was measured behind another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuner.ask.cluster import Cluster, Fleet
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.slo import within
from tuner.cost.front_path import Path
from tuner.trial.results import StepResult

_SHARE = 0.1  # of the measured TTFT that is the engine's at least


def by_path(
    cluster: Cluster | Fleet,
) -> Callable[[TuneRequest, ParallelLayout, StepResult, ParallelLayout], tuple[float, ...]]:
    """A ``Liking`` of ``tuner.search.in_place``: first those that keep up and whose messages come often enough for a
    target of ITL, of them the one with the lowest TTFT.

    What the engine itself takes is what was measured, less what the model says of the path that it was measured behind.
    """

    def liking(
        request: TuneRequest, before: ParallelLayout, step: StepResult, layout: ParallelLayout
    ) -> tuple[float, ...]:
        output, rate = float(request.workload.output_tokens.mean), step.step.rate_req_per_s
        measured, tpot = step.latency.get(Metric.TTFT), step.latency.get(Metric.TPOT)
        tpot_ms = tpot.mean_ms if tpot else 0.0
        own, other = (Path.of(one, cluster.group(one)).load(rate, output, tpot_ms) for one in (before, layout))
        ttft_ms = measured.mean_ms if measured else 0.0
        taken_ms = np.nan_to_num(own.idle_ms + own.wait_ms, posinf=ttft_ms)
        engine_ms = max(ttft_ms - float(taken_ms), _SHARE * ttft_ms)
        late = any(t.metric is Metric.ITL and not within(t, float(layout.stream_interval_ms)) for t in request.slo)
        return (float(late), float(not other.carries), float(other.ttft_ms(engine_ms, engine_ms)))

    return liking
