"""Studies that share a cluster: together they never hold more devices than there are, and none waits for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import FakeLauncher, copy_of_empty_store, make_request
from tests.world import SPACE, Journal, World
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Isolation
from tuner.errors import Cancelled, LeaseLost
from tuner.study.claiming import Claims
from tuner.study.device_leases import Blocked
from tuner.study.lease import new_driver
from tuner.study.orders import Terms
from tuner.study.records import TrialClaim
from tuner.study.schema import DRIVERS
from tuner.study.store import Store
from tuner.trial.devices import Reservation, nodes_of, place
from tuner.trial.results import Purpose, TrialResult, TrialState
from tuner.trial.shared import ForeignHold, SharedCluster, node_names, reserved

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


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


def launcher(cluster=RAY):
    return FakeLauncher(cluster=cluster, parallel=100)


def test_the_later_trial_waits_for_what_the_other_study_holds(store, tmp_path):
    one, other = (Party(store, name, launcher(), tmp_path) for name in ("one", "other"))
    assert one.claim(4).placement.devices == 4
    assert other.claim(4).placement.devices == 4
    blocked = other.claim(2)
    assert blocked.words == "waits for 2 devices held by study one"
    assert [trial.number for trial in store.snapshot("other").open] == [0]
    one.finish()
    assert other.claim(2).placement.devices == 2
    assert [(lease.study, lease.devices) for lease in store.devices.all()] == [("other", 4), ("other", 2)]


def test_of_many_that_ask_at_once_as_many_get_devices_as_there_are(store, tmp_path):
    parties = [Party(Store(store.url), f"s{number}", launcher(), tmp_path) for number in range(7)]
    at_once = threading.Barrier(len(parties))

    def claim(party):
        at_once.wait(30)
        return party.claim(2)

    with ThreadPoolExecutor(len(parties)) as threads:
        found = list(threads.map(claim, parties))
    assert sum(isinstance(one, Blocked) for one in found) == 3
    held = [lease for lease in store.devices.all() if lease.token is not None]
    assert sum(lease.devices for lease in held) == 8
    assert len({lease.token for lease in held}) == 4
    for party in parties:
        party.store.close()


def test_who_waits_for_much_is_not_passed_by_those_who_want_little(store, tmp_path):
    one, big, small = (Party(store, name, launcher(), tmp_path) for name in ("one", "big", "small"))
    one.claim(4)
    assert isinstance(big.claim(8), Blocked)
    assert small.claim(1).words == "waits for 1 device, after study big"
    one.finish()
    assert isinstance(small.claim(1), Blocked)
    big.claim(8)
    assert small.claim(1).words == "waits for 1 device held by study big"
    big.finish()
    assert small.claim(1).placement.devices == 1


def test_the_more_urgent_study_is_first_in_line(store, tmp_path):
    one, late = (Party(store, name, launcher(), tmp_path) for name in ("one", "late"))
    urgent = Party(store, "urgent", launcher(), tmp_path, priority=5)
    one.claim(8)
    assert isinstance(late.claim(8), Blocked)
    assert isinstance(urgent.claim(8), Blocked)
    one.finish()
    assert late.claim(8).before == ("urgent",)
    assert urgent.claim(8).placement.devices == 8


def test_who_leaves_or_dies_in_line_keeps_nobody(store, tmp_path):
    one, leaves, dies, last = (Party(store, name, launcher(), tmp_path) for name in ("one", "leaves", "dies", "last"))
    one.claim(8)
    assert isinstance(leaves.claim(8), Blocked)
    assert isinstance(dies.claim(8), Blocked)
    one.finish()
    assert last.claim(8).before == ("leaves", "dies")
    store.leave("leaves", leaves.driver)
    dies.die()
    assert last.claim(8).placement.devices == 8


def test_what_a_dead_driver_left_is_removed_before_its_devices_are_given_on(store, tmp_path):
    one, other = (Party(store, name, launcher(), tmp_path) for name in ("one", "other"))
    trial = one.claim(8)
    one.claims.require(trial)
    one.die()
    other.launcher.running.add(trial.app)
    assert other.claim(8).placement.devices == 8
    assert other.launcher.removed == [trial.app]
    with pytest.raises(LeaseLost):  # it wakes up: it may launch nothing, and say nothing
        one.claims.require(trial)
    with pytest.raises(LeaseLost):
        store.finish_trial("one", measured(trial), one.driver)
    store.beat("one", one.driver, 0.0)
    assert [left.app for left in store.take_over("one", one.driver, lambda driver, s: not driver)] == [trial.app]


HOLDER = """
import sys, time
from pathlib import Path
from tests.unit.test_device_leases import Party, launcher
from tuner.study.store import Store
party = Party(Store(sys.argv[1]), "killed", launcher(), Path(sys.argv[2]))
print(party.claim(8).app, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_what_a_killed_process_held_is_free_at_once(store, tmp_path):
    words = [sys.executable, "-c", HOLDER, store.url, str(tmp_path)]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    app = holder.stdout.readline().strip()
    other = Party(store, "other", launcher(), tmp_path)
    assert other.claim(1).hold == ("killed",)
    holder.kill()
    holder.wait()
    assert other.claim(8).placement.devices == 8
    assert other.launcher.removed == [app]


def test_of_two_that_clear_up_one_does(store, tmp_path):
    one, other = (Party(store, name, launcher(), tmp_path) for name in ("one", "other"))
    one.claim(8)
    one.die()
    (lease,) = store.devices.all()
    token = store.devices.seize(lease, "other", other.driver)
    assert token is not None
    assert store.devices.seize(lease, "third", "third") is None
    assert isinstance(other.claim(8), Blocked)  # until nothing is left there
    store.devices.free(lease, token)
    assert other.claim(8).placement.devices == 8


def test_processes_that_each_see_all_gpus_of_a_machine_do_not_share_it(store, tmp_path):
    one, other = (Party(store, name, launcher(MACHINE), tmp_path) for name in ("one", "other"))
    one.claim(1)
    assert isinstance(other.claim(1), Blocked)
    one.finish()
    assert other.claim(1) is not None


def test_a_study_that_wants_its_node_for_itself_gets_it(store, tmp_path):
    two = {"cluster.nodes": 2}
    alone = Party(store, "alone", launcher(), tmp_path, two | {"isolation": "node"})
    other = Party(store, "other", launcher(), tmp_path, two)
    assert alone.claim(1).placement.held == ((0, 1),)
    assert other.claim(1).placement.held == ((1, 1),)
    assert isinstance(alone.claim(8), Blocked)


def test_a_large_node_has_room_beside_a_study_that_plans_for_a_part_of_it(store, tmp_path):
    whole = Party(store, "whole", launcher(), tmp_path)
    part = Party(store, "part", launcher(), tmp_path, {"cluster.gpus_per_node": 4})
    assert whole.claim(4)
    assert part.claim(4)
    assert isinstance(whole.claim(1), Blocked)
    whole.finish()
    assert whole.claim(2) is not None


def test_other_gpus_are_no_ones_to_wait_for():
    h100, a100 = make_request().groups[0], make_request({"cluster.gpu": "a100_sxm"}).groups[0]
    names = node_names((h100, a100), RAY)
    assert names == ("h100_sxm#0", "a100_sxm#0")
    held = [ForeignHold((("a100_sxm#0", 3, 8),), alone=False)]
    assert [r.placement.held for r in reserved(held, nodes_of((h100, a100)), names)] == [((1, 3),)]
    assert reserved(held, nodes_of((h100,)), node_names((h100,), RAY)) == []


DEED = st.sampled_from(["claim", "claim", "finish", "die"])
deeds = st.lists(st.tuples(st.integers(0, 2), DEED, st.sampled_from([1, 2, 4, 8])), max_size=25)


@pytest.mark.slow
@settings(max_examples=40)
@given(deeds=deeds, nodes=st.integers(1, 2), urgent=st.integers(-1, 1))
def test_three_drivers_hold_what_a_reference_that_counts_devices_gives_them(tmp_path_factory, deeds, nodes, urgent):
    folder = tmp_path_factory.mktemp("shared")
    store = Store(copy_of_empty_store(folder / "store.db"))
    priorities = (0, 0, urgent)
    parties = [Party(store, f"s{i}", launcher(), folder, {"cluster.nodes": nodes}, priorities[i]) for i in range(3)]
    line, ticks = {}, count()  # the reference: who waits, since when, for how many
    for who, deed, devices in deeds:
        party = parties[who]
        if deed == "finish" and party.running:
            party.finish()
        elif deed == "die":
            dead = party.die()
            line.pop(who, None)
            party.begin()
            for trial in store.take_over(party.name, party.driver, lambda driver, s, own=party.driver: driver != own):
                party.launcher.remove_orphan(trial.app)
                store.forget_trial(party.name, trial.number, party.driver, 0.0)
            assert {trial.app for trial in dead} <= set(party.launcher.removed)
        elif deed == "claim":
            free = [8] * nodes
            for trial in (trial for one in parties for trial in one.running):
                for node, held in trial.placement.held:
                    free[node] -= held
            own = [8] * nodes
            for trial in party.running:
                for node, held in trial.placement.held:
                    own[node] -= held
            since = line.get(who, next(ticks))
            ahead = [i for i, at in line.items() if i != who and (-priorities[i], at) < (-priorities[who], since)]
            found = party.claim(devices)
            if max(own) < devices:
                assert found is None  # its own trials leave no room: it is not in line for that
            elif max(free) < devices or ahead:
                assert isinstance(found, Blocked)
                line[who] = since
            else:
                assert found.placement.devices == devices
                line.pop(who, None)
        held = [0] * nodes
        for trial in (trial for one in parties for trial in one.running):
            for node, number in trial.placement.held:
                held[node] += number
        assert max(held) <= 8
        assert sum(held) == sum(lease.devices for lease in store.devices.all() if lease.token is not None)
    store.close()


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
