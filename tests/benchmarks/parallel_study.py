"""How much of a cluster stands idle while a study runs trials side by side, on a simulated cluster of four nodes.

    python -m tests.benchmarks.parallel_study [--out FILE]

Idle is 1 − held GPU-seconds ÷ (GPUs × time), over the whole study and up to the last launch: what comes after that is
the tail, in which nothing is left to launch. A GPU is held from a trial's order to its teardown, so that a wait for a
neighbour's start (isolation ``node``) is not idle: compare the minutes of the two rows for what isolation costs. A
simulated second lasts ``PACE`` real ones; what the driver itself needs between trials counts as idle, many times dearer
than it would be on a real cluster.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.in_order import InOrder
from tuner.ask.cluster import Cluster
from tuner.ask.model import load_model
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import parse_request
from tuner.ask.space import load_space
from tuner.rehearse.cluster import SimulatedCluster
from tuner.rehearse.conditions import Conditions
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.rehearse.meter import SimulatedMeter
from tuner.search.proposal import Proposal
from tuner.study.observer import Observer
from tuner.study.store import Store
from tuner.study.study import Setting, Study
from tuner.trial.results import TrialResult

PACE = 0.02
LAUNCHES = 48
NODES, GPUS_PER_NODE = 4, 8
SPACE = {
    "tp": [1, 2, 4, 8], "pp": [1, 2], "dp": [1, 2, 4], "executor": ["mp"],
    "max_num_batched_tokens": [2048, 8192], "max_num_seqs": [64, 256],
}  # fmt: skip


@dataclass
class Watch(Observer):
    """Notes when the last trial was launched, and how many ran side by side."""

    world: SimulatedCluster
    last_s: float = 0.0
    busy_then: float = 0.0
    running: int = 0
    most: int = 0
    launches: int = 0

    def trial_started(self, number: int, launches: int, proposal: Proposal) -> None:
        """One more."""
        self.last_s, self.busy_then = self.world.clock_s, self.world.busy_device_s
        self.running += 1
        self.launches += 1
        self.most = max(self.most, self.running)

    def trial_finished(self, result: TrialResult) -> None:
        """One less."""
        self.running -= 1


def request_of(isolation: str) -> TuneRequest:
    """A 70B model on 32 GPUs, every layout worth a launch."""
    return parse_request(
        {
            "model": "meta-llama/Llama-3.1-70B",
            "cluster": {"gpu": "h100_sxm", "nodes": NODES, "gpus_per_node": GPUS_PER_NODE},
            "workload": {
                "prompt_tokens": {"mean": 512},
                "output_tokens": {"mean": 64},
                "arrival": {"process": "poisson", "requests_per_s": 4},
            },
            "slo": [{"metric": "ttft", "percentile": 95, "ms": 2000}, {"metric": "tpot", "percentile": 95, "ms": 100}],
            "objective": "max_goodput",
            "space": SPACE,
            "isolation": isolation,
            "load": {"rates_req_per_s": [2, 4], "seconds": 60, "warmup_seconds": 10},
            "budget": {"launches": LAUNCHES, "minutes": 600},
        }
    )


def run(isolation: str) -> str:
    """One study; a row of the table."""
    request = request_of(isolation)
    cluster = Cluster.from_spec(request.groups[0])
    world = SimulatedCluster(cluster, Conditions(pace=PACE, noise=0.02, term_error=0.1))
    watch = Watch(world)
    with tempfile.TemporaryDirectory(prefix="parlay-") as scratch:
        setting = Setting(
            "s", request, load_model(request.model), cluster, load_space(request.space), Path(scratch) / "logs"
        )
        store = Store(f"sqlite:///{scratch}/s.db")
        started = world.clock_s
        study = Study(setting, store, SimulatedLauncher(world), SimulatedMeter(world), watch, strategist=InOrder.of)
        study.run(resume=False, facts={})
        ended = world.clock_s
        alone_s = sum(t.seconds or 0.0 for t in store.trials("s")) / PACE
        store.close()
    whole = 1 - world.busy_device_s / (cluster.devices * (ended - started))
    body = 1 - watch.busy_then / (cluster.devices * (watch.last_s - started))
    cells = (isolation, watch.launches, watch.most, f"{body:.1%}", f"{whole:.1%}", f"{(ended - started) / 60:.0f}")
    return f"| {' | '.join(map(str, cells))} | {alone_s / (ended - started):.1f} × |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, {time.strftime('%F', time.gmtime())}"
    heads = ("isolation", "launches", "at most side by side", "idle until the last launch", "idle in all", "minutes")
    rows = [
        f"Simulated cluster, {NODES} nodes of {GPUS_PER_NODE} H100; {machine}",
        "",
        f"| {' | '.join(heads)} | than one by one |",
        "|---" * (len(heads) + 1) + "|",
        run("node"),
        run("none"),
    ]
    print("\n".join(rows))
    if options.out:
        title = "# A study with trials side by side\n\n`python -m tests.benchmarks.parallel_study`\n\n"
        options.out.write_text(title + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
