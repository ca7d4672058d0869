"""Drivers of studies that share a cluster, without the studies: they claim trials, and give devices back."""

from __future__ import annotations

from itertools import count

import sqlalchemy as sa

from tests.fakes import FakeLauncher, make_request
from tests.world import SPACE
from tuner.ask.layout import ParallelLayout
from tuner.study.claiming import Claims
from tuner.study.device_leases import Blocked
from tuner.study.lease import new_driver
from tuner.study.orders import Terms
from tuner.study.records import TrialClaim
from tuner.study.schema import DRIVERS
from tuner.trial.devices import Reservation, nodes_of, place
from tuner.trial.results import Purpose, TrialResult, TrialState
from tuner.trial.shared import SharedCluster

RAY, MACHINE = SharedCluster("ray/head", deals=True), SharedCluster("machine/here", deals=False)
CHANGES = {"space": SPACE, "objective": "max_goodput", "load.rates_req_per_s": [8]}


class Party:
    """A study with one driver, as the store sees it."""

    def __init__(self, store, name, launcher, folder, changes=None, priority=0):
        self.store, self.name, self.folder = store, name, folder
        self.request = make_request(CHANGES | {"isolation": "none", "budget.launches": 1000} | (changes or {}))
        store.orders.submit(name, self.request, Terms("", "ray", None, priority))
        self.nodes = nodes_of(self.request.groups)
        self.running, self.numbers = [], count()
        self.launcher = launcher
        self.begin()

    def begin(self):
        self.driver = new_driver()
        self.store.beat(self.name, self.driver, 0.0)
        self.claims = Claims(self.store, self.launcher, self.name, self.request, self.nodes, self.driver)

    def claim(self, devices):
        """Of a layout that no other claim has."""
        layout = ParallelLayout.parse(f"tp={devices},pp=1,dp=1")
        claim = TrialClaim(self.driver, layout, Purpose.EXPLORE, next(self.numbers), 0.0, None, self.folder)
        isolation = self.request.isolation

        def placed(held, others):
            own = [reserve(trial) for trial in held if trial.placement is not None]
            return place(layout, self.nodes, [*own, *others], isolation)

        found = self.claims.claim(claim, placed)
        if found is not None and not isinstance(found, Blocked):
            self.running.append(found)
        return found

    def finish(self):
        trial = self.running.pop(0)
        self.store.finish_trial(
            self.name, TrialResult(trial.number, trial.deployment, TrialState.MEASURED), self.driver
        )

    def die(self):
        """Without a word: its lease has run out."""
        with sa.create_engine(self.store.url).begin() as db:
            db.execute(sa.update(DRIVERS).where(DRIVERS.c.driver == self.driver).values(seen_at=1.0))
        dead, self.running = list(self.running), []
        return dead


def measured(trial):
    return TrialResult(trial.number, trial.deployment, TrialState.MEASURED)


def reserve(trial):
    return Reservation(trial.placement, measuring=False, mine=True)


def launcher(cluster=RAY):
    return FakeLauncher(cluster=cluster, parallel=100)
