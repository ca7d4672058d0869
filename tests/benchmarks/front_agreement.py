"""The path in closed form against the simulated one, before an engine that is nothing but steps.

    python -m tests.benchmarks.front_agreement

How far the mean TTFT of one is from the other's, as a factor, over rates, intervals, loops and cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from tests.fit.front_rows import engine_run
from tuner.ask.front import Front
from tuner.ask.front_fits import front_fit
from tuner.cost.front_path import Path
from tuner.cost.front_stream import first_ms
from tuner.simulate.front import through
from tuner.simulate.result import SimulationResult

FRONTS = (("ray_serve", 0, 1), ("ray_serve", 0, 2), ("ray_serve", 50, 1), ("ray_haproxy", 20, 2), ("ray_direct", 0, 1))
CORES = ((None, 0.0), (2.0, 0.0), (2.0, 2.0), (4.0, 1.0))  # and what engines take of them
STEPS = ((20.0, 64), (8.0, 128))  # ms, tokens
SHARES = (0.2, 0.5, 0.7, 0.85)  # of what saturates the path


def path(front: tuple[str, int, int], cores: tuple[float | None, float], engines: int = 1) -> Path:
    """One of a kind, with so many ingress replicas."""
    name, interval_ms, ingress = front
    return Path(front_fit(name), Front(name, interval_ms, ingress, 1, engines, "power_of_two"), *cores)


def simulated(
    one: Path, rate: float, step: tuple[float, int], seconds: float, seed: int
) -> tuple[SimulationResult, SimulationResult]:
    """(The engine alone, the same behind the path) under so many arrivals, uniformly at random."""
    count = max(int(rate * seconds), 60)
    arrival_s = np.sort(np.random.default_rng(seed).uniform(0, count / rate, count))
    own = engine_run(arrival_s, step[1], step[0])
    return own, through(one, own)


def apart(one: Path, rate: float, step: tuple[float, int], seconds: float, seeds: int) -> float:
    """Mean TTFT in closed form over the simulated one."""
    seen_ms, own_ms = np.mean(
        [[np.mean(run.ttft_ms) for run in simulated(one, rate, step, seconds, seed)[::-1]] for seed in range(seeds)],
        axis=0,
    )
    load = one.load(rate, step[1], step[0])
    held_ms = first_ms(step[0], own_ms - step[0], one.front.interval_ms)
    return float((held_ms + load.idle_ms + load.wait_ms) / seen_ms)


def grid() -> Iterator[tuple[Path, tuple[float, int]]]:
    """Paths and engines."""
    for front, cores, step in product(FRONTS, CORES, STEPS):
        yield path(front, cores), step


def main() -> None:
    """Print medians and the worst by share of saturation."""
    found: dict[float, list[float]] = {share: [] for share in SHARES}
    for one, step in grid():
        most = one.saturation(step[1], step[0])[1]
        for share in SHARES:
            found[share].append(abs(np.log(apart(one, share * most, step, 30.0, 4))))
    for share, values in [*found.items(), ("all", [one for each in found.values() for one in each])]:
        middle, high, worst = np.exp(np.quantile(values, [0.5, 0.9, 1.0]))
        print(f"{share} of saturation: median factor {middle:.2f}, nine of ten {high:.2f}, worst {worst:.2f}")


if __name__ == "__main__":
    main()
