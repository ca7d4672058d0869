"""Do announced intervals hold the long-run value? ``python -m tests.benchmarks.coverage``.

Simulated windows of 30 s, which begin as those of trials do, on an idle engine, are folded into figures as measured
ones are. The long-run value of the same layout at the same rate comes from an hour of it without its first minutes.
An interval counts where one was announced; ``none`` says how many were not, for want of samples. ``ended`` are the same
windows cut where ``tuner.stats.sequential`` would have ended them early.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.measure.summary import Interval, attainment_interval, latency
from tests.benchmarks.verdicts import CASES, SLO, run, simulated_stream
from tuner.ask.arrivals import offered
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, Metric, Workload
from tuner.cost.latency import StepCosts
from tuner.simulate import SimulationResult, Simulator
from tuner.stats.intervals import percentile

WINDOW_S, LONG_S, SETTLED_S = 30.0, 3600.0, 300.0
FIRST_SEED = 1000  # those before were looked at when the intervals were made
RATES = {"tp=1": (6.0, 12.0, 18.0), "tp=4": (25.0, 40.0, 50.0), "tp=1,dp=4": (12.0, 25.0, 32.0)}
METRICS, LEVELS = (Metric.TTFT, Metric.TPOT, Metric.E2E), (50.0, 90.0, 95.0, 99.0)
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """One interval: of what, how the window ended, and whether it holds the long-run value; None where none was
    announced."""

    figure: str
    ended: bool
    holds: bool | None


def intervals(result: SimulationResult, chosen: Flags) -> dict[str, Interval | None]:
    """Those that would be announced of the chosen requests."""
    found: dict[str, Interval | None] = {}
    for metric in METRICS:
        seen = latency(result.samples_ms(metric)[chosen])
        found |= {f"{metric.value} p{level:g}": seen.interval_ms[level] for level in LEVELS}
    return found | {"attainment": attainment_interval([bool(one) for one in result.met(SLO)[chosen]])}


def truth(result: SimulationResult) -> dict[str, float]:
    """The long-run values."""
    late = result.arrival_s >= SETTLED_S
    found = {
        f"{metric.value} p{level:g}": percentile(result.samples_ms(metric)[late], level) or 0.0
        for metric in METRICS
        for level in LEVELS
    }
    return found | {"attainment": float(result.met(SLO)[late].mean())}


def windows(simulator: Simulator, workload: Workload, rate: float, seeds: range) -> Iterator[Seen]:
    """All intervals of so many windows at one rate."""
    held = truth(simulator.run(offered(workload, rate, LONG_S, 99_999)))
    for seed in seeds:
        result = simulator.run(offered(workload, rate, WINDOW_S, seed))
        _, until_s = run(simulated_stream(result), SLO, WINDOW_S)
        for ended, chosen in ((False, result.arrival_s >= 0), (True, result.arrival_s < until_s)):
            if ended and until_s >= WINDOW_S:
                continue
            for figure, found in intervals(result, chosen).items():
                holds = None if found is None else found[0] <= held[figure] <= found[1]
                yield Seen(figure, ended, holds)


def main() -> None:
    """Print the share of intervals that hold, by rate and by figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=504)
    count = parser.parse_args().windows // sum(len(rates) for rates in RATES.values())
    costs = StepCosts(
        load_model("meta-llama/Llama-3.1-8B"),
        Cluster.from_spec(ClusterSpec(gpu="h100_sxm", nodes=1, gpus_per_node=8)),
    )
    by_figure: dict[str, list[Seen]] = defaultdict(list)
    print("| layout | req/s | whole windows | ended early | ended |\n|---|---|---|---|---|")
    for text, rates in RATES.items():
        simulator = Simulator(costs, ParallelLayout.parse(text), kv_tokens=400_000, longest_tokens=4096)
        for rate in rates:
            seen = list(windows(simulator, CASES[text], rate, range(FIRST_SEED, FIRST_SEED + count)))
            for one in seen:
                by_figure[one.figure].append(one)
            short = sum(one.ended for one in seen) * count // sum(not one.ended for one in seen)
            print(
                f"| {text} | {rate:g} | {_share(seen, False)} | {_share(seen, True)} | {short} of {count} |", flush=True
            )
    print("\n| figure | whole windows | none | ended early | none |\n|---|---|---|---|---|")
    everything = [one for seen in by_figure.values() for one in seen]
    for figure, seen in [*by_figure.items(), ("all", everything)]:
        cells = (f"{_share(seen, ended)} | {_none(seen, ended)}" for ended in (False, True))
        print(f"| {figure} | {' | '.join(cells)} |")


def _share(seen: list[Seen], ended: bool) -> str:
    held = [one.holds for one in seen if one.ended is ended and one.holds is not None]
    return f"{sum(held) / len(held):.1%}" if held else "–"


def _none(seen: list[Seen], ended: bool) -> str:
    of = [one for one in seen if one.ended is ended]
    return f"{sum(one.holds is None for one in of) / len(of):.0%}" if of else "–"


if __name__ == "__main__":
    main()
