"""Measures deployments of a simulated cluster, with the simulator and the prices that are true there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tuner.ask.arrivals import OfferedLoad, offered
from tuner.ask.request import Metric, TuneRequest
from tuner.cost.front_path import Path
from tuner.cost.switches import EngineSwitches
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.rehearse.cluster import SimulatedCluster, SimulatedDeployment
from tuner.rehearse.conditions import TrueCosts
from tuner.simulate import SimulationResult, SimulationSettings, Simulator
from tuner.stats.intervals import percentile, quantiles
from tuner.stats.warm_up import LOOK_S, Heard, WarmUp
from tuner.trial.results import LoadStep, StepResult
from tuner.trial.seams import RunningDeployment, Watch


class SimulatedMeter:
    """Measures deployments of a simulated cluster; implements ``tuner.trial.seams.Meter``."""

    def __init__(self, world: SimulatedCluster) -> None:
        self._world = world

    def measure(self, deployment: RunningDeployment, step: LoadStep, request: TuneRequest, watch: Watch) -> StepResult:
        """Simulate the load step that a real meter would send, with the prices that are true here."""
        if not isinstance(deployment, SimulatedDeployment):
            raise BadInput("deployment", deployment.url, "one of the simulated cluster")
        conditions = self._world.conditions
        if conditions.failure_of(deployment.layout) is FailureReason.REPLICA_DIED and not step.warmup:
            deployment.die("a worker was killed")
        deployment.require_alive()
        since_s = self._world.clock_s
        random = conditions.random("noise", deployment.chance, step.index, step.seed)
        factor = self._world.slowdown * float(np.exp(conditions.noise * random.standard_normal()))
        simulator = Simulator(
            TrueCosts(deployment.model, self._world.cluster, conditions, factor, EngineSwitches.asked(request.engine)),
            deployment.layout,
            kv_tokens=deployment.kv_tokens,
            longest_tokens=request.max_model_len,
            settings=SimulationSettings.for_slo(
                request.workload, request.slo, deployment.layout.request_router, step.seed, request.engine
            ),
            path=Path.of(deployment.layout, self._world.cluster),
        )
        load = _load(simulator, step, request)
        result = simulator.run(load)
        self._world.pass_time(result.duration_s, since_s, watch.cancel)
        deployment.require_alive()
        deployment.say(f"served {len(result.arrival_s)} requests at {step.rate_req_per_s:g}/s")
        return _step_result(result, step, request, load.duration_s or step.duration_s)


def _load(simulator: Simulator, step: LoadStep, request: TuneRequest) -> OfferedLoad:
    """What a step sends: in a warm-up that a real meter would end by what it sees, as much as until then."""
    usual = offered(request.workload, step.rate_req_per_s, step.duration_s, step.seed)
    if step.longest_s is None:
        return usual
    warm_up = WarmUp(step.duration_s, step.longest_s)
    if (over_s := _over_s(simulator.run(usual), warm_up, step.duration_s)) is not None:
        return _first(usual, over_s)
    longest = offered(request.workload, step.rate_req_per_s, step.longest_s, step.seed)
    return _first(longest, _over_s(simulator.run(longest), warm_up, step.longest_s) or step.longest_s)


def _over_s(result: SimulationResult, warm_up: WarmUp, until_s: float) -> float | None:
    """When a warm-up would be found to be over; None where it goes on."""
    tpot_s = np.full(len(result.arrival_s), np.nan)
    tpot_s[result.output_tokens > 1] = result.tpot_ms / 1e3
    seen = result.arrival_s, result.first_token_s, result.end_s, tpot_s
    looks_s = np.append(np.arange(LOOK_S, until_s, LOOK_S), until_s).tolist()
    return next((at_s for at_s in looks_s if warm_up.over(at_s, Heard.by(at_s, *seen))), None)


def _first(load: OfferedLoad, seconds: float) -> OfferedLoad:
    """The first so many seconds of a load; one request, where there is none in them."""
    within = load.offset_s < seconds
    within[0] = True
    return replace(load.taken(within), duration_s=seconds)


def _step_result(result: SimulationResult, step: LoadStep, request: TuneRequest, offered_s: float) -> StepResult:
    """As ``serve.measure.summary.figures`` counts: goodput over the window, requests beyond the timeout failed."""
    done = result.e2e_ms <= request.load.request_timeout_s * 1e3
    sent, completed = len(done), int(done.sum())
    if not completed:
        raise LaunchFailed(FailureReason.CLIENT_ERROR, f"simulated: all {sent} requests timed out")
    tpot_ms = result.tpot_ms[done[result.output_tokens > 1]]
    samples = {Metric.TTFT: result.ttft_ms[done], Metric.TPOT: tpot_ms, Metric.E2E: result.e2e_ms[done]}
    latency = {metric: found for metric, values in samples.items() if (found := quantiles(values)) is not None}
    gaps = result.quantiles(Metric.ITL)
    if gaps is not None:
        latency[Metric.ITL] = gaps
    values_ms = {
        t.key: result.at(*t.key) if t.metric is Metric.ITL else percentile(samples[t.metric], t.percentile)
        for t in request.slo
    }
    good = int((result.met(request.slo) & done).sum())
    return StepResult(
        step=step,
        sent=sent,
        completed=completed,
        failed=sent - completed,
        wall_s=result.served_s,
        latency=latency,
        slo_values_ms=values_ms,
        attainment=good / sent,
        goodput_req_per_s=good / offered_s,
        output_tok_per_s=float(result.output_tokens[done].sum()) / result.served_s,
        schedule_lag_p99_ms=None,
        errors={"timeout": sent - completed} if completed < sent else {},
        offered_s=offered_s if step.warmup else None,
    )
