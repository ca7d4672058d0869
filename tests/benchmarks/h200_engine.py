"""The simulator beside windows of one real engine, plain and under Ray Serve LLM: Llama-3.1-8B on one H200, vLLM 0.26.

    python -m tests.benchmarks.h200_engine --data DIR

DIR holds engine.csv: windows as ``parlay measure`` reports them, under a closed loop or Poisson arrivals, and which
``path`` they took; the path's figures are those of ``tuner/ask/fronts``. Nothing was fitted on the site. An open window
is simulated with several seeds and their mean is shown, since ten seconds of Poisson arrivals are few; measured /
simulated in ms, and the simulation's error in percent.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.ask.arrivals import ClosedLoad, OfferedLoad, offered
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.profile import HardwareProfile, load_profile
from tuner.ask.request import Arrival, Workload
from tuner.cost.front_path import Path as FrontPath
from tuner.cost.latency import StepCosts
from tuner.simulate import Simulator

KV_TOKENS = 919_824  # as that engine reported
SEEDS = 12
FIGURES = ("ttft_mean_ms", "ttft_p50_ms", "ttft_p99_ms", "tpot_mean_ms", "tpot_p50_ms", "tpot_p99_ms")


def read_windows(path: Path) -> list[dict[str, str]]:
    """Rows of windows."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def simulated(row: Mapping[str, str], profile: HardwareProfile, seeds: int = SEEDS) -> NDArray[np.float64]:
    """The figures of one window, in the order of ``FIGURES``."""
    prompt, output = int(row["prompt_tokens"]), int(row["output_tokens"])
    ray = row["path"] == "ray serve llm"
    layout = ParallelLayout(
        max_num_batched_tokens=int(row["max_num_batched_tokens"]),
        max_num_seqs=int(row["max_num_seqs"]),
        front="ray_serve" if ray else "vllm",
        stream_interval_ms=int(row["stream_batching_interval_ms"] or 0),
    )
    cluster = Cluster(profile, 1, 1, profile.fabric)
    costs = StepCosts(load_model("meta-llama/Llama-3.1-8B"), cluster, "0.26")
    path = FrontPath.of(layout, cluster) if ray else None
    simulator = Simulator(costs, layout, kv_tokens=KV_TOKENS, longest_tokens=prompt + output, path=path)
    return np.mean([_figures(simulator, load) for load in _loads(row, prompt, output, seeds)], axis=0)


def _loads(row: Mapping[str, str], prompt: int, output: int, seeds: int) -> list[ClosedLoad | OfferedLoad]:
    if row["users"]:
        count = int(row["requests"])
        return [ClosedLoad(int(row["users"]), np.full(count, prompt), np.full(count, output))]
    rate, seconds = float(row["offered_req_per_s"]), float(row["seconds"])
    workload = Workload(prompt_tokens=prompt, output_tokens=output, arrival=Arrival(requests_per_s=rate))
    return [offered(workload, rate, seconds, seed) for seed in range(seeds)]


def _figures(simulator: Simulator, load: ClosedLoad | OfferedLoad) -> list[float]:
    run = simulator.run(load)
    ttft = 1e3 * (run.first_token_s - run.arrival_s)
    tpot = 1e3 * (run.end_s - run.first_token_s) / (run.output_tokens - 1)
    return [float(v) for t in (ttft, tpot) for v in (np.mean(t), np.percentile(t, 50), np.percentile(t, 99))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[1] / "data" / "h200")
    given = parser.parse_args()
    print(f"{'':16} " + " ".join(f"{name.removesuffix('_ms'):>22}" for name in FIGURES))
    for row in read_windows(given.data / "engine.csv"):
        measured = np.array([float(row[name]) for name in FIGURES])
        found = simulated(row, load_profile("h200_sxm"))
        cells = (f"{m:6.1f} / {s:5.1f} ({100 * (s / m - 1):+5.1f} %)" for m, s in zip(measured, found, strict=True))
        print(f"{row['id']:16} " + " ".join(cells))


if __name__ == "__main__":
    main()
