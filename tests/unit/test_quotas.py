"""What an account may take of the clusters: GPU-hours in a rolling window, held before each launch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import copy_of_empty_store, make_request
from tests.service_app import work
from tuner.ask.deployment import parse_deployment
from tuner.errors import BadInput, FailureReason
from tuner.rehearse.conditions import SEED_FACT
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Terms
from tuner.study.quotas import EVERYBODY, Quota, Quotas
from tuner.study.records import TrialClaim
from tuner.study.store import Store
from tuner.trial.devices import Placement
from tuner.trial.results import Purpose, TrialResult, TrialState

DAY_S = 86_400.0
LAYOUT = parse_deployment("tp=1")


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


def launched(store, study, owner, gpu_hours=None, failure=None, seed=None):
    """One launch of a study that an account has queued; it runs where no hours are given."""
    store.orders.submit(study, make_request(), Terms(owner, "ray", seed))
    if seed is not None:
        store.keep_facts(study, {SEED_FACT: str(seed)})
    store.change_state(study, StudyState.RUNNING)
    store.beat(study, "d", 0.0)
    claim = TrialClaim("d", LAYOUT, Purpose.EXPLORE, 0, 0.0, 2.0, Path("logs"))
    number = store.claim_trial(study, claim, lambda _: Placement(()), 99).number
    if gpu_hours is not None:
        state = TrialState.FAILED if failure else TrialState.MEASURED
        store.finish_trial(study, TrialResult(number, LAYOUT, state, failure=failure, device_s=gpu_hours * 3600), "d")


def test_an_account_without_a_quota_may_take_what_there_is(store):
    launched(store, "s", "abc", gpu_hours=1e6)
    standing = store.quotas.standing("abc")
    assert (standing.gpu_hours, standing.frees_at) == (pytest.approx(1e6), None)


@pytest.mark.slow
def test_what_was_spent_counts_whatever_became_of_it(store):
    store.quotas.set(Quota("abc", 40.0, 30.0, None))
    launched(store, "ended", "abc", gpu_hours=10)
    launched(store, "lost", "abc", gpu_hours=5, failure=FailureReason.CANCELLED)
    launched(store, "forgotten", "abc", gpu_hours=20)
    launched(store, "another's", "def", gpu_hours=100)
    launched(store, "simulated", "abc", gpu_hours=100, seed=3)
    launched(store, "runs", "abc")
    store.beat("runs", "d", 1800.0)
    store.change_state("forgotten", StudyState.CANCELLED)
    store.delete_study("forgotten")
    standing = store.quotas.standing("abc")
    assert (standing.gpu_hours, standing.frees_at) == (pytest.approx(35.5), None)
    store.beat("runs", "d", 5 * 3600.0)
    standing = store.quotas.standing("abc")
    assert standing.frees_at is not None
    assert standing.words.startswith("40 of 40 GPU-hours in 30 days are spent; it may launch again from 20")


def test_launches_leave_the_window_and_make_room(store, monkeypatch):
    store.quotas.set(Quota("abc", 10.0, 30.0, None))
    launched(store, "first", "abc", gpu_hours=8)
    launched(store, "second", "abc", gpu_hours=8)
    ((first, _), _) = store.spending.launches_of("abc", 30 * DAY_S)
    assert store.quotas.standing("abc").frees_at == pytest.approx(first + 30 * DAY_S)
    monkeypatch.setattr("tuner.study.spending.now_s", lambda db: first + 30 * DAY_S)
    assert store.quotas.standing("abc").frees_at is None
    assert store.quotas.standing("abc").gpu_hours == pytest.approx(8)


class Spent:
    """Spending that is known."""

    def __init__(self, launches):
        self.launches = launches

    def launches_of(self, owner, window_s):
        return self.launches


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.01, 1e3)), max_size=8).map(sorted),
    st.floats(0.5, 1e3),
)
def test_it_is_held_until_what_is_left_in_the_window_is_below_the_quota(launches, allowed):
    quotas = Quotas(None, Spent(launches))  # type: ignore[arg-type]
    quotas.of = lambda account: Quota(account, allowed, 1.0, None)  # type: ignore[method-assign]
    frees_at = quotas.standing("abc").frees_at
    held = sum(hours for _, hours in launches) >= allowed
    assert held == (frees_at is not None)
    if frees_at is not None:
        left = sum(hours for began_at, hours in launches if began_at + DAY_S > frees_at)
        assert left < allowed
        before = sum(hours for began_at, hours in launches if began_at + DAY_S >= frees_at)
        assert before >= allowed - 1e-6


def test_who_has_none_has_that_of_everybody(store):
    store.quotas.set(Quota(EVERYBODY, 5.0, 7.0, 2))
    store.quotas.set(Quota("abc", None, 30.0, 3))
    assert store.quotas.of("def") == Quota("def", 5.0, 7.0, 2)
    assert store.quotas.of("abc") == Quota("abc", None, 30.0, 3)
    assert store.quotas.of("") == Quota("", None, 30.0, None)  # nobody showed a token: it is this machine
    store.quotas.set(Quota("abc", None, 30.0, None))
    assert store.quotas.of("abc") == Quota("abc", 5.0, 7.0, 2)
    assert [quota.account for quota in store.quotas.all()] == [EVERYBODY]


@pytest.mark.parametrize(
    ("account", "gpu_hours", "days", "studies", "where"),
    [
        ("", 1.0, 1.0, 1, "ACCOUNT"),
        ("a" * 61, 1.0, 1.0, 1, "ACCOUNT"),
        ("a", -1.0, 1.0, 1, "--gpu-hours"),
        ("a", float("nan"), 1.0, 1, "--gpu-hours"),
        ("a", float("inf"), 1.0, 1, "--gpu-hours"),
        ("a", 1.0, 0.0, 1, "--window-days"),
        ("a", 1.0, float("nan"), 1, "--window-days"),
        ("a", 1.0, 1.0, -1, "--studies"),
    ],
)
def test_what_is_no_quota_is_refused(store, account, gpu_hours, days, studies, where):
    with pytest.raises(BadInput, match=where):
        store.quotas.set(Quota(account, gpu_hours, days, studies))


def test_an_account_of_no_hours_may_launch_nothing(store):
    store.quotas.set(Quota("abc", 0.0, 30.0, None))
    assert store.quotas.standing("abc").words.endswith("it may launch nothing")


# A study that runs, on a cluster that costs no real device; without a seed it is taken for a real one.


def _raise(error):
    raise error


# A target that the first layout misses: a study that meets its SLO at once has no second turn.
ASKED = {"space": {"tp": [1, 2], "dp": [1, 2]}, "budget.launches": 4, "slo.1.ms": 4.0}


@pytest.mark.slow
def test_a_study_that_crosses_the_quota_stops_at_its_next_turn_and_goes_on_when_there_is_room(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    store.quotas.set(Quota("abc", 1e-6, 30.0, None))
    store.orders.submit("s", make_request(ASKED), Terms("abc", "simulated"))
    assert work(store, tmp_path) == 1
    order, found = store.orders.order("s"), store.snapshot("s")
    assert store.study("s").state is StudyState.PAUSED
    assert "the quota of abc" in order.problem
    assert "may launch again from" in order.problem
    assert [trial.state for trial in found.trials] == [TrialState.STOPPED]  # by its own miss: what ran is kept
    told = [event.data for event in store.events.after("s", 0) if event.kind == "ended"]
    assert len(told) == 1
    assert "the quota of abc" in told[0]
    store.quotas.set(Quota("abc", 1e6, 30.0, None))
    store.orders.resume("s")
    assert work(store, tmp_path) == 1
    assert store.study("s").state is StudyState.DECIDED
    assert store.orders.order("s").problem is None
    assert store.snapshot("s").trials[0] == found.trials[0]
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hours", "state", "why"),
    [(1e-6, "paused", "the quota of abc"), (None, "failed", "ZeroDivisionError: a defect")],
)
def test_whoever_hears_that_a_study_has_ended_reads_why(tmp_path, monkeypatch, hours, state, why):
    """Before its worker has left it: a page that asks at the event of the state shows the reason."""
    store, seen = Store(copy_of_empty_store(tmp_path / "store.db")), list[tuple[str, str | None]]()
    if hours is None:
        monkeypatch.setattr(Quotas, "standing", lambda *_: _raise(ZeroDivisionError("a defect")))
    else:
        store.quotas.set(Quota("abc", hours, 30.0, None))
    release = store.orders.release

    def looked(study, *args):
        seen.append((json.loads(store.events.after(study, 0)[-1].data).get("state"), store.orders.order(study).problem))
        release(study, *args)

    monkeypatch.setattr(store.orders, "release", looked)
    store.orders.submit("s", make_request(ASKED), Terms("abc", "simulated"))
    assert work(store, tmp_path) == 1
    ((then, problem),) = seen
    assert then == state
    assert problem.startswith(why)
    assert store.orders.order("s").problem == problem
    store.close()


@pytest.mark.slow
def test_a_study_that_has_nothing_left_to_launch_is_decided_at_its_quota_too(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    store.quotas.set(Quota("abc", 1e-6, 30.0, None))
    store.orders.submit("s", make_request(ASKED | {"budget.launches": 1}), Terms("abc", "simulated"))
    assert work(store, tmp_path) == 1
    assert store.study("s").state is StudyState.DECIDED
    store.close()


@pytest.mark.slow
def test_a_simulated_study_costs_no_hours(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    store.quotas.set(Quota("abc", 0.0, 30.0, None))
    store.orders.submit("s", make_request(ASKED), Terms("abc", "simulated", seed=0))
    assert work(store, tmp_path) == 1
    assert store.study("s").state is StudyState.DECIDED
    store.close()
