"""Looks at what serves, and what humans said of proposals, in a store: both outlive the process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes import copy_of_empty_store, document
from tuner.ask.request import Metric, TuneRequest
from tuner.retune.rollout import Wish
from tuner.retune.seen import Blindness, Fingerprint, Look, NodeSeen, Tokens
from tuner.stats.buckets import Within
from tuner.study.lifecycle import StudyState
from tuner.study.looks import KEPT_S, Said
from tuner.study.store import Store

KEY = (Metric.TTFT, 99.0)
PRINT = Fingerprint(nodes=(NodeSeen("a", "h100_sxm", 8),), versions={"vllm": "0.29.0"})
LOOK = Look(
    100.0,
    15.0,
    arrived=30.0,
    failed=0.0,
    within={KEY: Within(30.0, 28.0, 29.0, 30.0)},
    mean_ms={Metric.TTFT: 80.5},
    prompt=Tokens(30.0, 512.0, 12.0),
    fingerprint=PRINT,
    blind=frozenset({Blindness.FEW_REQUESTS}),
)


@pytest.fixture
def store(tmp_path):
    opened = Store(copy_of_empty_store(tmp_path / "store.db"))
    opened.create_study("llama", TuneRequest.model_validate(document()), {})
    yield opened
    opened.close()


def test_looks_come_back_as_they_were_with_the_fingerprint_kept_once(store) -> None:
    second = Look(115.0, 15.0, arrived=31.0, fingerprint=PRINT)
    store.looks.keep("llama", {"live-1": LOOK})
    store.looks.keep("llama", {"live-1": second, "live-2": LOOK})
    assert store.looks.of("llama", "live-1") == (LOOK, second)
    assert store.looks.of("llama", "live-1", after_s=100.0) == (second,)  # with what stood in the one before
    store.looks.keep("llama", {"live-1": second})  # once more after a kill: no second row
    assert len(store.looks.of("llama", "live-1")) == 2


def test_old_looks_are_forgotten(store) -> None:
    store.looks.keep("llama", {"live-1": LOOK})
    store.looks.keep("llama", {"live-1": replace(LOOK, at_s=LOOK.at_s + KEPT_S + 1)})
    assert len(store.looks.of("llama", "live-1")) == 1


def test_what_a_human_says_of_a_layout_replaces_what_was_said(store) -> None:
    for layout, wish in (("tp=2", Wish.VETO), ("tp=2", Wish.APPROVE), ("tp=4", Wish.FORCE), ("tp=8", Wish.VETO)):
        store.looks.say("llama", layout, wish)
    assert store.looks.said("llama") == Said(frozenset({"tp=2"}), frozenset({"tp=8"}), frozenset({"tp=4"}))
    for layout in ("tp=2", "tp=4", "tp=8"):
        store.looks.heed("llama", layout)
    assert store.looks.said("llama") == Said(vetoed=frozenset({"tp=8"}))


def test_what_was_seen_goes_with_its_study(store) -> None:
    store.looks.keep("llama", {"live-1": LOOK})
    store.looks.say("llama", "tp=2", Wish.VETO)
    store.change_state("llama", StudyState.CANCELLED)
    store.delete_study("llama")
    assert store.looks.of("llama", "live-1") == ()
    assert store.looks.said("llama") == Said()
