"""One driver of a study on a simulated cluster, as a process that can be killed: ``tests.driver_process URL FOLDER``.

It notes each launch in ``FOLDER/launches`` before it begins, as (process, layout, deployment), and prints the winner.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.fakes import make_request
from tests.in_order import InOrder
from tuner.ask.cluster import Cluster
from tuner.ask.model import load_model
from tuner.ask.space import load_space
from tuner.rehearse.cluster import SimulatedCluster, SimulatedDeployment
from tuner.rehearse.conditions import Conditions
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.rehearse.meter import SimulatedMeter
from tuner.study.observer import Observer
from tuner.study.store import Store
from tuner.study.study import Setting, Study
from tuner.trial.seams import LaunchOrder, Watch

SPACE = {"tp": [1, 2], "dp": [1], "max_num_seqs": [32, 64, 128, 256], "executor": ["mp", "ray"]}
LAUNCHES = 10
CHANGES = {
    "space": SPACE, "objective": "max_goodput", "budget.launches": LAUNCHES, "isolation": "none",
    "load.seconds": 20, "load.rates_req_per_s": [8, 16],
}  # fmt: skip
CONDITIONS = Conditions(pace=0.01, noise=0.02, term_error=0.2)  # a launch takes about a second


class Noted(SimulatedLauncher):
    """Leaves a line for every launch."""

    def __init__(self, world: SimulatedCluster, notes: Path) -> None:
        super().__init__(world)
        self._notes = notes

    @property
    def parallel(self) -> int:
        """So few that the cluster has room for those of another driver."""
        return 2

    def launch(self, order: LaunchOrder, watch: Watch) -> SimulatedDeployment:
        """Note it, then launch."""
        with self._notes.open("a") as notes:  # one short write at the end of the file: atomic
            notes.write(f"{os.getpid()} {order.layout} {order.app}\n")
        return super().launch(order, watch)


def main(url: str, folder: Path) -> None:
    """Begin the study or join it, and work on it to its end."""
    request = make_request(CHANGES)
    cluster = Cluster.from_spec(request.cluster)  # type: ignore[arg-type]
    setting = Setting("s", request, load_model(request.model), cluster, load_space(request.space), folder / "logs")
    world = SimulatedCluster(cluster, CONDITIONS)
    launcher, meter = Noted(world, folder / "launches"), SimulatedMeter(world)
    study = Study(setting, Store(url), launcher, meter, Observer(), strategist=InOrder.of)
    winner = study.run(resume=True, facts={}).winner
    print(winner and winner.layout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
