"""How often an early verdict is wrong, and how soon it comes: ``python -m tests.benchmarks.verdicts``.

Streams of requests whose truth is known go through ``SloTest`` as a window of 60 s would see them, with a look every
half second. Drawn streams: answer times from an autoregressive process, exactly at the share that the SLO asks (every
MISSED is wrong), or missing it by the indifference (every MET is wrong). Simulated streams: a layout at shares of its
true limit, the highest rate that meets the SLO in windows of 60 s, on average over seeds.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tuner.ask.arrivals import offered
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import Arrival, ClusterSpec, Metric, SloTarget, Workload
from tuner.ask.slo import Verdict
from tuner.cost.latency import StepCosts
from tuner.simulate import SimulationResult, Simulator
from tuner.stats.sequential import SloTest, Waiting

WINDOW_S = 60.0
LOOK_EVERY_S = 0.5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stream:
    """Requests of one window: seconds from its start, and the tokens asked for."""

    sent_s: Floats
    first_s: Floats
    end_s: Floats
    output_tokens: NDArray[np.int64]


def run(stream: Stream, targets: Sequence[SloTarget], window_s: float = WINDOW_S) -> tuple[Verdict, float]:
    """The verdict on a stream and the second at which it came."""
    test = SloTest(targets, window_s)
    order = np.argsort(stream.end_s)
    told = 0
    for now_s in np.arange(LOOK_EVERY_S, window_s + 1e-9, LOOK_EVERY_S):
        while told < len(order) and stream.end_s[order[told]] <= now_s:
            index = int(order[told])
            test.ended(index, float(stream.sent_s[index]), _latency_ms(stream, index))
            told += 1
        waiting = np.flatnonzero((stream.sent_s <= now_s) & (stream.end_s > now_s))
        verdict = test.update(float(now_s), [_waiting(stream, int(index), float(now_s)) for index in waiting])
        if verdict is not Verdict.UNKNOWN:
            return verdict, float(now_s)
    return Verdict.UNKNOWN, window_s


def _latency_ms(stream: Stream, index: int) -> dict[Metric, list[float]]:
    sent, first, end = (float(one[index]) for one in (stream.sent_s, stream.first_s, stream.end_s))
    gaps = int(stream.output_tokens[index]) - 1
    found = {Metric.TTFT: [(first - sent) * 1e3], Metric.E2E: [(end - sent) * 1e3]}
    return found | ({Metric.TPOT: [(end - first) * 1e3 / gaps]} if gaps > 0 else {})


def _waiting(stream: Stream, index: int, now_s: float) -> Waiting:
    first_s = float(stream.first_s[index])
    return Waiting(
        index,
        float(stream.sent_s[index]),
        first_s if first_s <= now_s else None,
        int(stream.output_tokens[index]),
    )


def drawn(rate_req_per_s: float, memory: float, level: float, seed: int) -> tuple[Stream, list[SloTarget]]:
    """Poisson arrivals whose TTFT is lognormal with a first-order autocorrelation of ``memory``; the limit lies exactly
    at the ``level`` share of that distribution, under a target of p99."""
    random = np.random.default_rng([seed, 77])
    count = int(rate_req_per_s * WINDOW_S * 1.5) + 50
    sent_s = np.cumsum(random.exponential(1 / rate_req_per_s, count))
    sent_s = sent_s[sent_s < WINDOW_S]
    noise = random.standard_normal(len(sent_s))
    state = np.empty(len(sent_s))
    state[0] = noise[0]
    for place in range(1, len(sent_s)):
        state[place] = memory * state[place - 1] + np.sqrt(1 - memory**2) * noise[place]
    first_s = sent_s + 0.1 * np.exp(0.5 * state)
    limit_ms = 100 * float(np.exp(0.5 * NormalDist().inv_cdf(level)))
    target = SloTarget(metric=Metric.TTFT, percentile=99, ms=limit_ms)
    return Stream(sent_s, first_s, first_s + 0.2, np.full(len(sent_s), 10)), [target]


def report_drawn(runs: int) -> None:
    """Wrong verdicts where the truth is just at the border of each hypothesis."""
    print(f"TTFT p99, {runs} windows of 60 s each; error rate asked: 5 %")
    print(f"{'rate/s':>7}{'memory':>8}{'within':>8}  {'MET':>7}{'MISSED':>8}{'open':>7}")
    for rate in (10, 50, 200):
        for memory in (0.0, 0.5, 0.9):
            for level in (0.99, 0.985):
                found = Counter(run(*drawn(rate, memory, level, seed))[0] for seed in range(runs))
                shares = [found[one] / runs for one in (Verdict.MET, Verdict.MISSED, Verdict.UNKNOWN)]
                print(f"{rate:>7}{memory:>8}{level:>8.1%}  {shares[0]:>7.1%}{shares[1]:>8.1%}{shares[2]:>7.1%}")


def simulated_stream(result: SimulationResult) -> Stream:
    """A simulated run as the client would see it."""
    return Stream(result.arrival_s, result.first_token_s, result.end_s, result.output_tokens)


SLO = [SloTarget(metric=Metric.TTFT, percentile=99, ms=500), SloTarget(metric=Metric.TPOT, percentile=99, ms=25)]
CASES = {
    "tp=1": Workload(prompt_tokens=1024, output_tokens=128, arrival=Arrival(requests_per_s=10)),
    "tp=4": Workload(
        prompt_tokens={"mean": 1024, "min": 256, "max": 1792},
        output_tokens={"mean": 128, "min": 32, "max": 224},
        arrival=Arrival(requests_per_s=10),
    ),
    "tp=1,dp=4": Workload(
        prompt_tokens=2048, output_tokens=64, arrival=Arrival(process="gamma", burstiness=4, requests_per_s=10)
    ),
}


def report_simulated(runs: int) -> None:
    """Verdicts and their times at shares of the true limit."""
    costs = StepCosts(
        load_model("meta-llama/Llama-3.1-8B"),
        Cluster.from_spec(ClusterSpec(gpu="h100_sxm", nodes=1, gpus_per_node=8)),
    )
    print(f"\nSimulated Llama-3.1-8B on H100, TTFT p99 ≤ 500 ms and TPOT p99 ≤ 25 ms, {runs} windows each")
    print("layout        share   rate/s   true     MET  MISSED  open  mean s  p90 s")
    for text, workload in CASES.items():
        simulator = Simulator(costs, ParallelLayout.parse(text), kv_tokens=400_000, longest_tokens=4096)
        limit = true_limit(simulator, workload)
        for share in (0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.5, 2.0):
            rate = limit * share
            held = long_run(simulator, workload, rate)
            found = [
                run(simulated_stream(simulator.run(offered(workload, rate, WINDOW_S, s))), SLO) for s in range(runs)
            ]
            counts = Counter(verdict for verdict, _ in found)
            shares = [counts[one] / runs for one in (Verdict.MET, Verdict.MISSED, Verdict.UNKNOWN)]
            times = np.array([at_s for _, at_s in found])
            print(
                f"{text:<12}{share:>7}{rate:>9.1f}{held:>7.2%}  {shares[0]:>6.0%}{shares[1]:>8.0%}{shares[2]:>6.0%}"
                f"{times.mean():>8.1f}{np.percentile(times, 90):>7.1f}"
            )


def long_run(simulator: Simulator, workload: Workload, rate: float) -> float:
    """The lowest share of requests within a target, over 40 windows."""
    results = [simulator.run(offered(workload, rate, WINDOW_S, 1000 + seed)) for seed in range(40)]
    within = [[(r.samples_ms(t.metric) <= t.ms).mean() for t in SLO] for r in results]
    return float(np.mean(within, axis=0).min())


def true_limit(simulator: Simulator, workload: Workload) -> float:
    """The highest rate at which every target holds over many windows, to 2 %."""
    low, high = 1.0, 400.0
    while high / low > 1.02:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if long_run(simulator, workload, middle) >= 0.99 else (low, middle)
    return low


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", choices=("drawn", "simulated"))
    chosen = parser.parse_args()
    if chosen.only != "simulated":
        report_drawn(chosen.runs)
    if chosen.only != "drawn":
        report_simulated(chosen.runs)


if __name__ == "__main__":
    main()
