"""The simulator's word on the candidates of a study, at every rate of the load steps, before anything is launched.

The closed form knows mean batches; a tail that comes of their ups and downs, or of stages that wait for each other, is
the simulator's. Both use the same prices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.ask.arrivals import offered
from tuner.ask.cluster import Cluster, Fleet
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.ask.slo import ratios
from tuner.cost.front_path import Path
from tuner.cost.latency import StepCosts
from tuner.cost.steady import Floats
from tuner.cost.switches import EngineSwitches
from tuner.plan.prune import Candidate
from tuner.plan.refine import SEED
from tuner.simulate import SimulationSettings, Simulator

MOST = 96  # layouts that are simulated, from the head of the ranking; some tens of ms each
REQUESTS = 300  # per rate
_LOST = 4.0  # a target missed by this factor is missed at higher rates, too: they are not simulated


def presimulate(
    request: TuneRequest, candidates: Sequence[Candidate], model: ModelShape, cluster: Cluster | Fleet
) -> dict[ParallelLayout, Floats]:
    """By ``ParallelLayout.served``: logs of ms with axes (rates, shown metrics and then the mean E2E); NaN where not
    simulated."""
    switches = EngineSwitches.asked(request.engine)
    costs = {group.gpu: StepCosts(model, group, switches=switches) for group in cluster.groups}
    found: dict[ParallelLayout, Floats] = {}
    for candidate in candidates:
        layout = candidate.layout.served
        if layout not in found and len(found) < MOST:
            found[layout] = simulated(request, costs[layout.gpu], layout, candidate.prediction.kv_tokens)
    return found


def simulated(request: TuneRequest, costs: StepCosts, layout: ParallelLayout, kv_tokens: int) -> Floats:
    """Of one layout with such prices, as ``presimulate``: of shape (rates, shown metrics and then the mean E2E)."""
    settings = SimulationSettings.for_slo(request.workload, request.slo, layout.request_router, engine=request.engine)
    simulator = Simulator(
        costs, layout, kv_tokens=kv_tokens, longest_tokens=request.max_model_len, settings=settings,
        path=Path.of(layout, costs.cluster),
    )  # fmt: skip
    logs = np.full((len(request.rates_req_per_s), len(request.shown_metrics) + 1), np.nan)
    for row, rate in enumerate(request.rates_req_per_s):
        result = simulator.run(offered(request.workload, rate, REQUESTS / rate, SEED))
        shown = [result.at(metric, percentile) for metric, percentile in request.shown_metrics]
        values = [*shown, float(np.mean(result.e2e_ms))]
        logs[row] = [np.log(ms) if ms else np.nan for ms in values]
        if max(ratios(request.slo, result.values_ms(request.slo)), default=0.0) > _LOST:
            break
    return logs
