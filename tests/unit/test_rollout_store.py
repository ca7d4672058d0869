"""What the store keeps of deployments, rollouts, watchers and rounds, on every database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fakes import make_request
from tests.rollouts import a_live, a_rollout
from tuner.errors import BadInput, LeaseLost
from tuner.retune.live import LiveState
from tuner.retune.policy import RetunePolicy
from tuner.retune.rollout import Rollout, Step, Wish
from tuner.retune.seen import Fingerprint, LinkSeen, NodeSeen
from tuner.study.lifecycle import StudyState
from tuner.study.live import live_name
from tuner.study.orders import Terms
from tuner.study.rounds import round_name
from tuner.study.store import Store

REQUEST = make_request()
POLICY = RetunePolicy(consent="auto", windows=({"days": ["mon"], "begin": "02:00", "end": "04:00"},))
SITE = {"kind": "ray-serve", "address": "10.0.0.1:6379"}
FINGERPRINT = Fingerprint((NodeSeen("n1", "h100_sxm", 8),), {"vllm": "0.29.0"}, {"nvlink": LinkSeen(5.0, 400.0)})


@pytest.fixture
def store(url):
    opened = Store(url)
    opened.create_study("s", REQUEST, {})
    yield opened
    opened.close()


@pytest.fixture
def claim(store):
    store.watched.watch("s", POLICY, SITE)
    return store.watched.claim("s", "me", gone=lambda *_: False)


def begun(store, claim) -> Rollout:
    store.live.add(a_live("old", state=LiveState.SERVING, good=True), claim)
    return store.rollouts.begin(a_rollout(number=0), a_live("new"), claim)


class TestWatched:
    def test_what_is_allowed_may_change_and_where_it_serves_may_not(self, store):
        found = store.watched.watch("s", POLICY, SITE)
        assert (found.study, found.policy, found.site, found.paused, found.watcher) == ("s", POLICY, SITE, False, "")
        assert store.watched.watch("s", RetunePolicy(), SITE).policy == RetunePolicy()
        with pytest.raises(BadInput, match="where s serves"):
            store.watched.watch("s", POLICY, {"kind": "kuberay"})
        assert store.watched.names() == ("s",)
        assert [one.study for one in store.watched.all()] == ["s"]
        store.watched.unwatch("s")
        assert store.watched.find("s") is None
        with pytest.raises(BadInput, match="a study of this store"):
            store.watched.watch("nobody", POLICY, SITE)
        with pytest.raises(BadInput, match="a study that is watched"):
            store.watched.claim("s", "me", gone=lambda *_: False)

    def test_one_watches_until_it_is_gone_and_has_no_say_then(self, store, claim):
        alive, dead = (lambda *_: False), (lambda *_: True)
        assert store.watched.claim("s", "other", alive) is None
        store.watched.beat(claim)
        store.watched.remember(claim, {"since": 5.0})
        other = store.watched.claim("s", "other", dead)
        assert other.token > claim.token
        for write in (
            lambda: store.watched.beat(claim),
            lambda: store.watched.remember(claim, {}),
            lambda: store.live.add(a_live("one"), claim),
            lambda: store.rollouts.begin(a_rollout(), a_live("new"), claim),
        ):
            with pytest.raises(LeaseLost, match="watched by another process"):
                write()
        store.watched.leave(claim)
        assert store.watched.watched("s").watcher == "other"
        assert store.watched.watched("s").memory == {"since": 5.0}
        store.watched.leave(other)
        assert store.watched.claim("s", "third", alive) is not None

    def test_a_watcher_that_claims_again_has_lost_its_first_claim(self, store, claim):
        again = store.watched.claim("s", "me", gone=lambda *_: False)
        with pytest.raises(LeaseLost):
            store.watched.beat(claim)
        store.watched.beat(again)

    def test_of_several_that_claim_at_once_one_gets_it(self, store):
        store.watched.watch("s", POLICY, SITE)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: store.watched.claim("s", f"w{n}", lambda *_: False), range(8)))
        assert sum(one is not None for one in found) == 1

    def test_all_of_a_study_may_be_paused(self, store, claim):
        store.watched.pause("s")
        assert store.watched.watched("s").paused
        store.watched.pause("s", False)
        assert not store.watched.watched("s").paused
        with pytest.raises(BadInput):
            store.watched.pause("nobody")


class TestRollouts:
    def test_a_rollout_is_kept_step_by_step_and_told(self, store, claim):
        first = begun(store, claim)
        assert (first.number, store.rollouts.open("s")) == (1, first)
        after = replace(first, step=Step.CANARY, share=0.1)
        serving = replace(a_live("new"), state=LiveState.SERVING, serving_since_s=9.0, fingerprint=FINGERPRINT)
        assert store.rollouts.move(first, after, (serving,), claim)
        assert not store.rollouts.move(first, replace(first, step=Step.DONE), (a_live("new"),), claim)
        assert store.rollouts.open("s") == after
        assert store.live.find("new") == serving
        assert [live.name for live in store.live.of("s")] == ["new", "old"]
        assert [event.kind for event in store.events.after("s", 0)] == ["rollout"] * 2
        with pytest.raises(BadInput, match="one at a time: 1 is canary"):
            store.rollouts.begin(a_rollout(), a_live("newer"), claim)
        done = replace(after, step=Step.DONE)
        assert store.rollouts.move(after, done, (), claim)
        assert store.rollouts.open("s") is None
        assert store.rollouts.begin(a_rollout(), a_live("newer"), claim).number == 2
        assert [one.number for one in store.rollouts.of("s")] == [2, 1]
        second = store.rollouts.get("s", 2)
        store.rollouts.move(second, replace(second, step=Step.DONE), (), claim)
        with pytest.raises(BadInput, match="a name that no deployment ever had"):
            store.rollouts.begin(a_rollout(), a_live("old"), claim)

    def test_what_a_human_asks_comes_before_a_step_that_does_not_know_it(self, store, claim):
        first = begun(store, claim)
        asked = store.rollouts.wish("s", 1, Wish.PAUSE)
        assert asked.paused
        assert not store.rollouts.move(first, replace(first, step=Step.STARTING), (), claim)
        assert store.rollouts.open("s") == asked
        with pytest.raises(BadInput, match="one that was begun"):
            store.rollouts.wish("s", 7, Wish.VETO)
        store.rollouts.wish("s", 1, Wish.VETO)
        assert store.rollouts.vetoed("s") == {"tp=1,pp=1,dp=1"}

    def test_looks_of_a_canary_are_kept_in_order(self, store, claim):
        rollout = begun(store, claim)
        for number in range(3):
            store.rollouts.add_look(rollout, {"number": number}, claim)
        assert store.rollouts.looks(rollout) == tuple({"number": number} for number in range(3))


class TestRounds:
    def test_rounds_have_names_of_their_own(self, store):
        assert store.rounds.take("s") == store.rounds.take("s") == "s.r2"
        store.create_study("s.r2", REQUEST, {})
        store.create_study("s.r3", REQUEST, {})  # somebody's own
        assert store.rounds.take("s.r2") == "s.r4"
        store.create_study("s.r4", REQUEST, {})
        assert store.rounds.of("s.r4") == store.rounds.of("s") == ("s", "s.r2", "s.r4")
        assert store.rounds.base_of("s.r3") == "s.r3"
        with pytest.raises(BadInput):
            store.rounds.take("nobody")

    def test_a_round_that_is_forgotten_is_none(self, store):
        store.create_study(store.rounds.take("s"), REQUEST, {})
        store.change_state("s.r2", StudyState.CANCELLED)
        store.delete_study("s.r2")
        assert store.rounds.of("s") == ("s",)

    @given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True), st.integers(2, 9999))
    def test_a_name_of_a_round_is_one_of_a_study(self, base, number):
        name = round_name(base, number)
        assert 1 < len(name) <= 100
        assert name.endswith(f".r{number}")
        assert name != base


def test_what_serves_is_never_taken_for_its_age(store, claim):
    """Nor what a rollback would go to, nor the study that decided either."""
    for name in ("s.r2", "s.r3", "s.r4"):
        store.create_study(name, REQUEST, {})
    for name in ("s", "s.r2", "s.r3", "s.r4"):
        store.change_state(name, StudyState.CANCELLED)
    store.live.add(a_live("one", study="s.r2", state=LiveState.LAST_GOOD), claim)
    store.live.add(a_live("two", study="s.r3", state=LiveState.SERVING), claim)
    store.live.add(a_live("three", study="s.r4", state=LiveState.FAILED), claim)
    assert store.archive.older(-1, 10) == ("s.r4",)
    for name in ("s", "s.r2", "s.r3"):
        with pytest.raises(BadInput, match="unwatch it first"):
            store.delete_study(name)
    store.watched.unwatch("s")
    store.delete_study("s.r4")
    assert store.archive.older(-1, 10) == ()


def test_what_is_watched_no_more_may_go_though_it_serves(store, claim):
    store.change_state("s", StudyState.CANCELLED)
    store.live.add(a_live("s-d1", study="s", state=LiveState.SERVING), claim)
    store.watched.unwatch("s")
    store.delete_study("s")
    ended = store.live.find("s-d1")
    assert (ended.state, ended.ended_s is None) == (LiveState.ENDED, False)
    assert store.live.next_name("s") == "s-d2"


def test_a_study_that_goes_in_the_midst_of_a_rollout_takes_it_along(store, claim):
    store.change_state("s", StudyState.CANCELLED)
    store.live.add(a_live("old", study="s", state=LiveState.SERVING), claim)
    store.rollouts.begin(a_rollout(), a_live("new"), claim)
    store.watched.unwatch("s")
    store.delete_study("s")
    assert store.rollouts.open("s") is None
    ended = store.rollouts.get("s", 1)
    assert (ended.step, ended.outcome) == (Step.FAILED, "its study was deleted")
    store.create_study("s", REQUEST, {})
    store.watched.watch("s", RetunePolicy(), {})
    again = store.watched.claim("s", "me", lambda *_: False)
    assert store.rollouts.begin(a_rollout(), a_live("newer"), again).number == 2


def test_an_archive_of_the_version_before_can_be_read(store):
    study = store.orders.submit("old", make_request(), Terms("me", "simulated", 0), "key").study
    store.change_state(study, StudyState.CANCELLED)
    whole = store.archive.document(study)
    store.delete_study(study)
    tables = {name: rows for name, rows in whole["tables"].items() if "rounds" not in name}
    assert [row.pop("cluster") for row in tables["parlay_orders"]] == [None]
    assert store.archive.restore({**whole, "schema_version": 5, "tables": tables}) == study
    assert store.orders.order(study).terms.cluster is None


@given(st.lists(st.text(min_size=1, max_size=120), min_size=2, max_size=2, unique=True), st.integers(1, 999))
@example(["0", "000000000000"], 100)
@example(["a" * 27, "a" * 28], 999)
def test_names_of_deployments_are_labels_and_no_two_are_the_same(studies, number):
    one, two = (live_name(study, number) for study in studies)
    assert one != two
    for name in (one, two):
        assert len(name) <= 32
        assert name.isascii()
        assert name[0].isalpha()
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
