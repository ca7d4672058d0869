"""The queue of a service: who gets which study, what becomes of one whose worker dies, and what may be asked of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes import make_request
from tuner.errors import BadInput
from tuner.study.lease import is_gone, new_driver
from tuner.study.lifecycle import StudyState
from tuner.study.orders import MOST_DEATHS, Terms, Wish
from tuner.study.store import Store

REQUEST = make_request()
SIMULATED = ("simulated",)


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


def submit(store, name, owner="a", priority=0, key=None, launcher="simulated", request=REQUEST):
    return store.orders.submit(name, request, Terms(owner, launcher, 0, priority), key)


def alive(driver, silent_s):
    return silent_s is None or silent_s > 1e6


def dead(driver, silent_s):
    return True


def claimed(store, worker="w", gone=alive):
    order = store.orders.claim(worker, SIMULATED, gone)
    return order and order.study


def states(store, study):
    return [event.data.split('"')[3] for event in store.events.after(study, 0) if event.kind == "state"]


def test_a_study_waits_until_it_is_claimed_and_is_claimed_once(store):
    submit(store, "s")
    assert store.study("s").state is StudyState.QUEUED
    assert claimed(store, "first") == "s"
    assert store.study("s").state is StudyState.RUNNING
    assert claimed(store, "second") is None
    assert store.orders.order("s").worker == "first"
    assert states(store, "s") == ["queued", "running"]


def test_the_most_urgent_first_then_a_fair_share_then_the_oldest(store):
    for name, owner, priority in (("a1", "a", 0), ("a2", "a", 0), ("a3", "a", 0), ("b1", "b", 0), ("late", "a", 5)):
        submit(store, name, owner, priority)
    assert [claimed(store, f"w{n}") for n in range(6)] == ["late", "b1", "a1", "a2", "a3", None]


def test_a_worker_gets_what_it_can_run(store):
    submit(store, "real", launcher="ray")
    assert claimed(store) is None
    assert store.orders.claim("w", ("ray",), alive).study == "real"


@pytest.mark.slow
def test_of_many_workers_each_gets_another_study(store, url):
    names = {f"s{n}" for n in range(6)}
    for name in names:
        submit(store, name)

    def ask(number):
        mine = Store(url)
        try:
            return mine.orders.claim(f"w{number}", SIMULATED, alive)
        finally:
            mine.close()

    with ThreadPoolExecutor(8) as threads:
        found = [order.study for order in threads.map(ask, range(8)) if order]
    while (name := claimed(store, "last")) is not None:
        found.append(name)
    assert sorted(found) == sorted(names)


def test_what_a_dead_worker_held_goes_to_the_next_but_not_for_ever(store):
    submit(store, "s")
    for death in range(MOST_DEATHS):
        assert claimed(store, f"w{death}", dead) == "s"
    assert claimed(store, "last", dead) is None
    assert store.study("s").state is StudyState.FAILED
    assert "workers died of it" in store.orders.order("s").problem
    store.orders.resume("s")
    assert claimed(store, "again") == "s"


def test_a_released_study_is_in_the_state_that_its_worker_says(store):
    submit(store, "s")
    claimed(store, "w")
    store.orders.release("s", "w", StudyState.FAILED, alive, "no such model")
    assert (store.study("s").state, store.orders.order("s").problem) == (StudyState.FAILED, "no such model")
    store.orders.resume("s")
    assert store.orders.order("s").problem is None
    claimed(store, "w")
    store.change_state("s", StudyState.DECIDED)
    store.orders.release("s", "w", StudyState.CANCELLED, alive)
    assert store.study("s").state is StudyState.DECIDED


@pytest.mark.parametrize(("wish", "after"), [(Wish.PAUSE, StudyState.PAUSED), (Wish.CANCEL, StudyState.CANCELLED)])
def test_one_that_waits_ends_at_once_and_of_one_that_runs_its_worker_is_told(store, wish, after):
    submit(store, "waits")
    assert store.orders.ask("waits", wish) is after
    assert claimed(store) is None
    submit(store, "runs")
    claimed(store)
    assert store.orders.order("runs").wish is None
    assert store.orders.ask("runs", wish) is StudyState.RUNNING
    assert store.orders.order("runs").wish is wish


def test_what_has_ended_cannot_be_ended_and_what_waits_cannot_be_resumed(store):
    submit(store, "s")
    with pytest.raises(BadInput, match="resume of one that was paused or has ended"):
        store.orders.resume("s")
    claimed(store)
    store.change_state("s", StudyState.DECIDED)
    with pytest.raises(BadInput, match="from decided"):
        store.orders.ask("s", Wish.CANCEL)
    with pytest.raises(BadInput, match="with a larger budget"):
        store.orders.resume("s")
    assert store.study("s").state is StudyState.DECIDED
    store.create_study("of the command line", REQUEST, {})
    with pytest.raises(BadInput, match="a study that was queued here"):
        store.orders.ask("of the command line", Wish.PAUSE)


def test_the_same_key_is_the_same_study_and_another_request_with_it_is_refused(store):
    first = submit(store, "s", key="k")
    assert submit(store, "s", key="k") == first
    other = make_request({"budget.launches": 3})
    with pytest.raises(BadInput, match="this one queued study s"):
        submit(store, "s", key="k", request=other)
    assert submit(store, "of another", owner="b", key="k").study == "of another"
    with pytest.raises(BadInput, match="a name that no study of this store has"):
        submit(store, "s")


def test_a_study_that_was_forgotten_leaves_nothing(store):
    submit(store, "s")
    with pytest.raises(BadInput, match="cancel it first"):
        store.delete_study("s")
    store.orders.ask("s", Wish.CANCEL)
    store.delete_study("s")
    assert (store.find_study("s"), store.orders.find("s"), store.events.after("s", 0)) == (None, None, ())
    submit(store, "s")


def test_one_whose_worker_still_clears_up_is_not_forgotten(store):
    """With it would go the lease of the devices that its last trial still holds."""
    submit(store, "s")
    worker = new_driver()
    claimed(store, worker)
    store.change_state("s", StudyState.CANCELLED)
    with pytest.raises(BadInput, match="still clears up"):
        store.delete_study("s")
    store.orders.release("s", worker, StudyState.CANCELLED, is_gone)
    store.delete_study("s")
    submit(store, "of a dead one")
    here, pid, _ = worker.rsplit("/", 2)
    claimed(store, f"{here}/{pid}/1.dead")
    store.change_state("of a dead one", StudyState.CANCELLED)
    store.delete_study("of a dead one")


def test_what_is_for_a_named_cluster_is_run_by_its_own_workers_alone(store):
    submit(store, "anywhere")
    store.orders.submit("there", REQUEST, Terms("a", "simulated", priority=9, cluster="there"))
    store.orders.submit("k", REQUEST, Terms("a", "simulated", cluster="x"), "key")
    with pytest.raises(BadInput, match="a key of its own"):
        store.orders.submit("k", REQUEST, Terms("a", "simulated"), "key")

    def claim(cluster):
        order = store.orders.claim("w", ("simulated",), alive, cluster=cluster)
        return order and (order.study, order.terms.cluster)

    assert claim("elsewhere") is None
    assert claim(None) == ("anywhere", None)
    assert claim(None) is None
    assert claim("there") == ("there", "there")
    assert store.orders.order("there").terms.cluster == "there"


def test_several_are_queued_at_once_and_each_once(store):
    terms, other = Terms("a", "simulated"), Terms("a", "simulated", cluster="x")
    assert store.orders.submit_all([("s", REQUEST, terms), ("t", REQUEST, other)]) == [None, None]
    assert [store.orders.order(name).terms.cluster for name in ("s", "t")] == [None, "x"]
    again, wrong, new = store.orders.submit_all([("s", REQUEST, terms), ("t", REQUEST, terms), ("u", REQUEST, terms)])
    assert (again, new) == (None, None)
    assert "a key of its own" in str(wrong)
    assert states(store, "s") == ["queued"]
    assert [line.name for line in store.listing.page()] == ["u", "t", "s"]


def test_where_no_other_worker_will_come_the_wish_is_done_once_the_last_is_gone(store):
    submit(store, "s")
    assert not store.orders.end_orphan("s", dead)  # it waits
    claimed(store)
    assert not store.orders.end_orphan("s", dead)  # nobody wished for its end
    store.orders.ask("s", Wish.CANCEL)
    assert not store.orders.end_orphan("s", alive)
    assert store.orders.end_orphan("s", dead)
    order = store.orders.order("s")
    assert (store.listing.state("s"), order.wish, order.worker) == (StudyState.CANCELLED, None, "")
    assert not store.orders.end_orphan("s", dead)


def test_a_list_goes_on_where_the_page_before_ended(store):
    for number in range(5):
        submit(store, f"s{number}", priority=number)
    store.create_study("of the command line", REQUEST, {})
    whole = store.listing.page()
    assert [line.name for line in whole] == ["of the command line", "s4", "s3", "s2", "s1", "s0"]
    assert [(line.owner, line.priority, line.trials) for line in whole[:2]] == [(None, None, 0), ("a", 4, 0)]
    second = store.listing.page(limit=2, after=(whole[1].created_at, whole[1].name))
    assert [line.name for line in second] == ["s3", "s2"]
    store.orders.ask("s1", Wish.PAUSE)
    assert [line.name for line in store.listing.page([StudyState.PAUSED])] == ["s1"]
    assert store.listing.counts()[StudyState.QUEUED] == 5


def test_a_wish_that_the_worker_did_not_hear_before_it_gave_the_study_back_is_done(store):
    for wish, after in ((Wish.CANCEL, StudyState.CANCELLED), (Wish.PAUSE, StudyState.PAUSED)):
        name = f"to-{wish.value}"
        submit(store, name)
        claimed(store, "w")
        store.orders.ask(name, wish)
        store.orders.release(name, "w", StudyState.QUEUED, alive)
        assert store.study(name).state is after
    submit(store, "first paused")
    claimed(store, "w")
    store.orders.ask("first paused", Wish.CANCEL)
    store.orders.release("first paused", "w", StudyState.PAUSED, alive)
    assert store.study("first paused").state is StudyState.CANCELLED


def test_a_wish_outlives_the_worker_that_should_have_done_it(store):
    submit(store, "s")
    claimed(store, "first")
    store.orders.ask("s", Wish.PAUSE)
    assert store.orders.claim("second", SIMULATED, dead).wish is Wish.PAUSE


@pytest.mark.parametrize("meanwhile", [Wish.PAUSE, Wish.CANCEL])
def test_what_was_ended_while_a_worker_reached_for_it_stays_so(store, meanwhile, monkeypatch):
    submit(store, "s")
    rows = store.orders._rows

    def read_then_ended(db):
        found = rows(db)
        other = Store(store.url)
        other.orders.ask("s", meanwhile)
        other.close()
        return found

    monkeypatch.setattr(store.orders, "_rows", read_then_ended)
    assert claimed(store) is None
    assert store.study("s").state in (StudyState.PAUSED, StudyState.CANCELLED)


@pytest.mark.slow
def test_a_study_that_is_resumed_twice_at_once_has_one_worker(store, url):
    for _ in range(5):
        submit(store, "s")
        store.orders.ask("s", Wish.PAUSE)

        def resume(_):
            mine = Store(url)
            try:
                mine.orders.resume("s")
                return mine.orders.claim(f"w{_}", SIMULATED, alive) is not None
            except BadInput:
                return False
            finally:
                mine.close()

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(resume, range(4))) == 1
        store.orders.release("s", store.orders.order("s").worker, StudyState.CANCELLED, dead)
        store.delete_study("s")


def test_deaths_count_while_no_trial_ends_between_them(store):
    submit(store, "s")
    for death in range(3 * MOST_DEATHS):
        assert claimed(store, f"w{death}", dead) == "s"
        store.orders.progressed("s", f"w{death}")
    assert store.study("s").state is StudyState.RUNNING


def test_of_a_study_that_ended_before_its_worker_let_go_of_it_the_next_does_what_is_left(store):
    submit(store, "s")
    claimed(store, "first")
    store.change_state("s", StudyState.DECIDED)
    assert store.orders.claim_left("second", alive) is None
    assert store.orders.claim_left("second", dead).study == "s"
    assert store.orders.claim_left("third", alive) is None
    store.orders.release("s", "second", StudyState.DECIDED, dead)
    assert store.orders.claim_left("third", dead) is None
    assert (store.study("s").state, store.orders.order("s").worker) == (StudyState.DECIDED, "")
