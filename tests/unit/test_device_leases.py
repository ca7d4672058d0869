"""Studies that share a cluster: together they never hold more devices than there are, and none waits for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.device_parties import MACHINE, RAY, Party, launcher, measured
from tests.fakes import FakeLauncher, copy_of_empty_store, make_request
from tuner.errors import LeaseLost
from tuner.study.device_leases import Blocked
from tuner.study.store import Store
from tuner.trial.devices import nodes_of
from tuner.trial.shared import ForeignHold, node_names, reserved


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


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


@pytest.mark.slow
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


class Stubborn(FakeLauncher):
    """Cannot remove what it is asked to, as long as the applications are ``stuck``."""

    stuck: tuple[str, ...] = ()

    def remove_orphan(self, app):
        if app in self.stuck:
            raise ConnectionError("the cluster does not answer")
        return super().remove_orphan(app)


def test_what_cannot_be_removed_keeps_its_devices_and_ends_nobody(store, tmp_path):
    stubborn = Stubborn(cluster=RAY, parallel=100)
    one, two, other = (Party(store, name, stubborn, tmp_path) for name in ("one", "two", "other"))
    left, gone = one.claim(4), two.claim(2)
    stubborn.running |= {left.app, gone.app}
    stubborn.stuck = (left.app,)
    one.die()
    two.die()
    blocked = other.claim(8)
    words = f"{left.app}, which study one left, cannot be removed: ConnectionError: the cluster does not answer"
    assert blocked.words == f"waits for 8 devices: {words}"
    assert stubborn.running == {left.app}  # of what two left nothing stays
    assert other.claim(4).placement.devices == 4  # there is room beside it
    assert sorted((lease.study, lease.devices) for lease in store.devices.all()) == [("other", 4), ("other", 4)]
    stubborn.stuck = ()
    assert other.claim(4).placement.devices == 4
    assert stubborn.running == set()


def test_what_could_not_be_removed_is_left_to_the_next(store, tmp_path):
    stubborn = Stubborn(cluster=RAY, parallel=100)
    one, other, third = (Party(store, name, stubborn, tmp_path) for name in ("one", "other", "third"))
    stubborn.stuck = (one.claim(8).app,)
    one.die()
    assert isinstance(other.claim(8), Blocked)
    other.die()
    assert "cannot be removed" in third.claim(8).words
    stubborn.stuck = ()
    assert third.claim(8).placement.devices == 8


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
