"""The simulated site keeps the contract that real ones keep."""

from __future__ import annotations

import pytest

from tests.fakes import make_request
from tests.rollouts import a_live
from tests.simulated_site import SimulatedPlace, SimulatedSite
from tests.site_contract import AskedSiteContract, SiteBench


class SimulatedBench(SiteBench):
    def __init__(self):
        self.place, self.request = SimulatedPlace(devices=2, broken=set()), make_request()
        self.site = SimulatedSite(self.place)

    def again(self):
        return SimulatedSite(self.place)

    def live(self, name, *, broken=False):
        self.place.broken |= {name} if broken else set()
        return a_live(name)

    def eventually(self, holds):
        for _ in range(100):
            if holds():
                return True
            self.place.now_s += 1
        return False

    def kill(self, name):
        self.place.kill(name)

    def meddle(self, name):
        self.place.things[name].meddled = True

    def hold(self, name):
        self.place.things[name].in_flight = 1
        return lambda: setattr(self.place.things[name], "in_flight", 0)


@pytest.fixture
def bench():
    return SimulatedBench()


class TestSimulatedSite(AskedSiteContract):
    """Nothing of its own."""
