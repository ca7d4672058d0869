"""``parlay simulate``: one layout of a request under load, as an answer for machines and a table for people."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tuner.app.answers.simulate import (
    ClosedLoadAnswer,
    HandedOverAnswer,
    PoolAnswer,
    ReplicaAnswer,
    SimulateAnswer,
    simulated_answer,
)
from tuner.app.cli.tables import number, print_lines
from tuner.ask.arrivals import ClosedLoad, OfferedLoad, closed_load, offered
from tuner.ask.cluster import Cluster, requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.packing import pools_unplaceable
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import retraced
from tuner.ask.requested_model import requested_model, require_sequences_fit
from tuner.ask.rules import illegal, unchunked
from tuner.ask.workload import TooLong
from tuner.cost import front_path
from tuner.cost.latency import StepCosts
from tuner.cost.memory import estimate_memory
from tuner.cost.switches import AS_SHIPPED, EngineSwitches
from tuner.cost.transfer import kv_transfer_bytes
from tuner.errors import BadInput
from tuner.plan.front_advice import front_advice
from tuner.simulate import DisaggregatedSimulator, Pool, SimulationSettings, Simulator, max_rate, simulated_requests
from tuner.simulate.disaggregated import transfer_ms

_REQUESTS = 1000  # of a load that is drawn
_NO_PATH = (
    "Engines alone: no launcher runs two pools yet, so what the path to them adds was never measured. It comes on top "
    "of TTFT, and is no part of the highest rate."
)


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What to simulate beside the request: a ``layout``, or one for prefill and one for decode; an open load at
    ``rate_req_per_s`` (None: the asked rate), a closed loop of ``users``, or a ``trace`` instead of the request's load,
    at its own rate unless one is asked. ``requests`` are 1000 where None, and of a trace one round. ``too_long`` says
    what becomes of those of ``trace`` beyond ``max_model_len`` (None: they are refused)."""

    layout: ParallelLayout | None = None
    prefill_layout: ParallelLayout | None = None
    decode_layout: ParallelLayout | None = None
    requests: int | None = None
    rate_req_per_s: float | None = None
    users: int | None = None
    trace: Path | None = None
    router: str = "power_of_two"
    seed: int = 0
    too_long: TooLong | None = None


def simulate_answer(request: TuneRequest, options: SimulateOptions) -> SimulateAnswer:
    """Simulate; raises BadInput for a layout that the engine refuses or that does not fit."""
    started = time.perf_counter()
    request = _loaded(request, options)
    requests = options.requests or simulated_requests(request.workload, _REQUESTS)
    first = options.layout or options.prefill_layout or ParallelLayout()  # both pools live in one node group
    model, cluster = requested_model(request), requested_cluster(request).group(first)
    require_sequences_fit(request, model)
    load, longest = _load(request, options, requests), request.max_model_len
    pools = _pools(request, options, model, cluster, longest)
    settings = SimulationSettings.for_slo(request.workload, request.slo, options.router, options.seed, request.engine)
    costs = StepCosts(model, cluster, switches=EngineSwitches.asked(request.engine))
    serving, *decoding = pools.values()
    simulator: Simulator | DisaggregatedSimulator
    if decoding:
        simulator = DisaggregatedSimulator(costs, serving, decoding[0], longest_tokens=longest, settings=settings)
    else:
        simulator = Simulator(
            costs, serving.layout, kv_tokens=serving.kv_tokens, longest_tokens=longest, settings=settings,
            path=front_path.Path.of(serving.layout, cluster),
        )  # fmt: skip
    result = simulator.run(load)
    highest = max_rate(
        simulator, request.workload, request.slo, request.attainment, requests=requests, seed=options.seed
    )
    moved = _transfer(costs, serving, decoding[0], load.prompt_tokens) if decoding else None
    rate = len(result.arrival_s) / (result.offered_s or result.duration_s)
    front = None if decoding else front_advice(request, model, cluster, serving.layout, rate)
    return simulated_answer(request, pools, load, result, moved, highest, time.perf_counter() - started, front)


