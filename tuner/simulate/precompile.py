"""Compiles the simulator ahead of time, for this machine's processor: ``python -m tuner.simulate.precompile``.

A first run has to wait for that, a good 20 s of processor time; an installation does it once for all. A cache cannot be
shipped: what it holds is for one kind of processor.
"""

from __future__ import annotations

import time

import numpy as np

from tuner.ask.arrivals import OfferedLoad
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec
from tuner.cost.front_path import Path
from tuner.cost.latency import StepCosts
from tuner.simulate.simulator import Simulator


def precompile() -> None:
    """Simulate a few requests; every simulation runs through the same compiled code, whatever it simulates."""
    cluster = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=1))
    costs = StepCosts(load_model("meta-llama/Llama-3.1-8B"), cluster)
    load = OfferedLoad(np.array([0.0, 0.1]), np.array([64, 64]), np.array([4, 4]))
    for interval_ms in (0, 10):  # tokens as bursts, and as messages
        path = Path.of(ParallelLayout(stream_interval_ms=interval_ms), cluster)
        Simulator(costs, ParallelLayout(), kv_tokens=4096, longest_tokens=128, path=path).run(load)


def main() -> None:
    """Compile, and say how long it took."""
    started = time.perf_counter()
    precompile()
    print(f"the simulator is compiled for this machine ({time.perf_counter() - started:.1f} s)")


if __name__ == "__main__":
    main()
