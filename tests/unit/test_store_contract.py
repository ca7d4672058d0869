"""The contract in the docstring of ``tuner.study.store.Store``, kept by every database: threads, processes, ownership,
states, durability."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.fakes import NOTHING_SPENT, make_request, make_step
from tuner.ask.layout import ParallelLayout
from tuner.decide.decision import decide
from tuner.errors import BadInput, FailureReason, LeaseLost, StoreError
from tuner.study.lifecycle import FOLLOWS, StudyState
from tuner.study.orders import Terms
from tuner.study.records import TrialClaim
from tuner.study.store import Store
from tuner.trial.devices import Placement
from tuner.trial.ledger import Outcome
from tuner.trial.results import LoadStep, Purpose, TrialResult, TrialState

REQUEST = make_request()
LAYOUT = ParallelLayout(tp=2)
STEP = make_step(LoadStep(0, 4.0, 1.0, 0), REQUEST, 20.0)
DECISION = decide("s", REQUEST, (), (), (), NOTHING_SPENT)
ROUTES = {  # how a study gets into each state
    StudyState.QUEUED: [],
    StudyState.RUNNING: [StudyState.RUNNING],
    StudyState.PAUSED: [StudyState.RUNNING, StudyState.PAUSED],
    StudyState.DECIDED: [StudyState.RUNNING, StudyState.DECIDED],
    StudyState.FAILED: [StudyState.RUNNING, StudyState.FAILED],
    StudyState.CANCELLED: [StudyState.CANCELLED],
}


@pytest.fixture
def store(url):
    opened = Store(url)
    opened.create_study("s", REQUEST, {})
    yield opened
    opened.close()


@pytest.fixture
def other(url, store):
    """The same database in another process, as far as it can tell."""
    opened = Store(url)
    yield opened
    opened.close()


def claim(store, driver="me", repeat=0, ordered_s=0.0):
    asked = TrialClaim(driver, LAYOUT, Purpose.EXPLORE, repeat, ordered_s, 2.5, Path("logs"))
    return store.claim_trial("s", asked, lambda held: Placement(((0, 2),)), launches=1000)


def ended(number, failure=None, device_s=7.0):
    state = TrialState.FAILED if failure else TrialState.MEASURED
    return TrialResult(number, LAYOUT, state, failure=failure, seconds=3.5, device_s=device_s)


def is_gone(driver, silent_s):
    return silent_s is None or silent_s > 30


@pytest.mark.slow
def test_threads_share_a_store(store):
    """Each claims, measures and ends its trials, while the others do."""

    def worked(repeat):
        number = claim(store, f"thread {repeat}", repeat).number
        store.add_step("s", number, STEP, f"thread {repeat}")
        assert store.pulse("s").mark[0] >= 1
        store.finish_trial("s", ended(number), f"thread {repeat}")
        return number

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(worked, range(16)))
    found = store.snapshot("s")
    assert sorted(numbers) == [trial.number for trial in found.trials] == list(range(16))
    assert all(trial.steps == (STEP,) for trial in found.trials)
    assert found.pulse.mark == (16, 16)


def test_a_snapshot_does_not_change(store):
    claim(store)
    before = store.snapshot("s")
    store.finish_trial("s", ended(0), "me")
    assert [trial.state for trial in before.trials] == [TrialState.RUNNING]
    assert [trial.number for trial in before.open] == [0]


CLAIMING = """
import json, sys
from tests.unit.test_store_contract import Store, claim
store = Store(sys.argv[1])
print(json.dumps([n for n in range(12) if claim(store, sys.argv[2], n) is not None]))
"""


@pytest.mark.slow
def test_of_several_processes_one_gets_a_layout(store, url):
    words = [sys.executable, "-c", CLAIMING, url]
    started = [subprocess.Popen([*words, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b")]
    got = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    assert sorted(got[0] + got[1]) == list(range(12))
    assert {trial.driver for trial in store.snapshot("s").open} <= {"a", "b"}


def test_a_snapshot_is_of_one_moment(store, other):
    """A trial that ends between two of its queries is running in all of it, or in none."""
    claim(store)
    done = []

    def end(db, cursor, statement, *_):
        if "parlay_steps" in statement and not done:
            done.append(statement)
            other.add_step("s", 0, STEP, "me")
            other.finish_trial("s", ended(0), "me")

    sa.event.listen(store._db._engine, "before_cursor_execute", end)
    found = store.snapshot("s")
    assert done
    assert (found.trials[0].state, found.trials[0].steps) == (TrialState.RUNNING, ())
    assert [entry.outcome for entry in found.entries] == [Outcome.RUNNING]
    assert store.snapshot("s").trials[0].steps == (STEP,)


def test_the_mark_grows_with_all_that_happens_to_trials_and_with_nothing_else(store):
    marks = [store.pulse("s").mark]

    def happened():
        marks.append(store.pulse("s").mark)
        return marks[-1] > marks[-2] and store.snapshot("s").pulse.mark == marks[-1]

    for repeat in range(3):
        claim(store, repeat=repeat)
        assert happened()
    store.add_step("s", 0, STEP, "me")
    store.beat("s", "me", 5.0)
    assert not happened()
    for deed in (
        lambda: store.finish_trial("s", ended(0), "me"),
        lambda: store.finish_trial("s", ended(1, FailureReason.CANCELLED), "me"),
        lambda: store.forget_trial("s", 2, "me", 5.0),
    ):
        deed()
        assert happened()


def test_only_its_driver_writes_of_a_trial(store, other):
    claim(store)
    for deed in (
        lambda: other.add_step("s", 0, STEP, "another"),
        lambda: other.finish_trial("s", ended(0), "another"),
        lambda: other.forget_trial("s", 0, "another", 9.0),
    ):
        with pytest.raises(LeaseLost):
            deed()
    found = store.snapshot("s")
    assert [(trial.state, trial.steps) for trial in found.trials] == [(TrialState.RUNNING, ())]
    assert [entry.outcome for entry in found.entries] == [Outcome.RUNNING]


def test_a_lease_keeps_a_trial_until_its_driver_leaves(store, other):
    store.beat("s", "me", 1.0)
    claim(store)
    assert other.take_over("s", "another", is_gone) == []
    store.leave("s", "me")
    assert [trial.driver for trial in other.take_over("s", "another", is_gone)] == ["me"]
    assert other.take_over("s", "a third", lambda driver, silent_s: driver != "another") == []
    with pytest.raises(LeaseLost):
        store.finish_trial("s", ended(0), "me")
    other.finish_trial("s", ended(0), "another")


def test_what_a_launch_took_outlives_its_trial(store, other):
    claim(store, ordered_s=10.0)
    store.finish_trial("s", ended(0, FailureReason.CANCELLED, device_s=6.0), "me")
    store.forget_trial("s", 0, "me", 99.0)  # how long it ran was known already
    again = claim(store, ordered_s=20.0)
    store.forget_trial("s", again.number, "me", 25.0)
    last = claim(store, ordered_s=30.0)
    store.finish_trial("s", ended(last.number, device_s=8.0), "me")
    assert {(e.app, e.outcome, e.device_s, e.usd_per_gpu_hour) for e in other.ledger("s")} == {
        ("parlay-s-0", Outcome.LOST, 6.0, 2.5),
        ("parlay-s-0-1", Outcome.LOST, 2 * 5.0, 2.5),
        ("parlay-s-0-2", Outcome.ENDED, 8.0, 2.5),
    }
    assert [trial.device_s for trial in other.snapshot("s").trials] == [8.0]


@pytest.mark.slow
def test_a_state_follows_only_another_that_leads_to_it(store, other):
    for now, wanted in product(StudyState, StudyState):
        study = f"{now}-{wanted}"
        store.create_study(study, REQUEST, {})
        for state in ROUTES[now]:
            store.change_state(study, state)
        assert other.snapshot(study).state is other.study(study).state is now
        if wanted is now or wanted in FOLLOWS[now]:
            store.change_state(study, wanted)
            assert other.study(study).state is wanted
        else:
            with pytest.raises(BadInput, match=f"state of study {study}: got '{wanted}'; allowed: from {now}: "):
                store.change_state(study, wanted)
            assert other.study(study).state is now


def test_of_two_that_end_a_study_one_does(store, other):
    for _ in range(5):
        store.change_state("s", StudyState.RUNNING)

        def tried(opened, state):
            try:
                opened.change_state("s", state)
            except BadInput:
                return None
            return state

        with ThreadPoolExecutor(2) as pool:
            wanted = (StudyState.PAUSED, StudyState.FAILED)
            did = [state for state in pool.map(tried, (store, other), wanted) if state is not None]
        assert did == [store.study("s").state]


def test_a_decision_is_a_state(store, other):
    with pytest.raises(BadInput, match="from queued"):
        store.save_decision("s", DECISION)
    assert other.decision("s") is None
    store.change_state("s", StudyState.RUNNING)
    store.save_decision("s", DECISION)
    assert (other.study("s").state, other.decision("s")) == (StudyState.DECIDED, DECISION)


def test_a_study_ends_with_its_last_driver_and_once(store):
    store.change_state("s", StudyState.RUNNING)
    store.beat("s", "another", 1.0)
    assert store.end_study("s", StudyState.CANCELLED, is_gone) is False
    store.leave("s", "another")
    assert store.end_study("s", StudyState.CANCELLED, is_gone) is True
    assert store.end_study("s", StudyState.FAILED, is_gone) is False
    assert store.study("s").state is StudyState.CANCELLED


def test_a_state_and_its_reason_are_one_write(store, other):
    store.change_state("s", StudyState.RUNNING)
    assert store.end_study("s", StudyState.FAILED, is_gone, "no room") is True  # one of no queue has no order to say so
    store.orders.submit("queued", store.study("s").request, Terms("", "ray"))
    store.change_state("queued", StudyState.RUNNING)
    assert store.end_study("queued", StudyState.PAUSED, is_gone, "no room") is True
    assert (other.study("queued").state, other.orders.order("queued").problem) == (StudyState.PAUSED, "no room")


def test_a_study_that_is_not_there(store):
    for deed in (
        lambda: store.change_state("x", StudyState.RUNNING),
        lambda: store.save_decision("x", DECISION),
        lambda: store.snapshot("x"),
    ):
        with pytest.raises(BadInput, match="STUDY: got 'x'"):
            deed()


def test_a_write_that_fails_leaves_nothing_of_it(store, other, url):
    """The ledger's half of a claim cannot be written: its trial is not there either."""
    with sa.create_engine(url).begin() as db:
        db.exec_driver_sql("ALTER TABLE parlay_ledger RENAME TO gone")
    with pytest.raises(StoreError, match="could not be written"):
        claim(store)
    with sa.create_engine(url).begin() as db:
        db.exec_driver_sql("ALTER TABLE gone RENAME TO parlay_ledger")
    found = other.snapshot("s")
    assert (found.trials, found.entries) == ((), ())
    assert claim(store).number == 0
