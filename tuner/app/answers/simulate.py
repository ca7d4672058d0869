"""What ``parlay simulate --json`` prints: one layout, or a pool for prefill and one for decode, under load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from tuner.app.answers.base import Answer, Interval
from tuner.app.answers.devices import OnDevices, on_devices
from tuner.app.answers.front import FrontAnswer, front_answer
from tuner.app.answers.trace import TraceAnswer, trace_answer
from tuner.ask.arrivals import ClosedLoad, OfferedLoad
from tuner.ask.request import Metric, TuneRequest
from tuner.plan.front_advice import FrontAdvice
from tuner.simulate import Pool, SimulationResult
from tuner.stats.intervals import wilson


class PoolAnswer(Answer):
    """Equal engines with one job."""

    role: str = Field(description="both, prefill or decode.")
    layout: str = Field(description="The layout.")
    gpus: int = Field(description="Devices of all replicas.")
    kv_tokens_per_replica: int = Field(description="Tokens that the KV cache of one replica holds.")


class HandedOverAnswer(Answer):
    """What a request hands over between the pools, on an idle link."""

    mean_bytes_per_request: float = Field(description="Mean KV cache of a prompt, bytes.")
    mean_ms: float = Field(description="Mean time, ms.")
    max_ms: float = Field(description="Longest time, ms.")


class OpenLoadAnswer(Answer):
    """Requests that arrive whatever the engine does."""

    requests: int = Field(description="How many.")
    rate_req_per_s: float | None = Field(description="Their rate as drawn: how many ÷ the window, requests/s.")


class ClosedLoadAnswer(Answer):
    """Users who ask again once they have their answer."""

    requests: int = Field(description="How many requests in all.")
    users: int = Field(description="How many users.")


class PercentilesAnswer(Answer):
    """One latency, ms; null where no request has it."""

    p50: float | None = Field(description="Median, ms.")
    p90: float | None = Field(description="90th percentile, ms.")
    p95: float | None = Field(description="95th percentile, ms.")
    p99: float | None = Field(description="99th percentile, ms.")
    mean: float | None = Field(description="Mean, ms.")


class TargetAnswer(Answer):
    """One target of the SLO."""

    target: str = Field(description="The target in words.")
    ms: float | None = Field(description="The value at its percentile, ms; null where nothing has it.")
    interval_ms: Interval | None = Field(description="Its 95 % interval, ms; null where too few requests give none.")


class ReplicaAnswer(Answer):
    """One replica over the whole load; shares are from 0 to 1."""

    role: str = Field(description="The pool it is of.")
    prefill_share: float = Field(description="Busy time for prompts, as a share of the run.")
    decode_share: float = Field(description="Busy time for decode, as a share of the run.")
    kv_share: float = Field(description="Share of its KV cache in use, mean over time.")
    kv_peak_share: float = Field(description="The same at its highest.")


class SimulateAnswer(OnDevices):
    """A layout under load, simulated."""

    simulated: Literal[True] = Field(description="Always true: no engine ran.")
    layout: str = Field(description="The layout, or that for prefill -> that for decode.")
    gpus: int = Field(description="Devices of all pools.")
    pools: list[PoolAnswer] = Field(description="The engines by what they do.")
    kv_transfer: HandedOverAnswer | None = Field(description="Null where one pool does both.")
    load: OpenLoadAnswer | ClosedLoadAnswer = Field(description="What was sent.")
    ttft_ms: PercentilesAnswer = Field(description="Time to first token, ms.")
    tpot_ms: PercentilesAnswer = Field(description="Time per output token after the first, ms.")
    itl_ms: PercentilesAnswer = Field(
        description="Time between two messages, ms; each token is one without an interval."
    )
    e2e_ms: PercentilesAnswer = Field(description="Time to the last token, ms.")
    slo: list[TargetAnswer] = Field(description="Target by target.")
    meets_slo: bool | None = Field(description="Whether every target holds; null where it shows nothing of it.")
    attainment: float = Field(description="Share of the requests that met every target, 0 to 1.")
    attainment_interval: Interval | None = Field(description="Its 95 % interval.")
    goodput_req_per_s: float = Field(description="Requests/s that met every target.")
    max_rate_req_per_s: float = Field(
        description="Highest rate of this load within the SLO, requests/s: of a trace in its own rhythm, of a closed "
        "loop as Poisson arrivals."
    )
    trace: TraceAnswer | None = Field(description="The recorded load; null of any other.")
    output_tok_per_s: float = Field(description="Output tokens/s.")
    preemptions: int = Field(description="Sequences that lost their place in the KV cache.")
    kv_tokens_per_replica: int = Field(description="Tokens that the first pool's KV cache holds, per replica.")
    replicas: list[ReplicaAnswer] = Field(description="Replica by replica.")
    simulated_output_tokens: int = Field(description="Output tokens in all.")
    seconds: float = Field(description="What the simulation took, s.")
    front: FrontAnswer | None = Field(
        description="The path to the engines at the simulated rate; null for two pools, which have none."
    )


def simulated_answer(
    request: TuneRequest,
    pools: Mapping[str, Pool],
    load: OfferedLoad | ClosedLoad,
    result: SimulationResult,
    moved: HandedOverAnswer | None,
    highest_req_per_s: float,
    seconds: float,
    front: FrontAdvice | None = None,
) -> SimulateAnswer:
    """The answer of one simulation; ``pools`` are the engines by what they do, ``moved`` what passes between two."""
    latency = {metric: _percentiles(result, metric) for metric in Metric}
    met = result.met(request.slo)
    return SimulateAnswer(
        **dict(on_devices(request)),
        simulated=True,
        layout=" -> ".join(str(pool.layout) for pool in pools.values()),
        gpus=sum(pool.layout.devices for pool in pools.values()),
        pools=[_pool(role, pool) for role, pool in pools.items()],
        kv_transfer=moved,
        load=_described(load),
        ttft_ms=latency[Metric.TTFT],
        tpot_ms=latency[Metric.TPOT],
        itl_ms=latency[Metric.ITL],
        e2e_ms=latency[Metric.E2E],
        slo=_slo(request, result),
        meets_slo=result.verdict(request.slo, request.attainment).holds,
        attainment=result.attainment(request.slo),
        attainment_interval=wilson(int(met.sum()), len(met)),
        goodput_req_per_s=result.goodput_req_per_s(request.slo),
        max_rate_req_per_s=highest_req_per_s,
        trace=trace_answer(request.workload),
        output_tok_per_s=result.output_tok_per_s,
        preemptions=int(result.preemptions.sum()),
        kv_tokens_per_replica=next(iter(pools.values())).kv_tokens,
        replicas=_replicas(result, pools),
        simulated_output_tokens=int(result.output_tokens.sum()),
        seconds=seconds,
        front=front_answer(front) if front else None,
    )


def _pool(role: str, pool: Pool) -> PoolAnswer:
    return PoolAnswer(
        role=role, layout=str(pool.layout), gpus=pool.layout.devices, kv_tokens_per_replica=pool.kv_tokens
    )  # fmt: skip


def _described(load: OfferedLoad | ClosedLoad) -> OpenLoadAnswer | ClosedLoadAnswer:
    if isinstance(load, ClosedLoad):
        return ClosedLoadAnswer(requests=len(load), users=load.users)
    return OpenLoadAnswer(requests=len(load), rate_req_per_s=load.rate_req_per_s)


def _percentiles(result: SimulationResult, metric: Metric) -> PercentilesAnswer:
    q = result.quantiles(metric)
    if q is None:
        return PercentilesAnswer(p50=None, p90=None, p95=None, p99=None, mean=None)
    return PercentilesAnswer(p50=q.p50_ms, p90=q.p90_ms, p95=q.p95_ms, p99=q.p99_ms, mean=q.mean_ms)


def _slo(request: TuneRequest, result: SimulationResult) -> list[TargetAnswer]:
    values_ms = result.values_ms(request.slo)
    return [
        TargetAnswer(
            target=str(target),
            ms=values_ms[target.key],
            interval_ms=result.interval_ms(target.metric, target.percentile),
        )
        for target in request.slo
    ]


def _replicas(result: SimulationResult, pools: Mapping[str, Pool]) -> list[ReplicaAnswer]:
    roles = [role for role, pool in pools.items() for _ in range(pool.layout.dp)]
    return [
        ReplicaAnswer(
            role=role,
            prefill_share=float(result.prefill_share[place]),
            decode_share=float(result.decode_share[place]),
            kv_share=float(result.kv_share[place]),
            kv_peak_share=float(result.kv_peak_share[place]),
        )
        for place, role in enumerate(roles)
    ]
