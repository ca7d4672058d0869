"""How a deployment holds its SLO, from what its engines showed one look after the other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ask.request import Metric, SloTarget
from tuner.decide.attainment import Attainment
from tuner.stats.buckets import Buckets

TTFT = SloTarget(metric=Metric.TTFT, percentile=99.0, ms=500)
TPOT = SloTarget(metric=Metric.TPOT, percentile=90.0, ms=50)


def engine(fast: float, slow: float, metric: Metric = Metric.TTFT) -> dict[Metric, Buckets]:
    """So many values within half a second, and so many beyond, since it was started."""
    return {metric: Buckets((0.5, math.inf), (fast, fast + slow))}


def counted(looks: list[dict[str, dict[Metric, Buckets]]]) -> tuple[float, float]:
    attainment = Attainment([TTFT])
    for look in looks:
        attainment.add("here", look)
    found = attainment.counts[TTFT.key]
    return found.least, found.total


def test_what_was_before_the_first_look_is_left_out() -> None:
    assert counted([{"a": engine(1000, 50)}]) == (0, 0)
    assert counted([{"a": engine(1000, 50)}, {"a": engine(1003, 51)}]) == (3, 4)


def test_an_engine_that_began_anew_counts_from_its_start() -> None:
    assert counted([{"a": engine(10, 5)}, {"a": engine(2, 1)}, {"a": engine(4, 1)}]) == (4, 5)


def test_engines_add_up_and_a_new_one_counts_from_when_it_is_seen() -> None:
    looks = [{"a": engine(1, 0)}, {"a": engine(2, 0), "b": engine(70, 0)}, {"a": engine(3, 0), "b": engine(75, 1)}]
    assert counted(looks) == (7, 8)


def test_an_engine_that_is_gone_takes_nothing_back() -> None:
    assert counted([{"a": engine(1, 0), "b": engine(1, 0)}, {"a": engine(2, 0), "b": engine(4, 0)}, {}]) == (4, 4)


def test_addresses_are_apart() -> None:
    attainment = Attainment([TTFT])
    for source, fast in (("x", 1), ("y", 100), ("x", 2), ("y", 110)):
        attainment.add(source, {"0": engine(fast, 0)})
    assert attainment.counts[TTFT.key].total == 11


def test_a_target_without_a_histogram_is_absent() -> None:
    attainment = Attainment([TTFT, TPOT])
    attainment.add("here", {"a": engine(1, 0)})
    assert set(attainment.counts) == {TTFT.key}
    assert Attainment([]).counts == {}


@pytest.mark.parametrize(("ms", "least", "most"), [(500, 3, 3), (100, 0, 3), (900, 3, 4)])
def test_a_target_inside_a_bucket_leaves_bounds(ms: float, least: float, most: float) -> None:
    target = SloTarget(metric=Metric.TTFT, percentile=99.0, ms=ms)
    attainment = Attainment([target])
    for look in (engine(0, 0), engine(3, 1)):
        attainment.add("here", {"a": look})
    found = attainment.counts[target.key]
    assert (found.least, found.most, found.total) == (least, most, 4)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_of_an_engine_that_goes_on_all_that_came_is_counted(looks: list[tuple[int, int]]) -> None:
    seen = [(10, 10)]
    for fast, slow in looks:
        seen.append((seen[-1][0] + fast, seen[-1][1] + slow))
    found = counted([{"a": engine(fast, slow)} for fast, slow in seen])
    assert found == (seen[-1][0] - 10, sum(seen[-1]) - 20)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_counts_never_fall_whatever_engines_show(looks: list[tuple[int, int]]) -> None:
    attainment, before = Attainment([TTFT]), (0.0, 0.0, 0.0)
    for fast, slow in looks:
        attainment.add("here", {"a": engine(fast, slow)})
        found = attainment.counts[TTFT.key]
        assert found.least >= before[0]
        assert found.total - found.least >= before[1]
        before = (found.least, found.total - found.least, found.total)
