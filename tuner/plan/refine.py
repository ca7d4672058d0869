"""The simulator's word on the head of a ranking: layouts that the closed form leaves close are told apart under load.

Nothing is dropped here. Layouts that hold the SLO in the simulation come first, then those that were not simulated or
that miss it by less than the model may err, then the others.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from tuner.ask.arrivals import offered
from tuner.ask.cluster import Cluster, Fleet
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Objective, TuneRequest
from tuner.ask.slo import Verdict, ratios
from tuner.cost.front_path import Path
from tuner.cost.latency import StepCosts
from tuner.cost.switches import EngineSwitches
from tuner.plan.prune import MARGIN, Candidate, Plan, Prediction
from tuner.simulate import SimulationResult, SimulationSettings, Simulator, max_rate, simulated_requests

REQUESTS = 500  # per simulated rate, but of a trace one round
SEED = 20260201  # the same requests for every layout


@dataclass(frozen=True, slots=True)
class _Judged:
    """A candidate with its place: ``standing`` 0 holds, 1 may hold, 2 misses by more than the model may err."""

    candidate: Candidate
    standing: int


def refine(request: TuneRequest, model: ModelShape, cluster: Cluster | Fleet, planned: Plan, wanted: int) -> Plan:
    """Simulate down the ranking until ``wanted`` different engines have held the SLO, or all were tried; rank again.

    Layouts that are served alike, whatever their executor, are one engine, simulated once. A plan under a what-if stays
    as it is: the simulator serves with vLLM as it is.
    """
    started = time.perf_counter()
    if planned.what_if:
        return planned
    switches = EngineSwitches.asked(request.engine)
    costs = {group: StepCosts(model, group, switches=switches) for group in cluster.groups}
    known: dict[ParallelLayout, tuple[Prediction, int]] = {}
    judged, held = [], 0
    for candidate in planned.ranked:
        engine = candidate.layout.served
        if engine not in known and held < wanted:
            known[engine] = _simulated(request, costs[cluster.group(engine)], candidate)
            held += known[engine][1] == 0
        if engine in known:
            prediction, standing = known[engine]
            judged.append(_Judged(replace(candidate, prediction=prediction), standing))
        else:
            judged.append(_Judged(candidate, 1))
    ranked = tuple(one.candidate for one in sorted(judged, key=lambda one: _key(request, one)))
    return replace(planned, ranked=ranked, seconds=planned.seconds + time.perf_counter() - started)


def _simulated(request: TuneRequest, costs: StepCosts, candidate: Candidate) -> tuple[Prediction, int]:
    """What the simulator says of a candidate, and its standing."""
    asked, requests = request.workload.arrival.requests_per_s, simulated_requests(request.workload, REQUESTS)
    simulator = Simulator(
        costs,
        candidate.layout,
        kv_tokens=candidate.prediction.kv_tokens,
        longest_tokens=request.max_model_len,
        settings=SimulationSettings.for_slo(
            request.workload, request.slo, candidate.layout.request_router, engine=request.engine
        ),
        path=Path.of(candidate.layout, costs.cluster),
    )

    def at(rate_req_per_s: float) -> SimulationResult:
        return simulator.run(offered(request.workload, rate_req_per_s, requests / rate_req_per_s, SEED))

    result = at(asked)
    tpot_ms = result.tpot_ms
    prediction = replace(
        candidate.prediction,
        ttft_ms=float(np.mean(result.ttft_ms)),
        tpot_ms=float(np.mean(tpot_ms)) if tpot_ms.size else candidate.prediction.tpot_ms,
        goodput_req_per_s=max_rate(
            simulator, request.workload, request.slo, request.attainment, requests=requests, seed=SEED
        ),
        meets_slo=result.verdict(request.slo, request.attainment) is Verdict.MET,
        steps=tuple(_shown(request, result if rate == asked else at(rate)) for rate in request.rates_req_per_s),
        simulated=True,
    )
    return prediction, _standing(request, result)


def _shown(request: TuneRequest, result: SimulationResult) -> tuple[float | None, ...]:
    return tuple(result.at(metric, percentile) for metric, percentile in request.shown_metrics)


def _standing(request: TuneRequest, result: SimulationResult) -> int:
    if result.verdict(request.slo, request.attainment) is Verdict.MET:
        return 0
    return 1 if max(ratios(request.slo, result.values_ms(request.slo)), default=0.0) <= MARGIN else 2


def _key(request: TuneRequest, judged: _Judged) -> tuple[float, ...]:
    """The order of ``prune``, within each standing."""
    prediction, devices = judged.candidate.prediction, float(judged.candidate.layout.devices)
    decoded = max(request.workload.output_tokens.mean - 1, 0)
    latency_ms = np.inf
    if prediction.ttft_ms is not None and prediction.tpot_ms is not None:
        latency_ms = prediction.ttft_ms + prediction.tpot_ms * decoded
    if request.objective is Objective.MAX_GOODPUT:
        return (-round(prediction.goodput_req_per_s, 6), latency_ms, devices)
    if request.objective is Objective.MIN_LATENCY:
        return (judged.standing, latency_ms, devices)
    if prediction.meets_slo:
        return (judged.standing, 0.0, devices, 0.0, latency_ms)
    return (judged.standing, 1.0, 0.0, -prediction.goodput_req_per_s, latency_ms)