def _pools(
    request: TuneRequest, options: SimulateOptions, model: ModelShape, cluster: Cluster, longest: int
) -> dict[str, Pool]:
    """Engines by what they do: ``both``, or ``prefill`` and ``decode``."""
    apart = {"prefill": options.prefill_layout, "decode": options.decode_layout}
    chosen = apart if options.layout is None else {"both": options.layout}
    if (options.layout is None) is (options.prefill_layout is None and options.decode_layout is None):
        raise BadInput("--layout", str(options.layout), "a layout, or --prefill-layout with --decode-layout")
    pools: dict[str, Pool] = {}
    for role, layout in chosen.items():
        option = "--layout" if role == "both" else f"--{role}-layout"
        if layout is None:
            raise BadInput(option, None, "a layout, as the other pool has one")
        pools[role] = Pool(layout, _kv_tokens(request, option, layout, model, cluster, longest))
    stored = [pool.layout.kv_cache_dtype for pool in pools.values()]
    if len({AS_SHIPPED.on(pool.layout, model).kv_cache_dtype for pool in pools.values()}) > 1:
        # vLLM's connectors refuse it (NIXL: compatibility hash of the handshake)
        raise BadInput("--decode-layout", f"kv_cache_dtype={stored[1]}", f"{stored[0]}, as the prefill pool hands over")
    if "decode" in pools:
        prefill, decode = pools["prefill"].layout, pools["decode"].layout
        if (figure := pools_unplaceable(prefill, decode, cluster)) is not None:
            raise BadInput("--decode-layout", str(decode), f"pools that the cluster holds ({figure})")
    return pools


def _transfer(costs: StepCosts, prefill: Pool, decode: Pool, prompt_tokens: NDArray[np.int64]) -> HandedOverAnswer:
    """What a request hands over between the pools, and how long that takes on an idle link."""
    ms = transfer_ms(costs, prefill.layout, decode.layout, prompt_tokens)
    sent = [kv_transfer_bytes(costs.model, prefill.layout, int(tokens)) for tokens in prompt_tokens]
    return HandedOverAnswer(
        mean_bytes_per_request=float(np.mean(sent)), mean_ms=float(np.mean(ms)), max_ms=float(np.max(ms))
    )  # fmt: skip


def _loaded(request: TuneRequest, options: SimulateOptions) -> TuneRequest:
    """The request with the load that was asked for in place of its own; all that is simulated follows from it."""
    ways = {"--users": options.users, "--trace": options.trace, "--rate": options.rate_req_per_s}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1 and given != ["--trace", "--rate"]:
        raise BadInput(given[1], f"also {given[0]}", "one of --rate, --users and --trace, or a trace at a rate")
    rate = options.rate_req_per_s
    if rate is not None and not rate > 0:
        raise BadInput("--rate", rate, "a number above 0")
    if options.trace is not None:
        return retraced(request, options.trace, options.too_long or TooLong.REFUSE, rate)
    if options.too_long is not None:
        allowed = "with --trace only; a request says it by workload.arrival.too_long"
        raise BadInput("--too-long", options.too_long.value, allowed)
    return request


def _load(request: TuneRequest, options: SimulateOptions, requests: int) -> OfferedLoad | ClosedLoad:
    arrival = request.workload.arrival
    users = arrival.users if options.users is None and options.rate_req_per_s is None else options.users
    if users is not None:
        return closed_load(request.workload, users, requests, options.seed, arrival.think_s)
    rate = options.rate_req_per_s or arrival.requests_per_s
    return offered(request.workload, rate, requests / rate, options.seed)


