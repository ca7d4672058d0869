"""Whole studies that share a cluster: each ends as alone, and pays neither for waiting nor stands in the way."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from tests.device_parties import CHANGES, MACHINE, RAY, Party, launcher
from tests.fakes import copy_of_empty_store
from tests.world import Journal, World
from tuner.ask.request import Isolation
from tuner.errors import Cancelled
from tuner.study.lease import new_driver
from tuner.trial.results import TrialState


class Shared(World):
    """A world whose launchers share a cluster, and count the devices in use at any time."""

    def study(self, name, cluster, changes):
        study, fake, _, store, journal = self.process(CHANGES | changes, name=name, journal=Journal())
        fake.cluster, fake.parallel = cluster, 100
        study._driver = new_driver()
        journal.waiting = lambda proposal, blocked: journal.told.append(blocked.words)
        return study, fake, store, journal


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [RAY, MACHINE], ids=["ray", "machine"])
@pytest.mark.parametrize("isolation", ["node", "none"])
def test_studies_side_by_side_end_as_each_alone_would(tmp_path, monkeypatch, cluster, isolation):
    monkeypatch.setattr("tuner.study.driver.OTHERS_S", 0.02)
    world = Shared(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")
    in_use, most, lock = {}, [], threading.Lock()
    changes = {"cluster.gpus_per_node": 4, "budget.launches": 3, "isolation": isolation}

    def measured(layout, step):
        time.sleep(0.01)
        return 10 * step.rate_req_per_s / layout.devices

    world.ttft_ms = measured

    def counted(fake, name):
        launch = fake.launch

        def launching(order, watch):
            with lock:
                in_use[order.app] = (name, order.layout.devices)
                most.append(list(in_use.values()))
            made = launch(order, watch)
            down = made.teardown

            def teardown():
                down()
                with lock:
                    in_use.pop(order.app, None)

            made.teardown = teardown
            return made

        fake.launch = launching

    made = {name: world.study(name, cluster, changes) for name in ("one", "two", "three")}
    decisions = {}

    def run(name):
        study, fake, _, _ = made[name]
        counted(fake, name)
        decisions[name] = study.run(resume=False, facts={})

    threads = [threading.Thread(target=run, args=(name,)) for name in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert max(sum(devices for _, devices in together) for together in most) <= 4
    if cluster is MACHINE or isolation == "node":
        assert max(len({name for name, _ in together}) for together in most) == 1
    for name, decision in decisions.items():
        assert [trial.state for trial in decision.trials] == [TrialState.MEASURED] * 3
        assert (decision.spent.launches, decision.spent.lost) == (3, 0)
        assert str(decision.winner.layout) == str(decisions["one"].winner.layout), name
    assert made["one"][2].devices.all() == ()


@pytest.mark.slow
def test_time_that_a_study_waits_is_not_spent(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.study.driver.OTHERS_S", 0.01)
    world = Shared(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")
    study, _, store, journal = world.study("s", RAY, {"budget.launches": 1})
    holder = Party(store, "holder", launcher(), tmp_path)
    holder.claim(8)

    def waiting(proposal, blocked):
        journal.told.append(blocked.words)
        world.now_s += 86_400
        holder.finish()

    journal.waiting = waiting
    decision = study.run(resume=False, facts={})
    assert f"waits for {decision.trials[0].layout.devices} devices held by study holder" in journal.told
    assert (decision.spent.minutes, decision.spent.launches) == (0.0, 1)
    assert study._s.request.isolation is Isolation.NODE
    assert replace(decision.trials[0], steps=()).failure is None


@pytest.mark.slow
def test_a_study_whose_quota_is_spent_while_it_waits_launches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.study.driver.OTHERS_S", 0.01)
    world = Shared(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")
    study, _, store, journal = world.study("s", RAY, {"budget.launches": 1})
    holder, held = Party(store, "holder", launcher(), tmp_path), []
    holder.claim(8)
    study._held = lambda: held[0] if held else None

    def waiting(proposal, blocked):
        held.append("the quota is spent")
        holder.finish()

    journal.waiting = waiting
    with pytest.raises(Cancelled, match="the quota is spent"):
        study.run(resume=False, facts={})
    assert store.trials("s") == []


@pytest.mark.slow
def test_a_study_that_may_launch_no_more_stands_in_nobodys_way(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.study.driver.OTHERS_S", 0.01)
    world = Shared(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")
    study, _, store, journal = world.study(
        "s", RAY, {"space": {"tp": [4], "executor": ["mp", "ray"]}, "isolation": "none"}
    )
    holder, held, left = Party(store, "holder", launcher(), tmp_path), [], []
    holder.claim(4)
    study._held = lambda: held[0] if held else None
    journal.waiting = lambda proposal, blocked: held.append("the quota is spent")

    def measured(layout, step):
        until = time.monotonic() + 10
        while time.monotonic() < until and not (held and all(lease.token for lease in store.devices.all())):
            time.sleep(0.01)
        left.append([lease.study for lease in store.devices.all() if lease.token is None])
        return 1.0

    world.ttft_ms = study._meter.ttft_ms = measured
    with pytest.raises(Cancelled, match="the quota is spent"):
        study.run(resume=False, facts={})
    assert held
    assert left[0] == []
