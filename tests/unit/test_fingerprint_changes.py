"""What differs between two fingerprints, and what never does: the unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.look_streams import MONDAY_S, SLO
from tuner.ask.request import Metric
from tuner.retune.detect.cluster_change import STALE_S, ClusterChange
from tuner.retune.fingerprint import changes
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Blindness, Fingerprint, LinkSeen, Look, NodeSeen, Tokens
from tuner.stats.buckets import Within

A, B, C = (NodeSeen(name, "h100_sxm", 8, "570.86") for name in "abc")
BEFORE = Fingerprint((A, B), {"vllm": "0.29.0", "ray": "2.60.0"}, {"inter_node": LinkSeen(5.0, 50.0)}, "r1")
K = NoticeKind
CASES = {
    "the same": (BEFORE, []),
    "in another order": (replace(BEFORE, nodes=(B, A)), []),
    "node lost": (replace(BEFORE, nodes=(A,)), [(K.NODE_LOST, "b")]),
    "node joined": (replace(BEFORE, nodes=(A, B, C)), [(K.NODE_JOINED, "c")]),
    "node replaced": (replace(BEFORE, nodes=(A, C)), [(K.NODE_LOST, "b"), (K.NODE_JOINED, "c")]),
    "no node is left": (replace(BEFORE, nodes=()), [(K.NODE_LOST, "a"), (K.NODE_LOST, "b")]),
    "another GPU": (replace(BEFORE, nodes=(A, replace(B, gpu="h200"))), [(K.DEVICES_CHANGED, "b")]),
    "a GPU fewer": (replace(BEFORE, nodes=(A, replace(B, gpus=7))), [(K.DEVICES_CHANGED, "b")]),
    "another driver": (replace(BEFORE, nodes=(A, replace(B, driver="575.1"))), [(K.DEVICES_CHANGED, "b")]),
    "all of a node": (replace(BEFORE, nodes=(A, NodeSeen("b", "h200", 4, "575.1"))), [(K.DEVICES_CHANGED, "b")]),
    "GPU and driver unknown": (replace(BEFORE, nodes=(A, replace(B, gpu=None, driver=None))), []),
    "half the bandwidth": (
        replace(BEFORE, links={"inter_node": LinkSeen(5.0, 25.0)}),
        [(K.LINK_CHANGED, "inter_node")],
    ),
    "thrice the latency": (
        replace(BEFORE, links={"inter_node": LinkSeen(15.0, 50.0)}),
        [(K.LINK_CHANGED, "inter_node")],
    ),
    "a link that is gone": (
        replace(BEFORE, links={"inter_node": LinkSeen(5.0, 0.0)}),
        [(K.LINK_CHANGED, "inter_node")],
    ),
    "probes scatter": (replace(BEFORE, links={"inter_node": LinkSeen(6.0, 47.0)}), []),
    "another link": (replace(BEFORE, links={"intra_node": LinkSeen(1.0, 1.0)}), []),
    "engine upgraded": (replace(BEFORE, versions={"vllm": "0.30.0", "ray": "2.60.0"}), [(K.VERSION_CHANGED, "vllm")]),
    "versions unknown": (replace(BEFORE, versions={}), []),
    "another revision": (replace(BEFORE, model_revision="r2"), [(K.MODEL_CHANGED, "model_revision")]),
    "revision unknown": (replace(BEFORE, model_revision=None), []),
    "nobody sees nodes": (replace(BEFORE, nodes=None), [(K.BLIND, "cluster")]),
}


@pytest.mark.parametrize(("now", "expected"), CASES.values(), ids=CASES)
def test_a_change_is_named(now: Fingerprint, expected: list[tuple[NoticeKind, str]]) -> None:
    found = changes(BEFORE, now, 7.0)
    assert [(notice.kind, notice.of) for notice in found] == expected
    assert all(notice.since_s == 7.0 and notice.evidence and 0.5 < notice.confidence <= 1 for notice in found)


nodes = st.builds(
    NodeSeen,
    st.sampled_from("abc"),
    st.none() | st.sampled_from(["h100_sxm", "h200"]),
    st.integers(0, 8),
    st.none() | st.sampled_from(["570.86", "575.1"]),
)
links = st.builds(LinkSeen, st.floats(0, 100), st.floats(0, 500))
names = st.sampled_from(["vllm", "ray", "inter_node"])
fingerprints = st.builds(
    Fingerprint,
    st.none() | st.lists(nodes, unique_by=lambda one: one.name, max_size=3).map(tuple),
    st.dictionaries(names, st.sampled_from(["1", "2"])),
    st.dictionaries(names, links),
    st.none() | st.sampled_from(["r1", "r2"]),
)


@pytest.mark.slow
@given(fingerprints)
def test_nothing_differs_from_itself_and_the_unknown_from_nothing(one: Fingerprint) -> None:
    unknown = Fingerprint()
    blind = [] if one.nodes is not None else [NoticeKind.BLIND]
    assert [notice.kind for notice in changes(one, one, 0.0)] == blind
    assert [notice.kind for notice in changes(unknown, one, 0.0)] == blind
    assert [notice.kind for notice in changes(one, unknown, 0.0)] == [NoticeKind.BLIND]


BACK = {K.NODE_LOST: K.NODE_JOINED, K.NODE_JOINED: K.NODE_LOST}


@pytest.mark.slow
@given(fingerprints, fingerprints)
def test_what_changed_changes_back(one: Fingerprint, other: Fingerprint) -> None:
    there, back = (
        {(BACK.get(n.kind, n.kind) if turn else n.kind, n.of) for n in changes(a, b, 0.0) if n.kind is not K.BLIND}
        for a, b, turn in ((one, other, True), (other, one, False))
    )
    assert one.nodes is None or other.nodes is None or there == back


@pytest.mark.slow
@given(fingerprints)
def test_a_fingerprint_is_kept_as_json(one: Fingerprint) -> None:
    kept = TypeAdapter(Fingerprint)
    assert kept.validate_json(kept.dump_json(one)) == one


def test_looks_and_notices_are_kept_as_json() -> None:
    counts = {SLO[0].key: Within(4.0, 1.0, 2.0, 3.0)}
    look = Look(9.0, 3.0, 4.0, None, counts, {Metric.TTFT: 1.5}, Tokens(4.0, 7.0), fingerprint=BEFORE)
    look = replace(look, blind=frozenset({Blindness.NO_METRICS}), step_ms_by_rank={"0": 1.0})
    notice = Notice(K.BLIND, "x", "y", 1.0, 3.0, {"n": 1.0}, Blindness.NO_CLUSTER)
    assert TypeAdapter(Look).validate_json(TypeAdapter(Look).dump_json(look)) == look
    assert TypeAdapter(Notice).validate_json(TypeAdapter(Notice).dump_json(notice)) == notice


def look_at(minute: float, seen: Fingerprint | None, blind: frozenset[Blindness] = frozenset()) -> Look:
    return Look(MONDAY_S + 60 * minute, 60.0, fingerprint=seen, blind=blind)


def test_a_change_stands_since_it_was_seen_until_it_is_undone() -> None:
    watch, fewer = ClusterChange(BEFORE), replace(BEFORE, nodes=(A,))
    assert watch.look(look_at(1, BEFORE)) == ()
    first = watch.look(look_at(2, fewer))
    assert [notice.kind for notice in first] == [K.NODE_LOST]
    assert watch.look(look_at(3, fewer)) == watch.look(look_at(4, None)) == first
    assert first[0].since_s == MONDAY_S + 120
    assert watch.look(look_at(5, BEFORE)) == ()


def test_what_was_decided_anew_rests_on_what_was_seen_last() -> None:
    watch, fewer = ClusterChange(BEFORE), replace(BEFORE, nodes=(A,))
    watch.look(look_at(1, fewer))
    watch.decided(MONDAY_S + 70)
    assert watch.look(look_at(2, fewer)) == ()
    assert [notice.kind for notice in watch.look(look_at(3, BEFORE))] == [K.NODE_JOINED]


def test_what_the_decision_did_not_know_is_compared_with_how_it_was_seen_first() -> None:
    watch = ClusterChange(replace(BEFORE, links={}, model_revision=None))
    slower = replace(BEFORE, links={"inter_node": LinkSeen(5.0, 25.0)}, model_revision="r2")
    assert watch.look(look_at(1, BEFORE)) == ()
    assert {notice.kind for notice in watch.look(look_at(2, slower))} == {K.LINK_CHANGED, K.MODEL_CHANGED}


def test_a_cluster_that_nobody_sees_keeps_its_nodes_and_says_so() -> None:
    watch = ClusterChange(BEFORE)
    watch.look(look_at(1, replace(BEFORE, nodes=(A,))))
    told = watch.look(look_at(2, replace(BEFORE, nodes=None)))
    assert [notice.kind for notice in told] == [K.NODE_LOST, K.BLIND]
    assert told[1].blindness is Blindness.NO_CLUSTER
    blind = watch.look(look_at(3, None, frozenset({Blindness.NO_CLUSTER})))
    assert blind[1].since_s == MONDAY_S + 60


def test_what_was_seen_long_ago_says_nothing_of_now() -> None:
    watch = ClusterChange(BEFORE)
    watch.look(look_at(1, BEFORE))
    late = 1 + STALE_S / 60
    assert watch.look(look_at(late, None)) == ()
    assert [notice.kind for notice in watch.look(look_at(late + 1, None))] == [K.BLIND]
    assert [notice.kind for notice in ClusterChange().look(Look(0.0, STALE_S + 1))] == [K.BLIND]
