"""How fast the serving simulator is, on one core.

    python -m tests.benchmarks.simulator

Poisson requests of 512 + 128 tokens at 8 requests/s, Llama-3-8B on H100. ``whole`` is one layout from its prices to the
percentiles of its latencies; the rest is the simulation alone, best of several runs. The first two lines are those of
other processes, the very first with an empty cache of compiled code: compiling happens once per machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from tuner.ask.arrivals import OfferedLoad, schedule
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, Metric
from tuner.cost.latency import StepCosts
from tuner.simulate import SimulationSettings, Simulator

PROMPT_TOKENS, OUTPUT_TOKENS, RATE_REQ_PER_S, REQUESTS = 512, 128, 8.0, 1000
KV_TOKENS = 400_000
ONE, PIPELINE = ParallelLayout(), ParallelLayout(tp=2, pp=2)
TARGETS_TOK_PER_S = {ONE: 10e6, PIPELINE: 4e6}
TARGET_WHOLE_MS, TARGET_GROWTH = 50.0, 0.2


def costs() -> StepCosts:
    """Prices without anything cached."""
    spec = ClusterSpec(gpu="h100_sxm", gpus_per_node=8)
    return StepCosts(load_model("meta-llama/Llama-3.1-8B"), Cluster.from_spec(spec))


def load(requests: int) -> OfferedLoad:
    """So many requests, all alike but for their arrival."""
    offset_s = schedule("poisson", RATE_REQ_PER_S, 1.2 * requests / RATE_REQ_PER_S + 50, seed=1)[:requests]
    return OfferedLoad(offset_s, np.full(requests, PROMPT_TOKENS), np.full(requests, OUTPUT_TOKENS))


def simulator(layout: ParallelLayout, skip: bool = True) -> Simulator:
    """A layout, priced."""
    settings = SimulationSettings(skip=skip)
    longest = PROMPT_TOKENS + OUTPUT_TOKENS
    return Simulator(costs(), layout, kv_tokens=KV_TOKENS, longest_tokens=longest, settings=settings)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def whole() -> None:
    """One layout, from prices to percentiles."""
    result = simulator(ONE).run(load(REQUESTS))
    for metric in Metric:
        result.quantiles(metric)


def tokens_per_second(layout: ParallelLayout, requests: int = REQUESTS, skip: bool = True, runs: int = 20) -> float:
    """Output tokens per second of wall time, best of ``runs``."""
    priced, offered = simulator(layout, skip), load(requests)
    priced.run(offered)
    return requests * OUTPUT_TOKENS / min(seconds(lambda: priced.run(offered)) for _ in range(runs))


def first_seconds(cache: str) -> float:
    """The first simulation of a new process, imports left out."""
    code = "from tests.benchmarks import simulator as s; print(s.seconds(s.whole))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(ran.stdout)


def verdict(met: bool) -> str:
    """In words."""
    return "met" if met else "missed"


def main() -> None:
    """Print every figure beside its target."""
    with tempfile.TemporaryDirectory() as cache:
        print(f"first simulation, nothing compiled yet      {first_seconds(cache):8.2f} s")
        print(f"first simulation of a later process         {first_seconds(cache):8.2f} s")
    whole()
    times_ms = np.sort([1e3 * seconds(whole) for _ in range(100)])
    print(f"one layout, {REQUESTS:,} requests, whole: p50 {times_ms[49]:.1f} ms, p99 {times_ms[98]:.1f} ms", end="")
    print(f"   target {TARGET_WHOLE_MS:.0f} ms: {verdict(times_ms[98] <= TARGET_WHOLE_MS)}")
    for layout, target in TARGETS_TOK_PER_S.items():
        found, single = tokens_per_second(layout), tokens_per_second(layout, skip=False)
        print(f"{layout!s:18} {found / 1e6:6.1f} M output tokens/s (step by step {single / 1e6:.1f})", end="")
        print(f"   target {target / 1e6:.0f}: {verdict(found >= target)}")
    per_token_ns = {n: 1e9 / tokens_per_second(ONE, n, runs=max(3, 20_000 // n)) for n in (1_000, 10_000, 100_000)}
    growth = max(per_token_ns.values()) / min(per_token_ns.values()) - 1
    shown = ", ".join(f"{n:,} requests {ns:.1f}" for n, ns in per_token_ns.items())
    print(
        f"ns per token: {shown}   target within {TARGET_GROWTH:.0%}: {verdict(growth <= TARGET_GROWTH)} ({growth:.0%})"
    )


if __name__ == "__main__":
    main()
