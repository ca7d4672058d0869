"""A controller that is killed before and behind every single write comes to the same."""

from __future__ import annotations

import pytest

from deploy.controller.names import Key
from tests.controller_app import Killed, KilledAt, World
from tests.fakes import copy_of_empty_store
from tests.layout_requests import NAMESPACE, other_slo
from tests.service_app import work
from tuner.app.controller.kube import LAYOUT_REQUEST, RAY_SERVICE
from tuner.study.lifecycle import StudyState
from tuner.study.store import Store

pytestmark = pytest.mark.slow  # studies of a simulated cluster
WRITES = 13  # of a controller in ``run``


@pytest.fixture
def world(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield World(store, tmp_path)
    store.close()


def run(world: World, key: Key, at: float, before: bool) -> int:
    """All that happens to one LayoutRequest, its controller killed at one of the writes; how many writes there were."""
    dying = KilledAt(world.kube, at, before)

    def look() -> None:
        try:
            world.look(key, dying, dying.dying)
        except Killed:
            world.look_again(key)

    look()
    world.edit(key, {"request": other_slo()})
    look()
    work(world.store, world.folder)
    look()
    world.kube.delete(RAY_SERVICE, NAMESPACE, key.name)
    look()
    return dying.writes


def test_undisturbed_it_makes_these_writes(world):
    assert run(world, world.ask(), -1, before=True) == WRITES


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("at", range(1, WRITES + 1))
def test_killed_at_any_write_it_comes_to_the_same(world, at, before):
    key = world.ask()
    run(world, key, at, before)
    assert world.settle(key) == "RolledOut"
    states = sorted(world.store.listing.state(name) for name in world.store.study_names())
    assert states == [StudyState.CANCELLED, StudyState.DECIDED]
    assert len(world.kube.list(RAY_SERVICE, NAMESPACE)[0]) == 1
    told = world.events()
    assert told.count(("Normal", "Winner")) == 1
    assert told.count(("Normal", "Queued")) <= 2
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look_again(key)
    assert world.kube.list(RAY_SERVICE, NAMESPACE)[0] == []
