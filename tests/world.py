"""A scripted cluster that outlives the processes of a study, and what such a study tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fakes import FakeLauncher, FakeMeter, make_request
from tests.in_order import InOrder
from tuner.ask.cluster import Cluster
from tuner.ask.model import load_model
from tuner.ask.space import load_space
from tuner.errors import FailureReason, LaunchFailed
from tuner.search.belief_strategy import BeliefStrategy
from tuner.study.lease import new_driver
from tuner.study.observer import Observer
from tuner.study.store import Store
from tuner.study.study import Setting, Study

SPACE = {"tp": [1, 2], "dp": [1, 2], "executor": ["mp", "ray"]}
TP1, TP1_RAY = "tp=1,pp=1,dp=1", "tp=1,pp=1,dp=1,executor=ray"
TP2, TP1_DP2, TP2_DP2 = "tp=2,pp=1,dp=1", "tp=1,pp=1,dp=2", "tp=2,pp=1,dp=2"
CRASH = LaunchFailed(FailureReason.ENGINE_CRASHED, "exit code 1", ("CUDA error",))


@dataclass
class Journal(Observer):
    """What a study told, as words."""

    told: list[str] = field(default_factory=list)

    def planned(self, plan):
        self.told.append("planned")

    def trial_started(self, number, launches, proposal):
        self.told.append(f"started {number} of {launches}")

    def launching(self, number, text):
        self.told.append(f"launching {number}: {text}")

    def ready(self, number, deployment):
        self.told.append(f"ready {number}")

    def step_started(self, number, step, steps):
        self.told.append(f"step {step.index} of {steps}")

    def step_measured(self, number, result):
        self.told.append(f"measured {result.step.index}")

    def trial_finished(self, result):
        self.told.append(f"finished {result.number}: {result.failure or result.state}")

    def remembered(self, studies):
        self.told.append(f"remembers {', '.join(studies)}")

    def resumed(self, finished, orphans):
        self.told.append(f"resumed {len(finished)} finished, {len(orphans)} orphans")


@dataclass
class World:
    """A cluster and a store that outlive the processes that use them, and how fast each layout is on that cluster."""

    url: str
    folder: object
    ttft_ms: object = staticmethod(lambda layout, step: 10 * step.rate_req_per_s / layout.devices)
    failures: dict = field(default_factory=dict)
    running: set = field(default_factory=set)
    now_s: float = 0.0
    processes: int = 0
    believing: bool = False  # else layouts are launched in the order of the ranking, which a test can tell beforehand

    def process(self, changes=None, name="s", cancel=None, journal=None):
        """A study as one process runs it: (study, launcher, meter, store, journal)."""
        request = make_request({"space": SPACE, "objective": "max_goodput", **(changes or {})})
        cluster = Cluster.from_spec(request.cluster)
        setting = Setting(name, request, load_model(request.model), cluster, load_space(request.space), self.folder)
        store, journal = Store(self.url), journal or Journal()
        launcher, meter = FakeLauncher(self.failures, self.running), FakeMeter(self.ttft_ms)
        self.processes += 1
        driver = new_driver().rpartition("/")[0] + f"/-{self.processes}"  # to all others, a process that has ended
        strategist = BeliefStrategy.of if self.believing else InOrder.of
        study = Study(
            setting,
            store,
            launcher,
            meter,
            journal,
            clock=lambda: self.now_s,
            driver=driver,
            cancel=cancel,
            strategist=strategist,
        )
        return study, launcher, meter, store, journal
