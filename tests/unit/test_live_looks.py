"""Looks at what serves: from recorded metrics of Ray Serve and vLLM, and from counters that begin anew."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.measure.live_counts import parse_counts
from serve.measure.live_ingress import Answered, haproxy_answers, serve_answers
from serve.measure.live_looks import Reading, look_between
from serve.measure.live_reader import Places, readings
from tuner.ask.request import Metric, SloTarget
from tuner.retune.seen import Blindness

DATA = Path(__file__).parents[1] / "data" / "engine_metrics"
AGENT = "http://10.0.0.1:1/metrics"
SLO = (SloTarget.parse("ttft:p90:100"), SloTarget.parse("e2e:p90:1000"))
PLACES = Places((AGENT,), {"y3qkruuz": "live-1", "other": "live-2"})


def text(name: str) -> str:
    return (DATA / f"{name}.txt").read_text(encoding="utf-8")


def reading(name: str, at_s: float, places: Places = PLACES) -> Reading:
    return readings(places, at_s, lambda url: (text(name), None))["live-1"]


@pytest.fixture(scope="module")
def look():
    return look_between(reading("ray_2.60_serve_before", 100.0), reading("ray_2.60_serve_after", 130.0), SLO)


def test_a_recorded_interval(look) -> None:
    """Between the two: five requests of 143 prompt tokens, five of 527, and one that was too long (400)."""
    assert (look.seconds, look.arrived, look.failed, look.waiting) == (30.0, 11.0, 0.0, 0.0)
    assert look.prompt.requests == 10
    assert look.prompt.mean == pytest.approx((5 * 143 + 5 * 527) / 10)
    assert look.output.mean == pytest.approx(32)
    assert 0 < look.prefix_share < 1
    assert look.blind == frozenset()
    assert [look.within[target.key].total for target in SLO] == [10, 10]
    assert set(look.step_ms_by_rank) == {"y3qkruuz/0/tiny"}
    assert set(look.mean_ms) == {Metric.TTFT, Metric.TPOT, Metric.ITL, Metric.E2E}


def test_of_vllm_itself_requests_are_counted_by_how_they_ended() -> None:
    counts = parse_counts(text("vllm_0.29"))
    now = Reading(10.0, counts)
    before = Reading(0.0, {name: replace(one, finished={"length": 40.0, "error": 0.0}) for name, one in counts.items()})
    assert (look_between(before, now, SLO).arrived, look_between(before, now, SLO).failed) == (2.0, 0.0)


def test_the_engines_of_other_deployments_are_theirs() -> None:
    found = readings(PLACES, 1.0, lambda url: (text("ray_2.60_serve_after"), None))
    assert (bool(found["live-1"].engines), bool(found["live-2"].engines)) == (True, False)
    assert (bool(found["live-1"].statuses), bool(found["live-2"].statuses)) == (True, False)


def test_an_engine_that_began_anew_counts_from_its_start() -> None:
    later, earlier = reading("ray_2.60_serve_before", 130.0), reading("ray_2.60_serve_after", 100.0)
    look = look_between(earlier, later, SLO)
    assert look.prompt.requests == 3  # all that the new one has counted
    assert look.arrived == 3


def test_what_is_seen_for_the_first_time_counts_from_now_on() -> None:
    later = reading("ray_2.60_serve_after", 130.0)
    look = look_between(Reading(100.0), later, SLO)
    assert (look.arrived, look.prompt, dict(look.within)) == (None, None, {})
    assert look.blind == {Blindness.NO_METRICS}


def test_an_address_that_cannot_be_read_is_blindness_and_no_zero() -> None:
    blind = readings(PLACES, 1.0, lambda url: (None, "refused"))["live-1"]
    look = look_between(reading("ray_2.60_serve_before", 0.0), blind, SLO)
    assert (look.arrived, look.failed, look.waiting) == (None, None, None)
    assert look.blind == {Blindness.UNREACHABLE, Blindness.NO_METRICS}


def test_no_request_is_no_failure_to_measure() -> None:
    same = reading("ray_2.60_serve_after", 100.0)
    look = look_between(same, replace(same, at_s=130.0), SLO)
    assert (look.arrived, look.failed) == (0.0, 0.0)
    assert look.blind == frozenset()
    assert all(within.total == 0 for within in look.within.values())


def test_a_server_error_is_a_failure_and_a_bad_question_is_none() -> None:
    name = "ray_serve_num_http_requests_total"
    lines = [f'{name}{{application="a",method="POST",route="/a",status_code="{code}"}} {n}.0' for code, n in
             (("200", 5), ("400", 2), ("500", 1), ("503", 3))]  # fmt: skip
    lines.append(f'{name}{{application="a",method="GET",route="/a",status_code="200"}} 100.0')
    answers = serve_answers("\n".join(lines) + "\n")
    look = look_between(Reading(0.0, statuses={"x": {}}), Reading(1.0, statuses={"x": answers["a"]}), SLO)
    assert (look.arrived, look.failed) == (11.0, 4.0)


def test_a_proxy_that_has_answered_nothing_yet_has_counted_nothing() -> None:
    silent = 'ray_serve_num_ongoing_http_requests{node_id="a"} 0.0\n'
    now = text("ray_2.60_serve_before")
    before, after = (readings(PLACES, at, lambda url, page=page: (page, None))["live-1"] for at, page in
                     ((0.0, silent), (9.0, silent + now)))  # fmt: skip
    assert look_between(before, after, SLO).arrived == 3
    assert look_between(before, replace(before, at_s=9.0), SLO).arrived == 0


def test_haproxy_counts_before_all_others() -> None:
    head = "# pxname,svname,qcur,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,\n"
    rows = "in,FRONTEND,,0,9,0,0,0,0,\nlive,s1,0,0,5,0,1,2,0,\nlive,BACKEND,3,0,5,0,1,2,0,\n"
    found = haproxy_answers(head + rows)
    assert found == {("live", "s1"): Answered(8, 2, 0), ("live", "BACKEND"): Answered(8, 2, 3)}
    before = replace(reading("ray_2.60_serve_before", 0.0), front=Answered(1.0, 0.0))
    look = look_between(before, replace(reading("ray_2.60_serve_after", 9.0), front=found["live", "BACKEND"]), SLO)
    assert (look.arrived, look.failed, look.waiting) == (7.0, 2.0, 3.0)
    with pytest.raises(ValueError, match="HAProxy"):
        haproxy_answers("<html>")


@pytest.mark.slow
@given(st.lists(st.integers(0, 50), min_size=2, max_size=12), st.data())
def test_restarts_never_lose_more_than_what_nobody_saw(steps: list[int], data: st.DataObject) -> None:
    """Of a counter that may begin anew between two readings, what is counted lies between what was seen of each."""
    counter, seen, total = 0.0, [], 0.0
    for step in steps:
        if data.draw(st.booleans()):
            counter = 0.0
        counter += step
        total += step
        seen.append(counter)
    looks = [
        look_between(Reading(i, statuses={"x": {"200": a}}), Reading(i + 1, statuses={"x": {"200": b}}), ())
        for i, (a, b) in enumerate(pairwise(seen))
    ]
    counted = sum(look.arrived or 0 for look in looks)
    assert 0 <= counted <= total
