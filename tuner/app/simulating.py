"""``parlay simulate``: one layout of a request under load, as an answer for machines and a table for people."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tuner.app.tables import number
from tuner.app.wiring import planned_cluster
from tuner.arrivals import ClosedLoad, OfferedLoad, closed_load, offered, replay
from tuner.cluster import Cluster
from tuner.cost.latency import StepCosts
from tuner.cost.memory import estimate_memory
from tuner.errors import BadInput
from tuner.layout import ParallelLayout
from tuner.model import ModelShape, load_model
from tuner.request import Metric, TuneRequest
from tuner.rules import illegal
from tuner.simulate import SimulationResult, SimulationSettings, Simulator, max_rate
from tuner.stats import wilson

_PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What to simulate beside the request: an open load at ``rate_req_per_s`` (None: the asked rate), a closed loop of
    ``users``, or the arrivals and lengths of a ``trace`` file."""

    layout: ParallelLayout
    requests: int = 1000
    rate_req_per_s: float | None = None
    users: int | None = None
    trace: Path | None = None
    router: str = "power_of_two"
    seed: int = 0


def simulate_answer(request: TuneRequest, options: SimulateOptions) -> dict[str, Any]:
    """Simulate; raises BadInput for a layout that the engine refuses or that does not fit."""
    started = time.perf_counter()
    model, cluster = load_model(request.model), planned_cluster(request)
    load = _load(request, options)
    longest = max(request.max_model_len, int(np.max(load.prompt_tokens + load.output_tokens)))
    kv_tokens = _kv_tokens(request, options.layout, model, cluster, longest)
    settings = SimulationSettings.for_slo(request.workload, request.slo, router=options.router, seed=options.seed)
    simulator = Simulator(
        StepCosts(model, cluster), options.layout, kv_tokens=kv_tokens, longest_tokens=longest, settings=settings
    )
    result = simulator.run(load)
    highest = max_rate(simulator, request.workload, request.slo, requests=options.requests, seed=options.seed)
    return {
        "simulated": True,
        "layout": str(options.layout),
        "gpus": options.layout.devices,
        "load": _described(load, result),
        **_latencies(result),
        **_slo(request, result),
        "max_rate_req_per_s": highest,
        "output_tok_per_s": result.output_tok_per_s,
        **_engine(result, kv_tokens),
        "simulated_output_tokens": int(result.output_tokens.sum()),
        "seconds": time.perf_counter() - started,
    }


def _load(request: TuneRequest, options: SimulateOptions) -> OfferedLoad | ClosedLoad:
    ways = {"--rate": options.rate_req_per_s, "--users": options.users, "--trace": options.trace}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise BadInput(given[1], f"also {given[0]}", "one of --rate, --users and --trace")
    if options.trace is not None:
        return replay(options.trace)
    if options.users is not None:
        return closed_load(request.workload, options.users, options.requests, options.seed)
    asked = request.workload.arrival.requests_per_s
    rate = asked if options.rate_req_per_s is None else options.rate_req_per_s
    if not rate > 0:
        raise BadInput("--rate", rate, "a number above 0")
    return offered(request.workload, rate, options.requests / rate, options.seed)


def _kv_tokens(request: TuneRequest, layout: ParallelLayout, model: ModelShape, cluster: Cluster, longest: int) -> int:
    drop = illegal(model, layout, cluster)
    if drop is not None:
        raise BadInput("--layout", str(layout), f"a layout that the engine accepts ({drop.figure})")
    limits = (np.array([float(layout.max_num_batched_tokens)]), np.array([float(layout.max_num_seqs)]))
    memory = estimate_memory(model, layout, cluster, request.engine, *limits)
    misfit = memory.misfit(0, longest)
    if misfit is not None:
        raise BadInput("--layout", str(layout), f"a layout that fits ({misfit})")
    return int(memory.kv_tokens[0])


def _described(load: OfferedLoad | ClosedLoad, result: SimulationResult) -> dict[str, Any]:
    shown: dict[str, Any] = {"requests": len(load)}
    if isinstance(load, ClosedLoad):
        return {**shown, "users": load.users}
    span_s = float(np.ptp(result.arrival_s))
    return {**shown, "rate_req_per_s": len(load) / span_s if span_s else None}


def _latencies(result: SimulationResult) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in Metric:
        q = result.quantiles(metric)
        values = [None] * 5 if q is None else [q.p50_ms, q.p90_ms, q.p95_ms, q.p99_ms, q.mean_ms]
        found[f"{metric.value}_ms"] = dict(zip((*_PERCENTILES, "mean"), values, strict=True))
    return found


def _slo(request: TuneRequest, result: SimulationResult) -> dict[str, Any]:
    met = result.met(request.slo)
    return {
        "slo": [
            {
                "target": str(target),
                "ms": result.at(target.metric, target.percentile),
                "interval_ms": result.interval_ms(target.metric, target.percentile),
            }
            for target in request.slo
        ],
        "meets_slo": result.meets(request.slo),
        "attainment": result.attainment(request.slo),
        "attainment_interval": wilson(int(met.sum()), len(met)),
        "goodput_req_per_s": result.goodput_req_per_s(request.slo),
    }


def _engine(result: SimulationResult, kv_tokens: int) -> dict[str, Any]:
    return {
        "preemptions": int(result.preemptions.sum()),
        "kv_tokens_per_replica": kv_tokens,
        "replicas": [
            {"prefill_share": float(p), "decode_share": float(d), "kv_share": float(k), "kv_peak_share": float(top)}
            for p, d, k, top in zip(
                result.prefill_share, result.decode_share, result.kv_share, result.kv_peak_share, strict=True
            )
        ],
    }


def simulate_tables(console: Console, answer: dict[str, Any]) -> None:
    """Latencies, then what the SLO says of them, then what the engines did."""
    load = answer["load"]
    how = f"{load['users']} users in a closed loop" if "users" in load else f"{number(load['rate_req_per_s'], 2)} req/s"
    console.print(
        f"Simulated: {answer['layout']}, {load['requests']:,} requests, {how}", style="italic", highlight=False
    )
    table = Table()
    table.add_column("ms")
    for name in ("mean", *_PERCENTILES):
        table.add_column(name, justify="right")
    for metric in Metric:
        row = answer[f"{metric.value}_ms"]
        table.add_row(metric.value.upper(), *(number(row[name], 2) for name in ("mean", *_PERCENTILES)))
    console.print(table)
    for target in answer["slo"]:
        spread = target["interval_ms"]
        interval = f", 95 % between {number(spread[0])} and {number(spread[1])}" if spread else ""
        console.print(f"{target['target']}: {number(target['ms'])} ms{interval}", highlight=False)
    console.print(
        f"attainment {answer['attainment']:.1%}, goodput {answer['goodput_req_per_s']:.2f} req/s; the SLO holds up to "
        f"{answer['max_rate_req_per_s']:.2f} req/s",
        highlight=False,
    )
    replicas = answer["replicas"]
    means = {name: sum(r[name] for r in replicas) / len(replicas) for name in replicas[0]}
    console.print(
        f"{len(replicas)} replica(s): prefill {means['prefill_share']:.0%}, decode {means['decode_share']:.0%} of the "
        f"time; KV cache {means['kv_share']:.0%} full, at most {max(r['kv_peak_share'] for r in replicas):.0%} of "
        f"{answer['kv_tokens_per_replica']:,} tokens; {answer['preemptions']} preemptions",
        highlight=False,
    )
    console.print(
        f"{answer['simulated_output_tokens']:,} output tokens, and the highest rate, in {answer['seconds']:.2f} s",
        highlight=False,
    )
