"""The detectors of a live deployment on streams of looks: what they tell, and what they leave alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.look_streams import DAY_S, MONDAY_S, SLO, WEEK_S, Change, Stream, looks
from tuner.ask.request import Metric
from tuner.retune.detect.bins import BinSize
from tuner.retune.detect.blind import Blind
from tuner.retune.detect.detector import Detector
from tuner.retune.detect.residual import Residual
from tuner.retune.detect.season import working_day
from tuner.retune.detect.standard import standard_detectors
from tuner.retune.detect.straggler import Straggler, over_peers
from tuner.retune.detect.workload_shift import WorkloadShift, signals
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Blindness, Fingerprint, Look, NodeSeen, Tokens
from tuner.stats.buckets import Within

HOUR_S = 3600.0
FINGERPRINT = Fingerprint((NodeSeen("a", "h100_sxm", 8),))
FLAT = Stream(day=0.0, weekend=1.0, every_s=15.0)


def told(detector: Detector, stream: Iterable[Look]) -> dict[str, tuple[float, Notice]]:
    """By what it is of: when each notice came first (s since the begin), blindness left out."""
    found: dict[str, tuple[float, Notice]] = {}
    for look in stream:
        for notice in detector.look(look):
            if notice.kind is not NoticeKind.BLIND:
                found.setdefault(notice.of, (look.at_s - MONDAY_S, notice))
    return found


@pytest.mark.slow
def test_days_and_weeks_are_no_change() -> None:
    detectors = standard_detectors(SLO, FINGERPRINT)
    stream = (replace(look, fingerprint=FINGERPRINT) for look in looks(Stream(every_s=300.0), 3 * WEEK_S, Change(), 1))
    assert told(detectors, stream) == {}


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_prompts_of_another_length_are_noticed_within_minutes_of_the_begin(factor: float) -> None:
    change = Change(at_s=1200.0, prompt=factor)
    found = told(WorkloadShift(), looks(FLAT, 1800.0, change, 2))
    assert found.keys() == {"prompt_tokens"}
    at_s, notice = found["prompt_tokens"]
    assert 1200 < at_s <= 1440
    assert notice.since_s - MONDAY_S == pytest.approx(1200, abs=60)
    assert notice.figures["prompt_tokens"] == pytest.approx(1000 * factor, rel=0.3)
    assert notice.figures["prompt_tokens_before"] == pytest.approx(1000, rel=0.15)


def test_small_bins_notice_it_in_a_demonstration() -> None:
    quick = Stream(day=0.0, weekend=1.0, every_s=2.0, req_per_s=1.0, cv=0.5)
    parts = signals(seasonal=False, size=BinSize(8, 8.0))
    found = told(WorkloadShift(parts), looks(quick, 480.0, Change(at_s=300.0, prompt=4.0), 3))
    assert found["prompt_tokens"][0] < 390


@pytest.mark.slow
@pytest.mark.parametrize("rate", [3.0, 1 / 3])
def test_another_rate_is_noticed_once_a_week_was_seen(rate: float) -> None:
    change = Change(at_s=WEEK_S + 1.6 * DAY_S, rate=rate)
    found = told(WorkloadShift(), looks(Stream(every_s=300.0), WEEK_S + 3 * DAY_S, change, 4))
    assert found.keys() == {"rate"}
    at_s, notice = found["rate"]
    assert change.at_s < at_s < change.at_s + 4 * HOUR_S
    assert notice.since_s - MONDAY_S == pytest.approx(change.at_s, abs=HOUR_S)
    assert notice.figures["req_per_s"] / notice.figures["req_per_s_before"] == pytest.approx(rate, rel=0.35)


def test_a_steady_rate_needs_no_week() -> None:
    parts = signals(seasonal=False)
    found = told(WorkloadShift(parts), looks(FLAT, 2 * HOUR_S, Change(at_s=HOUR_S, rate=4.0), 5))
    assert HOUR_S < found["rate"][0] < HOUR_S + 900


@pytest.mark.parametrize(
    ("day", "hour", "working"),
    [(0, 11.9, False), (0, 12, True), (2, 0, True), (4, 11.9, True), (4, 12, False), (5, 3, False), (6, 23, False)],
)
def test_a_working_day_is_one_everywhere(day: int, hour: float, working: bool) -> None:
    assert working_day(MONDAY_S + day * DAY_S + hour * HOUR_S) is working


def test_a_shift_that_was_heeded_is_the_reference_until_the_next() -> None:
    detector = WorkloadShift()
    stream = looks(FLAT, 5000.0, Change(at_s=1200.0, prompt=4.0), 6)
    assert told(detector, islice(stream, 120))
    detector.decided(MONDAY_S + 1800)
    assert told(detector, stream) == {}


@pytest.mark.slow
@pytest.mark.parametrize("ms", [2.0, 0.5])
def test_another_speed_at_the_same_load_is_noticed(ms: float) -> None:
    found = told(Residual(), looks(FLAT, 5 * HOUR_S, Change(at_s=3 * HOUR_S, ms=ms), 7))
    at_s, notice = found["ttft"]
    assert 3 * HOUR_S < at_s < 4 * HOUR_S
    assert notice.figures["measured_over_expected_ratio"] == pytest.approx(ms, rel=0.3)
    assert ("slower" if ms > 1 else "faster") in notice.evidence


@pytest.mark.slow
def test_what_longer_prompts_take_is_expected_where_a_model_says() -> None:
    def expected(look: Look) -> dict[Metric, float]:
        return {Metric.TTFT: 0.1 * look.prompt.mean} if look.prompt else {}  # half of what is true: a constant error

    stream = list(looks(replace(FLAT, queueing=0.0), 4 * HOUR_S, Change(at_s=2 * HOUR_S, prompt=4.0), 8))
    assert told(Residual(expected), stream) == {}
    assert told(Residual(lambda look: {Metric.TTFT: 100.0}), stream).keys() == {"ttft"}


def test_a_slow_rank_is_named_and_those_that_are_slow_together_are_not() -> None:
    found = told(Straggler(), looks(FLAT, 2 * HOUR_S, Change(at_s=HOUR_S, slow_rank=1.5), 9))
    assert found.keys() == {"rank 0"}
    assert HOUR_S < found["rank 0"][0] < HOUR_S + 600
    assert found["rank 0"][1].figures["step_over_peers_ratio"] == pytest.approx(1.5, rel=0.1)
    stream = looks(FLAT, 2 * HOUR_S, Change(), 10)
    slower = (
        replace(look, step_ms_by_rank={rank: 3 * ms for rank, ms in look.step_ms_by_rank.items()}) for look in stream
    )
    assert told(Straggler(), slower) == {}


def test_ranks_of_other_gpus_are_no_peers() -> None:
    ms = {"a/0": 10.0, "a/1": 10.0, "b/0": 30.0, "b/1": 30.0, "c/0": 1.0}
    found = over_peers(ms, lambda rank: rank[0])
    assert found == {rank: 0.0 for rank in ms if rank != "c/0"}
    assert over_peers({"0": 10.0}) == {}
    assert over_peers({"0": 10.0, "1": 20.0})["1"] == pytest.approx(math.log(2))


MISSING = {
    "nothing": (Look(0.0, 60.0, 5.0, within={SLO[0].key: Within(5, 5, 5, 5)}), []),
    "an address": (Look(0.0, 60.0, blind=frozenset({Blindness.UNREACHABLE})), [Blindness.UNREACHABLE]),
    "counts of a target": (Look(0.0, 60.0, 5.0), [Blindness.NO_METRICS]),
    "requests": (Look(0.0, 60.0, within={SLO[0].key: Within(5, 5, 5, 5)}), [Blindness.NO_METRICS]),
    "all": (Look(0.0, 60.0), [Blindness.NO_METRICS, Blindness.NO_METRICS]),
}


@pytest.mark.parametrize(("look", "why"), MISSING.values(), ids=MISSING)
def test_what_a_look_lacks_is_told_since_looks_lack_it(look: Look, why: list[Blindness]) -> None:
    detector = Blind(SLO)
    detector.look(look)
    told = detector.look(replace(look, at_s=60.0))
    assert [notice.blindness for notice in told] == why
    assert {notice.since_s for notice in told} <= {-60.0}


numbers = st.none() | st.floats(0, 1e6) | st.sampled_from([math.nan, math.inf])
tokens = st.none() | st.builds(Tokens, st.floats(0, 1e6), st.floats(0, 1e6), numbers)
looks_of_any_kind = st.builds(
    Look,
    at_s=st.just(0.0),
    seconds=st.floats(0.001, 1e5),
    arrived=numbers,
    prompt=tokens,
    output=tokens,
    prefix_share=numbers,
    mean_ms=st.dictionaries(st.sampled_from(Metric), st.floats(0, 1e9)),
    step_ms_by_rank=st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e9)),
    blind=st.frozensets(st.sampled_from(Blindness)),
    fingerprint=st.none() | st.just(FINGERPRINT) | st.just(Fingerprint()),
)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.lists(looks_of_any_kind, max_size=25))
def test_without_counts_it_is_never_fine(stream: list[Look]) -> None:
    """Whatever looks hold: as none has the counts that the SLO needs, each makes a notice of blindness."""
    detectors, at_s = standard_detectors(SLO), MONDAY_S
    for look in stream:
        at_s += look.seconds
        notices = detectors.look(replace(look, at_s=at_s))
        assert any(notice.kind is NoticeKind.BLIND and notice.blindness for notice in notices)
        assert not any(notice.kind is NoticeKind.SLO_BURN for notice in notices)
        assert all(notice.evidence and notice.since_s <= at_s and 0 <= notice.confidence <= 1 for notice in notices)


def test_nothing_at_all_is_only_blindness() -> None:
    detectors = standard_detectors(SLO, FINGERPRINT)
    for hour in range(1, 200):
        notices = detectors.look(Look(MONDAY_S + hour * HOUR_S, HOUR_S))
        assert {notice.kind for notice in notices} == {NoticeKind.BLIND}


def with_gaps(stream: Iterator[Look]) -> Iterator[Look]:
    """Every third hour nobody looks, and every fourth day all looks are blind."""
    for look in stream:
        hour = (look.at_s - MONDAY_S) // HOUR_S
        if hour % 3 == 2:
            continue
        blind = Look(look.at_s, look.seconds, blind=frozenset({Blindness.UNREACHABLE}))
        yield blind if hour % 96 < 24 else look


@pytest.mark.slow
def test_state_is_had_again_from_the_looks() -> None:
    change = Change(at_s=30 * HOUR_S, prompt=3.0, ms=2.0, slow_rank=1.5, missed=100.0)
    stream = list(with_gaps(looks(Stream(every_s=120.0), 2 * DAY_S, change, 11)))
    first, second = standard_detectors(SLO, FINGERPRINT), standard_detectors(SLO, FINGERPRINT)
    half = len(stream) * 4 // 5
    for look in stream[:half]:
        first.look(look)
    for look in stream[:half]:
        second.look(look)
    assert second.notices == first.notices
    assert [first.look(look) for look in stream[half:]] == [second.look(look) for look in stream[half:]]
    assert {NoticeKind.WORKLOAD_SHIFT, NoticeKind.STRAGGLER} <= {notice.kind for notice in first.notices}


def test_a_look_told_twice_changes_nothing() -> None:
    stream = list(looks(FLAT, 1500.0, Change(at_s=1200.0, prompt=4.0), 12))
    once, twice = standard_detectors(SLO), standard_detectors(SLO)
    for look in stream:
        once.look(look)
        twice.look(look)
        assert twice.look(look) == twice.look(stream[0]) == once.notices
