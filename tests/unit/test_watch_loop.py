"""The loop of a process that watches: claims, errors of one study beside others, and the end."""

from __future__ import annotations

import pytest

from tests.fakes import copy_of_empty_store, make_request
from tuner.app.answers.watch import NoticeAnswer
from tuner.app.watch.loop import WatchLoop
from tuner.app.watch.standing import standing
from tuner.app.watch.telling import gist
from tuner.errors import BadInput, Cause, LeaseLost
from tuner.retune.policy import RetunePolicy
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle


class Scripted:
    """A watcher that does what it is told."""

    def __init__(self, does):
        self.does, self.closed, self.prepared = does, False, 0

    def iterate(self):
        return self.does()

    def prepare(self):
        self.prepared += 1

    def close(self):
        self.closed = True


def well():
    return standing(1.0, (), None, None, (), None)


@pytest.fixture
def store(tmp_path):
    made = Store(copy_of_empty_store(tmp_path / "store.db"))
    for name in ("a", "b"):
        made.create_study(name, make_request(), {})
        made.watched.watch(name, RetunePolicy(), {"kind": "simulated"})
    yield made
    made.close()


def loop(store, make, told, **more):
    return WatchLoop(store, make, lambda study, found: told.append((study, found.state)), every_s=0.01, **more)


def test_each_study_is_claimed_once_and_given_back_at_the_end(store):
    made, told = {}, []

    def make(watched, claim):
        made[watched.study] = Scripted(well)
        return made[watched.study]

    first, second = loop(store, make, told), loop(store, make, told)
    first.once()
    first.once()
    second.once()
    assert sorted(told) == [("a", "well"), ("a", "well"), ("b", "well"), ("b", "well")]
    assert store.watched.watched("a").watcher
    first.close()
    assert all(one.closed for one in made.values())
    assert not store.watched.watched("a").watcher
    second.once()
    assert len(told) == 6
    second.close()


@pytest.mark.parametrize("error", [BadInput("site", "there", "here"), KeyError("a fault of ours")])
def test_a_place_that_cannot_be_reached_keeps_nobody_from_the_others(store, error):
    def make(watched, claim):
        if watched.study == "a":
            raise error
        return Scripted(well)

    told = []
    made = loop(store, make, told)
    made.once()
    assert told == [("a", "failed"), ("b", "well")]
    assert not store.watched.watched("a").watcher
    made.close()


def test_who_has_lost_the_claim_lets_go(store):
    def lost():
        raise LeaseLost("another watches")

    made = loop(store, lambda watched, claim: Scripted(lost), [])
    made.once()
    assert not store.watched.watched("a").watcher
    made.close()


def test_what_is_not_watched_any_more_is_let_go_and_strangers_are_left_alone(store):
    told = []
    made = loop(store, lambda watched, claim: Scripted(well), told, mine=lambda one: one.study == "a")
    made.once()
    store.watched.unwatch("a")
    made.once()
    assert told == [("a", "well")]
    made.close()


def test_it_ends_when_it_is_told_to(store):
    stop = CancelHandle()

    def once():
        stop.cancel(Cause.OPERATOR, "enough")
        return well()

    watchers = []

    def make(watched, claim):
        watchers.append(Scripted(once))
        return watchers[-1]

    loop(store, make, []).run(stop)
    assert not store.watched.watched("a").watcher
    assert all(one.prepared for one in watchers)
    looked = Scripted(well)
    loop(store, lambda watched, claim: looked, []).once()
    assert not looked.prepared


def test_a_line_is_for_what_is_new_and_not_for_a_figure_that_moved():
    def noticed(of, evidence):
        notice = NoticeAnswer(
            kind="workload_shift", of=of, evidence=evidence, confidence=1.0, since=1.0, figures={}, blindness=None
        )
        return well().model_copy(update={"state": "noticed", "text": evidence, "notices": [notice]})

    first = noticed("prompts", "470.9 prompt tokens per request in place of 127.6.")
    assert gist(noticed("prompts", "477.2 prompt tokens per request in place of 127.6.")) == gist(first)
    assert gist(noticed("rate", "470.9 prompt tokens per request in place of 127.6.")) != gist(first)
    assert gist(well()) != gist(first)
    assert gist(first.model_copy(update={"acted": ["a round begins"]})) != gist(first)
