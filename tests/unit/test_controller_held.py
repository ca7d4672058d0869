"""Studies that a quota paused, and that somebody deleted: what becomes of their LayoutRequests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.controller_app import RUNS, World
from tests.fakes import copy_of_empty_store, document
from tests.layout_requests import SMALL, condition
from tests.study_clusters import TRIALS, message
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Wish
from tuner.study.quotas import Quota
from tuner.study.store import Store

OTHER = {"request": document({**SMALL, "slo": [{"metric": "ttft", "percentile": 99, "ms": 400}]})}


@pytest.fixture
def world(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield World(store, tmp_path, runs=replace(RUNS, trials=TRIALS))
    store.close()


def test_a_study_that_a_quota_paused_goes_on_when_it_is_free(world):
    key = world.ask()
    world.look(key)
    name, owner = world.request(key)["status"]["study"], "kubernetes/serving"
    world.store.quotas.set(Quota(owner, 0.0, 30.0, None))
    order = world.store.orders.claim("elsewhere/1/2/3", ("simulated",), lambda *_: False)
    world.store.orders.release(name, "elsewhere/1/2/3", StudyState.PAUSED, lambda *_: True, "the quota: all is spent")
    assert order is not None
    assert world.look(key) == "Paused"
    assert condition(world.request(key), "Studying") == ("False", "QuotaSpent")
    assert "goes on by itself" in message(world.request(key), "Studying")
    assert world.again_s == 60.0
    world.store.quotas.set(Quota(owner, 1.0, 30.0, None))
    assert world.look(key) == "Queued"
    assert world.again_s is None
    world.store.orders.ask(name, Wish.PAUSE)
    assert world.look(key) == "Paused"  # by a person: it stays so
    assert condition(world.request(key), "Studying") == ("False", "Paused")


@pytest.mark.slow
def test_a_study_that_somebody_deleted_is_not_run_again_unasked(world):
    key = world.ask()
    world.settle(key)
    name = world.request(key)["status"]["study"]
    world.store.delete_study(name)
    assert world.settle(key) == "Deleted"
    assert world.store.study_names() == []
    found = world.request(key)
    assert condition(found, "Failed") == ("True", "StudyDeleted")
    assert name in message(found, "Failed")
    assert world.service() is not None
    world.edit(key, OTHER)
    assert world.settle(key) == "RolledOut"
    assert len(world.store.study_names()) == 1
