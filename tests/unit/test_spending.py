"""What studies have spent: every launch on a real cluster once, for good; and the accounts of those that run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import copy_of_empty_store, make_request
from tuner.ask.deployment import parse_deployment
from tuner.ask.request import Budget
from tuner.errors import FailureReason
from tuner.rehearse.conditions import SEED_FACT
from tuner.study.lifecycle import StudyState
from tuner.study.records import TrialClaim
from tuner.study.spending import Account
from tuner.study.store import Store
from tuner.trial.devices import Placement
from tuner.trial.ledger import Outcome, Spent
from tuner.trial.results import Purpose, TrialResult, TrialState


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


def study(store, name, facts=None, **budget):
    store.create_study(name, make_request({f"budget.{part}": limit for part, limit in budget.items()}), facts or {})
    store.change_state(name, StudyState.RUNNING)
    store.beat(name, "d", 0.0)


def launch(store, name, layout, ordered_s=0.0, price=2.0):
    claim = TrialClaim("d", parse_deployment(layout), Purpose.EXPLORE, 0, ordered_s, price, Path("logs"))
    return store.claim_trial(name, claim, lambda _: Placement(()), 99).number


def end(store, name, number, layout, device_s, failure=None):
    state = TrialState.FAILED if failure else TrialState.MEASURED
    store.finish_trial(
        name, TrialResult(number, parse_deployment(layout), state, failure=failure, device_s=device_s), "d"
    )


def run(store, name, layout, device_s, price=2.0, failure=None):
    end(store, name, launch(store, name, layout, price=price), layout, device_s, failure)


def test_nothing_was_spent_where_nothing_ended(store):
    study(store, "s")
    launch(store, "s", "tp=2")
    assert {outcome: total.launches for outcome, total in store.spending.totals().items()} == {
        Outcome.ENDED: 0, Outcome.LOST: 0,
    }  # fmt: skip


def test_launches_are_added_up_by_what_became_of_them(store):
    study(store, "s")
    study(store, "t")
    run(store, "s", "tp=1", 3600.0)
    run(store, "s", "tp=2", 1800.0, price=None)
    run(store, "t", "tp=1", 7200.0, price=1.0)
    run(store, "t", "tp=4", 900.0, failure=FailureReason.CANCELLED)
    ended, lost = store.spending.totals().values()
    assert (ended.launches, ended.device_s, ended.usd, ended.unpriced) == (3, 12_600.0, pytest.approx(4.0), 1)
    assert (lost.launches, lost.device_s, lost.usd, lost.unpriced) == (1, 900.0, pytest.approx(0.5), 0)


def test_what_was_spent_stays_so_when_a_study_is_forgotten_and_its_name_is_free(store):
    study(store, "s" * 180)
    run(store, "s" * 180, "tp=1", 3600.0)
    store.change_state("s" * 180, StudyState.CANCELLED)
    before = store.spending.totals()
    for _ in range(2):
        store.delete_study("s" * 180)
        assert store.spending.totals() == before
        study(store, "s" * 180)
        assert store.ledger("s" * 180) == ()
        store.change_state("s" * 180, StudyState.CANCELLED)


def test_a_simulated_cluster_costs_nobody_anything(store):
    study(store, "s", {SEED_FACT: "1"})
    run(store, "s", "tp=1", 3600.0)
    nothing = store.spending.totals()
    assert nothing[Outcome.ENDED].launches == 0
    store.change_state("s", StudyState.CANCELLED)
    store.delete_study("s")
    assert store.spending.totals() == nothing


def test_those_that_run_are_told_the_newest_first_unless_their_drivers_are_long_gone(store):
    for name in ("a", "b", "c", "ended", "left"):
        study(store, name)
    store.create_study("waits", make_request(), {})
    store.change_state("ended", StudyState.CANCELLED)
    store.leave("left", "d")
    assert store.spending.running(9) == ("c", "b", "a")
    assert store.spending.running(2) == ("c", "b")


def test_an_account_counts_what_is_in_flight_up_to_the_last_sign_of_life(store):
    study(store, "s", launches=4, minutes=30, usd=8)
    run(store, "s", "tp=1", 3600.0)
    launch(store, "s", "tp=2", ordered_s=300.0)
    store.beat("s", "d", 1200.0)
    account = store.spending.accounts(["s", "gone"])["s"]
    assert account.spent.launches == 2
    assert account.spent.gpu_hours == pytest.approx(1.5)
    assert account.used == {
        "launches": 0.5, "minutes": pytest.approx(20 / 30), "usd": pytest.approx(3 / 8),
    }  # fmt: skip


def test_of_what_has_no_price_no_dollars_are_told():
    assert Account(Budget(usd=5), Spent(1, 1.0, 1.0, None)).used.keys() == {"launches", "minutes"}


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(1, 8), st.floats(0, 1e5), st.sampled_from([None, 0.5, 4.0]), st.booleans()), max_size=8
    )
)
def test_the_sum_of_the_database_is_that_of_the_entries(tmp_path_factory, launches):
    store = Store(copy_of_empty_store(tmp_path_factory.mktemp("store") / "s.db"))
    study(store, "s")
    for number, (tp, device_s, price, lost) in enumerate(launches):
        layout = f"tp={tp},max_num_seqs={number + 1}"
        run(store, "s", layout, device_s, price, FailureReason.CANCELLED if lost else None)
    totals, entries = store.spending.totals(), store.ledger("s")
    for outcome, total in totals.items():
        mine = [entry for entry in entries if entry.outcome is outcome]
        assert total.launches == len(mine)
        assert total.device_s == pytest.approx(sum(entry.device_s for entry in mine))
        assert total.usd == pytest.approx(sum(e.device_s * (e.usd_per_gpu_hour or 0.0) / 3600 for e in mine))
        assert total.unpriced == sum(entry.usd_per_gpu_hour is None for entry in mine)
    store.close()


def test_of_a_launch_over_midnight_what_is_after_it_counts(store):
    study(store, "s.r2")
    run(store, "s.r2", "tp=2", 7200.0)  # an hour on two devices
    at_s = time.time()
    spent = [store.spending.gpu_hours_since(["s.r2"], at_s + late_s) for late_s in (-10.0, 1800.0, 3600.0, 7200.0)]
    assert spent == pytest.approx([2.0, 1.0, 0.0, 0.0], abs=0.01)
    assert store.spending.gpu_hours_since(["s"], at_s - 10) == 0.0
