"""Runs a load through the replicas of one layout: settings, the front end before the engines, and the highest rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tuner.ask.arrivals import ClosedLoad, OfferedLoad, offered
from tuner.ask.engine_settings import BLOCK_TOKENS, Engine
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Arrival, Metric, SloTarget, Workload
from tuner.ask.slo import Verdict
from tuner.cost.front_path import Path
from tuner.cost.latency import StepCosts
from tuner.cost.sequence_memory import SequenceMemory
from tuner.errors import BadInput
from tuner.simulate.result import SimulationResult
from tuner.simulate.state import NONE, Limits, Records, State, new_requests, new_state
from tuner.simulate.step_tables import StepTable, step_table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_REPLAYED = 5_000  # requests of a trace that a simulation replays unless more are asked for
_LEAST_REPLAYED = 500  # requests that tell of a rate: fewer would hold the SLO however fast they come
ROUTERS = ("round_robin", "power_of_two", "least_loaded", "prefix_aware")

_PLAIN = Engine()


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """How the engines schedule and what stands before them; the defaults are vLLM's and Ray Serve's. Neither pipeline
    stages nor CPUs (``vllm/platforms/cpu.py``) are scheduled asynchronously.

    ``long_prefill_tokens`` caps a chunk (0: no cap). ``prefix_hit_rate`` is the share of every prompt found in cache,
    ``shared_prefix_tokens`` open every prompt of a prefix group alike and are really kept and evicted. A request spends
    ``front_end_ms`` alone in the front end (one after the other), and there the profile's time for each token of its
    prompt, then ``request_ms`` beside others (None: the profile's) before an engine sees it; replicas bring a front end
    each. ``gap_limits_ms`` are ITL targets to count against. ``skip`` takes steps of an
    unchanging batch at once (exact to rounding); ``seed`` is the router's. A block of the KV cache holds
    ``block_tokens``.
    """

    asynchronous: bool = True
    chunked_prefill: bool = True
    long_prefill_tokens: int = 0
    router: str = "power_of_two"
    prefix_hit_rate: float = 0.0
    shared_prefix_tokens: int = 0
    front_end_ms: float = 0.0
    request_ms: float | None = None
    gap_limits_ms: tuple[float, ...] = ()
    skip: bool = True
    seed: int = 0
    block_tokens: int = BLOCK_TOKENS

    def __post_init__(self) -> None:
        if self.router not in ROUTERS:
            raise BadInput("router", self.router, ", ".join(ROUTERS))
        if not 0 <= self.prefix_hit_rate < 1:
            raise BadInput("prefix_hit_rate", self.prefix_hit_rate, "at least 0 and below 1")
        for name in ("long_prefill_tokens", "shared_prefix_tokens", "front_end_ms", "request_ms", "seed"):
            if (getattr(self, name) or 0) < 0:
                raise BadInput(name, getattr(self, name), "at least 0")

    @classmethod
    def for_slo(
        cls,
        workload: Workload,
        slo: Sequence[SloTarget],
        router: str = "power_of_two",
        seed: int = 0,
        engine: Engine = _PLAIN,
    ) -> SimulationSettings:
        """Settings that a request implies."""
        return cls(
            asynchronous=engine.async_scheduling is not False,
            chunked_prefill=engine.enable_chunked_prefill is not False,
            long_prefill_tokens=engine.long_prefill_token_threshold or 0,
            shared_prefix_tokens=0 if engine.enable_prefix_caching is False else workload.shared_prefix_tokens,
            gap_limits_ms=tuple(sorted({target.ms for target in slo if target.metric is Metric.ITL})),
            router=router,
            seed=seed,
            block_tokens=engine.block_tokens,
        )


def _blocks(sequence: SequenceMemory, kv_tokens: int, block_tokens: int) -> dict[str, Any]:
    """The limits of a cache: its blocks, and what of them a sequence takes."""
    block = max(block_tokens, sequence.block_tokens)
    windows = np.array(sequence.windows, dtype=float).reshape(-1, 2)
    state = int(np.ceil(sequence.state / block))
    taken = sequence.grows + int(np.ceil(windows[:, 0]).sum())
    if not taken:  # nothing but states: a block is a sequence
        return {"blocks": kv_tokens, "block_tokens": block, "grows": 0, "windows": windows, "state_blocks": 1,
                "block_taken": 1}  # fmt: skip
    return {
        "blocks": kv_tokens // block,
        "block_tokens": block,
        "grows": int(sequence.grows),
        "windows": windows,
        "state_blocks": state,
        "block_taken": taken,
    }


DEFAULT_SETTINGS = SimulationSettings()


class Simulator:
    """One layout, priced once, ready for any number of loads of up to ``longest_tokens`` per sequence.

    ``path`` is what stands between clients and its engines; None: what vLLM's own server shows.
    """

    def __init__(
        self,
        costs: StepCosts,
        layout: ParallelLayout,
        *,
        kv_tokens: int,
        longest_tokens: int,
        settings: SimulationSettings = DEFAULT_SETTINGS,
        path: Path | None = None,
    ) -> None:
        self.layout, self.settings, self._longest, self._path = layout, settings, longest_tokens, path
        self._table: StepTable = step_table(costs, layout, longest_tokens)
        engine = costs.cluster.profile.engine
        self._request_ms = engine.request_ms if settings.request_ms is None else settings.request_ms
        self._token_ms = engine.prompt_token_us / 1e3
        kind = costs.cluster.profile.kind
        together = layout.ep and layout.dp > 1 and layout.pp == 1  # pipelines keep their own time here
        self._limits = Limits(
            max_batched_tokens=layout.max_num_batched_tokens,
            max_seqs=layout.max_num_seqs,
            long_prefill_tokens=settings.long_prefill_tokens,
            **_blocks(costs.sequence(layout), int(kv_tokens), settings.block_tokens),
            depth=layout.pp,
            asynchronous=int(settings.asynchronous and layout.pp == 1 and kind.asynchronous_scheduling),
            chunked=int(settings.chunked_prefill),
            skip=int(settings.skip and not together),
            together=int(together),
        )

    def run(self, load: OfferedLoad | ClosedLoad, received_tokens: Ints | None = None) -> SimulationResult:
        """Simulate a load to the end of its last request; the KV cache of ``received_tokens`` comes with each.

        Raises BadInput for a request that can never be held.
        """
        if self._path is None:
            return self._engines(load, received_tokens)
        from tuner.simulate.front import behind, through

        if isinstance(load, ClosedLoad):
            return behind(self._path, load, self._engines, self.layout.pp)
        return through(self._path, self._engines(load, received_tokens), self.layout.pp)

    def _engines(self, load: OfferedLoad | ClosedLoad, received_tokens: Ints | None = None) -> SimulationResult:
        from tuner.simulate.drive import run

        req, state = self._prepare(load)
        if received_tokens is not None:
            req["received"] = received_tokens
        random = np.random.default_rng([self.settings.seed, len(req)])
        draws = random.integers(0, self.layout.dp, size=(len(req), 2))
        homes = np.full(state.prefixes.shape[1], NONE, dtype=np.int64)
        users = load.users if isinstance(load, ClosedLoad) else 0
        think_s = load.think_s if isinstance(load, ClosedLoad) else 0.0
        serial_token_ms, request_ms = self._shared_front_end(load.prompt_tokens)
        delays = np.array([think_s * 1e3, self.settings.front_end_ms, request_ms, serial_token_ms])
        router = ROUTERS.index(self.settings.router)
        run(self._table, self._limits, req, state, router, draws, homes, users, delays)
        return self._result(req, state, None if isinstance(load, ClosedLoad) else load.duration_s)

    def _prepare(self, load: OfferedLoad | ClosedLoad) -> tuple[Records, State]:
        prompt, output, count = load.prompt_tokens, load.output_tokens, len(load.prompt_tokens)
        if not count:
            raise BadInput("load", "no requests", "at least one")
        longest = int((prompt + output).max())
        allowed = min(self._longest, self._longest_held())
        if longest > allowed:
            raise BadInput(
                "load", f"a request of {longest} tokens", f"at most {allowed} (KV cache and planned lengths)"
            )
        if isinstance(load, ClosedLoad):
            sent_ms, ready_ms = np.full(count, np.nan), np.full(count, np.inf)
        else:
            sent_ms = load.offset_s * 1e3
            ready_ms = self._through_front_end(sent_ms, prompt)
        ranks = np.zeros(count, dtype=np.int64)
        if load.priority is not None:
            ranks = np.unique(load.priority, return_inverse=True)[1].astype(np.int64)
        block = self._limits.block_tokens
        prefix = self.settings.shared_prefix_tokens // block if self._limits.grows else 0
        group = np.full(count, 0 if prefix else NONE, dtype=np.int64)
        if prefix and load.prefix_group is not None:
            group = load.prefix_group.astype(np.int64)
        group[prompt <= prefix * block] = NONE  # the last token of a prompt is always computed
        cached = np.minimum((prompt * self.settings.prefix_hit_rate).astype(np.int64) // block, (prompt - 1) // block)
        req = new_requests(
            sent_ms=sent_ms, ready_ms=ready_ms, prompt=prompt, output=output, cached=cached * block, group=group,
            rank=ranks,
        )  # fmt: skip
        blocks = np.full(int(group.max()) + 1, prefix, dtype=np.int64)
        limits_ms = np.array(self.settings.gap_limits_ms, dtype=float)
        return req, new_state(self.layout.dp, self._limits, int(ranks.max()) + 1, blocks, limits_ms, count)

    def _longest_held(self) -> int:
        """Tokens of the longest sequence that an empty cache holds."""
        from tuner.simulate.scheduler import blocks_of

        low, high = 0, self._longest  # what is held grows with the length, in steps of its own for every window
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if blocks_of(self._limits, middle) <= self._limits.blocks else (low, middle - 1)
        return low

    def _shared_front_end(self, prompt_tokens: Ints) -> tuple[float, float]:
        """(Milliseconds per token of a prompt one after the other, per request beside others): the front ends of all
        replicas are one that is as many times as fast, and a mean prompt spends the rest beside others."""
        serial_ms = self._token_ms / self.layout.dp
        return serial_ms, self._request_ms + (self._token_ms - serial_ms) * float(np.mean(prompt_tokens))

    def _through_front_end(self, sent_ms: Floats, prompt_tokens: Ints) -> Floats:
        """Lindley's recursion: each request starts when it comes and the one before it is through."""
        token_ms, request_ms = self._shared_front_end(prompt_tokens)
        turn = np.cumsum(self.settings.front_end_ms + token_ms * prompt_tokens)
        before = np.concatenate([[0.0], turn[:-1]])
        return np.asarray(np.maximum.accumulate(sent_ms - before) + turn + request_ms)

    def _result(self, req: Records, state: State, offered_s: float | None) -> SimulationResult:
        span_ms = float(np.max(req["end_ms"]) - np.min(req["sent_ms"]))
        blocks, replicas = self._limits.blocks, state.replicas
        return SimulationResult(
            arrival_s=req["sent_ms"] / 1e3,
            scheduled_s=req["scheduled_ms"] / 1e3,
            first_token_s=req["first_ms"] / 1e3,
            end_s=req["end_ms"] / 1e3,
            prompt_tokens=req["prompt"].copy(),
            output_tokens=req["output"].copy(),
            preemptions=req["preemptions"].copy(),
            replica=req["replica"].copy(),
            prefill_share=replicas["busy_prefill_ms"] / span_ms,
            decode_share=replicas["busy_decode_ms"] / span_ms,
            kv_share=replicas["used_block_ms"] / (blocks * span_ms),
            kv_peak_share=replicas["peak_blocks"] / blocks,
            steps=replicas["steps"].copy(),
            gap_counts=state.gap_counts,
            gap_sum_ms=float(replicas["gap_sum_ms"].sum()),
            gap_limits_ms=state.gap_limits_ms,
            slow_gaps=state.slow_gaps,
            offered_s=offered_s,
        )


def simulate(
    costs: StepCosts,
    layout: ParallelLayout,
    load: OfferedLoad | ClosedLoad,
    *,
    kv_tokens: int,
    settings: SimulationSettings = DEFAULT_SETTINGS,
    path: Path | None = None,
) -> SimulationResult:
    """Serve ``load`` with ``layout.dp`` replicas of ``kv_tokens`` tokens of KV cache each.

    Raises BadInput for an empty load and for a request longer than the cache.
    """
    longest = int((load.prompt_tokens + load.output_tokens).max()) if len(load.prompt_tokens) else 1
    served = Simulator(costs, layout, kv_tokens=kv_tokens, longest_tokens=longest, settings=settings, path=path)
    return served.run(load)


def simulated_requests(workload: Workload, otherwise: int) -> int:
    """How many requests tell of a workload: of a trace one round, so that whoever simulates it sees the same load (of a
    long one its first ``MOST_REPLAYED``); of others as many as the caller takes, ``otherwise``."""
    recorded = workload.arrival.recorded
    return otherwise if recorded is None else min(recorded.requests, MOST_REPLAYED)


class Serving(Protocol):
    """Whatever serves a load in simulation: one pool of engines, or two."""

    def run(self, load: OfferedLoad | ClosedLoad) -> SimulationResult:
        """Serve a load to the end of its last request."""


def max_rate(
    simulator: Serving,
    workload: Workload,
    slo: Sequence[SloTarget],
    attainment: float | None = None,
    *,
    requests: int = 1000,
    seed: int = 0,
) -> float:
    """The highest rate in requests/s at which every target holds at its percentile, and at least the share
    ``attainment`` of the requests meets them all; 0 where there is none.

    Doubles or halves from the asked rate until it is bracketed, then bisects to 1 %. Every rate sees the same requests
    at another speed (common random numbers), so that chance does not decide between two rates; those of a trace come
    in its own rhythm. The users of a closed loop are taken for Poisson arrivals.
    """
    if workload.arrival.process == "closed_loop":
        workload = workload.model_copy(update={"arrival": Arrival(requests_per_s=workload.arrival.requests_per_s)})

    if workload.arrival.recorded is not None and requests < _LEAST_REPLAYED:
        requests *= math.ceil(_LEAST_REPLAYED / requests)  # a short trace, round after round

    def holds(rate_req_per_s: float) -> bool:
        load = offered(workload, rate_req_per_s, requests / rate_req_per_s, seed)
        return simulator.run(load).verdict(slo, attainment) is Verdict.MET

    low, high = 0.0, workload.arrival.requests_per_s
    if holds(high):
        while holds(high):
            low, high = high, 2 * high
            if high > 1e6:
                return low
    else:
        while not low:
            if high < 1e-4:
                return 0.0
            low, high = (high / 2, high) if holds(high / 2) else (0.0, high / 2)
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
