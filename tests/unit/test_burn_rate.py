"""The SLO's budget of misses: the tiers, what is certain of them, and what nobody can tell."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.look_streams import SLO
from tests.monitoring.rules import rules
from tuner.ask.request import Metric, SloTarget
from tuner.retune.detect.burn_rate import LEAST_MISSES, LIKELY, POSSIBLE, TIERS, BurnRate, Tier
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Blindness, Look
from tuner.stats.buckets import Within

TARGET = SLO[0]
HOUR_S = 3600.0


def look(at_s: float, total: float, missed: tuple[float, float, float], seconds: float = 60.0) -> Look:
    """``missed``: at least, likely, at most."""
    at_least, likely, at_most = missed
    counts = Within(total, total - at_most, total - likely, total - at_least)
    return Look(at_s, seconds, arrived=total, within={TARGET.key: counts})


def after(detector: BurnRate, parts: Iterable[tuple[float, float]], per_look: float = 100.0) -> list[Notice]:
    """What is told after so many hours with such a share of misses each."""
    at_s, told = 0.0, tuple[Notice, ...]()
    for hours, share in parts:
        for _ in range(round(hours * 60)):
            at_s += 60
            told = detector.look(look(at_s, per_look, (per_look * share,) * 3))
    return list(told)


CASES = {
    "within the budget": ([(72, 0.009)], None),
    "all miss for two minutes of a day": ([(24, 0.0), (2 / 60, 1.0)], None),
    "all miss for twelve minutes of a day": ([(24, 0.0), (0.2, 1.0)], 14.4),
    "a fifth misses for 50 minutes": ([(24, 0.0), (50 / 60, 0.2)], 14.4),
    "and then none for ten": ([(24, 0.0), (50 / 60, 0.2), (10 / 60, 0.0)], None),
    "a tenth misses for four hours": ([(24, 0.0), (4, 0.1)], 6.0),
    "two in a hundred miss for two days": ([(24, 0.005), (48, 0.02)], 1.0),
    "at first": ([(0.2, 0.3)], 14.4),
}


@pytest.mark.parametrize(("parts", "burn_rate"), CASES.values(), ids=CASES)
def test_a_tier_is_breached_in_both_windows(parts: list[tuple[float, float]], burn_rate: float | None) -> None:
    told = after(BurnRate(SLO), parts)
    if burn_rate is None:
        assert told == []
    else:
        assert [notice.kind for notice in told] == [NoticeKind.SLO_BURN]
        assert f"{burn_rate:g} times the budget" in told[0].evidence
        assert told[0].figures["limit_share"] == pytest.approx(burn_rate * 0.01)
        assert told[0].confidence >= 0.99


def test_it_has_burnt_since_misses_became_more() -> None:
    told = after(BurnRate(SLO), [(10, 0.001), (0.9, 0.3)])
    assert told[0].since_s == pytest.approx(10 * HOUR_S, abs=60)


def test_the_figures_are_those_of_the_alerts() -> None:
    recorded = {rule["record"]: rule["expr"] for rule in rules("recording.yml")}
    alerts = {rule["alert"]: rule["expr"] for rule in rules("alerts.yml") if "alert" in rule}

    def of_alert(name: str, limit: str) -> tuple[float, float, float]:
        factor = float(re.findall(r"([\d.]+) \* ", limit)[0])
        windows = re.findall(r":ratio_rate(\d+)([mhd])", alerts[name])
        seconds = [float(n) * {"m": 60.0, "h": HOUR_S, "d": 24 * HOUR_S}[unit] for n, unit in windows]
        return factor, max(seconds), min(seconds)

    expected = [
        of_alert("ParlaySloMissedFast", recorded["study:parlay_deployed_limit_fast:ratio"]),
        of_alert("ParlaySloMissed", recorded["study:parlay_deployed_limit:ratio"]),
        of_alert("ParlayApiErrorsCreeping", alerts["ParlayApiErrorsCreeping"]),
    ]
    assert [(tier.burn_rate, tier.long_s, tier.short_s) for tier in TIERS] == expected
    for name in ("ParlaySloMissedFast", "ParlaySloMissed"):
        assert f">= {LEAST_MISSES}" in alerts[name]


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 100.0])
def test_a_limit_is_never_beyond_what_can_be_missed(percentile: float) -> None:
    budget = 1 - percentile / 100
    assert all(budget <= tier.limit(budget) <= (1 + budget) / 2 for tier in TIERS)


BOUNDS = {
    "surely": ((30.0, 30.0, 30.0), "miss ", 1.0),
    "likely": ((0.0, 30.0, 60.0), "may miss ", LIKELY),
    "possibly": ((0.0, 0.0, 60.0), "may miss ", POSSIBLE),
}


@pytest.mark.parametrize(("missed", "words", "confidence"), BOUNDS.values(), ids=BOUNDS)
def test_what_buckets_leave_open_is_only_said_to_be_possible(
    missed: tuple[float, float, float], words: str, confidence: float
) -> None:
    detector = BurnRate(SLO)
    told = [detector.look(look(60.0 * n, 100.0, missed)) for n in range(1, 40)][-1]
    assert [notice.kind for notice in told] == [NoticeKind.SLO_BURN]
    assert words in told[0].evidence
    assert told[0].confidence == pytest.approx(confidence)


def test_too_few_requests_are_blindness() -> None:
    told = after(BurnRate(SLO), [(2, 0.0)], per_look=0.5)
    assert [(notice.kind, notice.blindness) for notice in told] == [(NoticeKind.BLIND, Blindness.FEW_REQUESTS)]
    assert told[0].since_s == 0.0
    assert told[0].figures["needed_requests"] == pytest.approx(LEAST_MISSES / 0.06)


def test_shorter_windows_need_requests_as_well() -> None:
    quick = [Tier(one.burn_rate, one.long_s / 60, one.short_s / 60) for one in TIERS]
    told = after(BurnRate(SLO, quick), [(2, 0.0)], per_look=0.5)
    assert [notice.blindness for notice in told] == [Blindness.FEW_REQUESTS]
    assert after(BurnRate(SLO, quick), [(0.1, 0.0), (0.1, 1.0)])[0].kind is NoticeKind.SLO_BURN


def test_what_is_certain_of_one_tier_is_told_before_what_may_be_of_another() -> None:
    detector = BurnRate(SLO)
    told = [detector.look(look(60.0 * n, 100.0, (10.0, 20.0, 20.0))) for n in range(1, 600)][-1]
    assert told[0].figures["limit_share"] == pytest.approx(0.06)
    assert "may miss" not in told[0].evidence


def test_a_look_may_be_longer_than_any_window() -> None:
    told = BurnRate(SLO).look(look(1e7, 1000.0, (900.0, 900.0, 900.0), seconds=1e6))
    assert [notice.kind for notice in told] == [NoticeKind.SLO_BURN]


def test_a_night_without_requests_is_blind_in_the_end() -> None:
    assert after(BurnRate(SLO), [(2, 0.0), (5, 0.0)]) == []
    detector = BurnRate(SLO)
    after(detector, [(2, 0.0)])
    told = [detector.look(Look(2 * HOUR_S + 60.0 * n, 60.0, arrived=0.0)) for n in range(1, 6 * 60 + 1)]
    assert told[3 * 60] == ()
    assert [notice.kind for notice in told[-1]] == [NoticeKind.BLIND]


def test_another_deployment_has_spent_nothing() -> None:
    detector = BurnRate(SLO)
    assert after(detector, [(1, 0.5)])
    detector.decided(HOUR_S)
    told = detector.look(look(HOUR_S + 60, 100.0, (0.0, 0.0, 0.0)))
    assert told == ()


counts = st.floats(0, 1000).flatmap(lambda total: st.tuples(st.just(total), st.floats(0, 1), st.floats(0, 1)))


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(1, 4000), st.none() | counts), max_size=30), st.sampled_from([50.0, 99.0, 100.0]))
def test_what_is_told_is_told_of_something(
    looks: list[tuple[float, tuple[float, float, float] | None]], percentile: float
) -> None:
    """Any looks and gaps: no burn without misses enough, never both burning and too few, never silence for lack."""
    target = SloTarget(metric=Metric.TTFT, percentile=percentile, ms=500)
    detector, at_s, most_missed, total = BurnRate([target]), 0.0, 0.0, 0.0
    for seconds, count in looks:
        at_s += seconds
        within = {}
        if count is not None:
            requests, least, most = count
            low, high = sorted((least * requests, most * requests))
            within = {target.key: Within(requests, low, (low + high) / 2, high)}
            most_missed, total = most_missed + requests - low, total + requests
        told = detector.look(Look(at_s, seconds, within=within))
        kinds = [notice.kind for notice in told]
        assert len(kinds) <= 1
        if NoticeKind.SLO_BURN in kinds:
            assert most_missed >= LEAST_MISSES - 1e-6
        if total == 0:
            assert kinds == [NoticeKind.BLIND]
        assert all(0 <= notice.confidence <= 1 and notice.since_s <= at_s for notice in told)