def _kv_tokens(
    request: TuneRequest, option: str, layout: ParallelLayout, model: ModelShape, cluster: Cluster, longest: int
) -> int:
    drop = illegal(model, layout, cluster)
    if drop is not None:
        raise BadInput(option, str(layout), f"a layout that engine and cluster accept ({drop.figure})")
    if (refusal := unchunked(request, layout.max_num_batched_tokens)) is not None:
        raise BadInput(option, str(layout), f"a layout that the engine accepts ({refusal})")
    limits = (np.array([float(layout.max_num_batched_tokens)]), np.array([float(layout.max_num_seqs)]))
    memory = estimate_memory(model, layout, cluster, request.engine, *limits)
    misfit = memory.misfit(0, request.engine.held_tokens(longest), request.engine.block_tokens)
    if misfit is not None:
        raise BadInput(option, str(layout), f"a layout that fits ({misfit})")
    return int(memory.kv_tokens[0])


def simulate_tables(console: Console, answer: SimulateAnswer) -> None:
    """Latencies, then what the SLO says of them, then what the engines did."""
    load = answer.load
    if isinstance(load, ClosedLoadAnswer):
        how = f"{load.users} users in a closed loop"
    else:
        how = f"{number(load.rate_req_per_s, 2)} req/s"
    console.print(f"Simulated: {answer.layout}, {load.requests:,} requests, {how}", style="italic", highlight=False)
    console.print(_latency_table(answer))
    print_lines(console, answer.device_notes)
    for target in answer.slo:
        spread = target.interval_ms
        interval = f", 95 % between {number(spread[0])} and {number(spread[1])}" if spread else ""
        console.print(f"{target.target}: {number(target.ms)} ms{interval}", highlight=False)
    of = ", in the rhythm of the trace" if answer.trace else ""
    if isinstance(load, ClosedLoadAnswer) and not of:
        of = " of Poisson arrivals"
    console.print(
        f"attainment {answer.attainment:.1%}, goodput {answer.goodput_req_per_s:.2f} req/s; the SLO holds up to "
        f"{answer.max_rate_req_per_s:.2f} req/s{of}",
        highlight=False,
    )
    if answer.trace is not None:
        part = f"the first {load.requests:,} of {answer.trace.requests:,} requests of the trace (--requests for more)"
        print_lines(console, ([part] if load.requests < answer.trace.requests else []) + answer.trace.notes)
    if moved := answer.kv_transfer:
        console.print(
            f"KV cache handed over: {moved.mean_bytes_per_request / 1e6:.1f} MB and {moved.mean_ms:.2f} ms per "
            f"request, at most {moved.max_ms:.2f} ms",
            highlight=False,
        )
    for pool in answer.pools:
        _pool_line(console, pool, [one for one in answer.replicas if one.role == pool.role])
    console.print(f"{answer.preemptions} preemptions", highlight=False)
    print_lines(console, answer.front.lines if answer.front else [_NO_PATH])
    console.print(
        f"{answer.simulated_output_tokens:,} output tokens, and the highest rate, in {answer.seconds:.2f} s",
        highlight=False,
    )


def _latency_table(answer: SimulateAnswer) -> Table:
    table = Table()
    table.add_column("ms")
    for name in ("mean", "p50", "p90", "p95", "p99"):
        table.add_column(name, justify="right")
    rows = {"TTFT": answer.ttft_ms, "TPOT": answer.tpot_ms, "ITL": answer.itl_ms, "E2E": answer.e2e_ms}
    for name, row in rows.items():
        table.add_row(name, *(number(value, 2) for value in (row.mean, row.p50, row.p90, row.p95, row.p99)))
    return table


def _pool_line(console: Console, pool: PoolAnswer, replicas: list[ReplicaAnswer]) -> None:
    prefill = fmean(one.prefill_share for one in replicas)
    decode, full = fmean(one.decode_share for one in replicas), fmean(one.kv_share for one in replicas)
    peak = max(one.kv_peak_share for one in replicas)
    job = "" if pool.role == "both" else f" for {pool.role} ({pool.layout})"
    console.print(
        f"{len(replicas)} replica(s){job}: prefill {prefill:.0%}, decode {decode:.0%} of the time; KV cache {full:.0%} "
        f"full, at most {peak:.0%} of {pool.kv_tokens_per_replica:,} tokens",
        highlight=False,
    )
