"""A target that is missed on end, by little more than it allows."""

from __future__ import annotations

import pytest

from tests.look_streams import SLO
from tuner.retune.detect.burn_rate import SOON, TIERS, BurnRate
from tuner.retune.detect.on_end import OnEnd
from tuner.retune.notice import NoticeKind
from tuner.retune.seen import Look
from tuner.stats.buckets import Within

KEY, MAY = SLO[0].key, 1 - SLO[0].percentile / 100
MINUTE_S = 60.0


def shown(detector, minutes, share, begin=0, requests=6000.0):
    """Notices after each minute in which so large a share misses."""
    found = []
    for minute in range(begin, begin + minutes):
        good = requests * (1 - share)
        look = Look((minute + 1) * MINUTE_S, MINUTE_S, requests, within={KEY: Within(requests, good, good, good)})
        found.append(detector.look(look))
    return found


def test_an_hour_on_end_is_told_though_the_budget_burns_slowly():
    found = shown(OnEnd(SLO), 90, 1.5 * MAY)
    first = next(i for i, told in enumerate(found) if told)
    assert 60 <= first <= 61
    (told,) = found[first]
    assert (told.kind, told.since_s) == (NoticeKind.SLO_BURN, 0.0)
    assert told.figures["missed_share"] == pytest.approx(1.5 * MAY)
    assert "60 min on end" in told.evidence
    burns = BurnRate(SLO, (*TIERS, SOON))
    assert not any([*shown(burns, 24 * 60, 0.0), *shown(burns, 90, 1.5 * MAY, 24 * 60)])  # that is told in days


@pytest.mark.parametrize(
    ("parts", "requests"),
    {
        "within": ([(300, MAY)], 6000.0),
        "bursts": ([(20, 0.0), (10, 1.0), (80, 0.0), (10, 1.0), (80, 0.0)], 6000.0),
        "with a break": ([(45, 2 * MAY), (15, 0.5 * MAY), (44, 2 * MAY)], 6000.0),
        "by chance": ([(300, 1.5 * MAY)], 10.0),
    }.values(),
    ids=["within", "bursts", "with a break", "by chance"],
)
def test_else_it_is_not(parts, requests):
    detector, begin = OnEnd(SLO), 0
    for minutes, share in parts:
        assert not any(shown(detector, minutes, share, begin, requests))
        begin += minutes


def test_it_ends_with_a_quarter_that_is_well_or_unseen_and_with_a_decision():
    detector = OnEnd(SLO)
    assert shown(detector, 70, 2 * MAY)[-1]
    assert shown(detector, 5, 0.0, 70)[-1]
    assert not shown(detector, 16, 0.0, 75)[-1]
    assert shown(detector, 90, 2 * MAY, 100)[-1]
    assert not shown(detector, 1, 2 * MAY, 300)[-1]
    assert shown(detector, 90, 2 * MAY, 301)[-1]
    detector.decided(0.0)
    assert not shown(detector, 58, 2 * MAY, 391)[-1]
