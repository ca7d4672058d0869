"""How many values lie within a limit, of counts by bucket: between which bounds that is known, and what grew."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.stats.buckets import NOTHING, Buckets, Within, within_all

EDGES = (0.1, 0.25, 0.5, 1.0, math.inf)
INF = math.inf


def buckets(*counts: float, edges: tuple[float, ...] = EDGES) -> Buckets:
    """Of counts by bucket, not cumulated."""
    return Buckets(edges, tuple(accumulate(counts)))


def of_values(values: list[float]) -> Buckets:
    return Buckets(EDGES, tuple(float(sum(value <= edge for value in values)) for edge in EDGES))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0.25, (6, 6, 6)),  # an edge: nothing is open
        (0.1, (4, 4, 4)),
        (0.05, (0, 2, 4)),  # from 0 to the first edge
        (0.3, (6, 6.8, 10)),  # a fifth of the bucket with four values
        (1.0, (11, 11, 11)),
        (30.0, (11, 11, 13)),  # the last bucket has no width to spread values over
    ],
)
def test_a_limit_inside_a_bucket_leaves_its_values_open(limit: float, expected: tuple[float, ...]) -> None:
    found = buckets(4, 2, 4, 1, 2).within(limit)
    assert (found.least, found.likely, found.most) == pytest.approx(expected)
    assert found.total == 13


@given(st.lists(st.floats(0, 3)), st.floats(0, 3))
def test_the_truth_lies_between_the_bounds(values: list[float], limit: float) -> None:
    found = of_values(values).within(limit)
    assert found.least <= sum(value <= limit for value in values) <= found.most
    assert found.least <= found.likely <= found.most <= found.total == len(values)


@given(st.lists(st.floats(0, 3)), st.floats(0, 3), st.floats(0, 3))
def test_a_wider_limit_never_holds_fewer(values: list[float], one: float, other: float) -> None:
    narrow, wide = (of_values(values).within(limit) for limit in sorted((one, other)))
    assert (narrow.least, narrow.most) <= (wide.least, wide.most)
    assert narrow.likely <= wide.likely + 1e-9


def test_shares_of_nothing_are_not_known() -> None:
    assert buckets(0, 0, 0, 0, 0).within(0.5).shares is None
    assert Within(4, 1, 2, 3).shares == {"least": 0.25, "likely": 0.5, "most": 0.75}


@pytest.mark.parametrize("counts", [{}, {0.1: 3.0}, {0.1: 3.0, INF: 2.0}, {0.1: -1.0, INF: 2.0}])
def test_what_is_no_histogram_is_none(counts: dict[float, float]) -> None:
    assert Buckets.of(counts) is None


def test_counts_are_taken_in_the_order_of_their_bounds() -> None:
    assert Buckets.of({INF: 3.0, 0.1: 1.0}) == Buckets((0.1, INF), (1.0, 3.0))


@given(st.lists(st.floats(0, 3)), st.lists(st.floats(0, 3)))
def test_what_grew_is_what_came(before: list[float], came: list[float]) -> None:
    assert of_values(before + came).grown_from(of_values(before)) == of_values(came)


def test_counts_that_fell_began_anew() -> None:
    assert buckets(1, 0, 0, 0, 0).grown_from(buckets(5, 2, 0, 0, 0)) == buckets(1, 0, 0, 0, 0)
    # as many as before in all, but not where they were
    assert buckets(0, 7, 0, 0, 0).grown_from(buckets(5, 2, 0, 0, 0)) == buckets(0, 7, 0, 0, 0)
    assert buckets(6, 0, 1, 0, 0).grown_from(buckets(5, 2, 0, 0, 0)) == buckets(6, 0, 1, 0, 0)


def test_nothing_is_known_of_the_first_look_or_of_other_buckets() -> None:
    assert buckets(1, 0, 0, 0, 0).grown_from(None) is None
    assert buckets(1, 1, edges=(0.2, INF)).grown_from(buckets(1, 0, 0, 0, 0)) is None


@given(st.lists(st.lists(st.floats(0, 3), max_size=5), max_size=4), st.floats(0, 3))
def test_several_engines_add_up(engines: list[list[float]], limit: float) -> None:
    together = of_values([value for engine in engines for value in engine]).within(limit)
    found = within_all((of_values(engine) for engine in engines), limit)
    assert found.total == together.total
    assert (found.least, found.most) == (together.least, together.most)
    assert found.likely == pytest.approx(together.likely)
    assert within_all([], limit) == NOTHING
