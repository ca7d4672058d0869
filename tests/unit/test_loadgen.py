"""The client sends on time, counts what the server sent, and gives every bad server its own outcome."""

import asyncio
import json
import socket
import ssl
import time

import pytest

from serve.loadgen import Call, Endpoint, LoadRun, _unconnected
from serve.sample import Outcome, Sample
from tests.mock_server import Behaviour, MockServer, closed_port
from tuner.errors import BadInput


def calls(count=1, gap_s=0.0, output_tokens=4):
    body = json.dumps({"model": "m", "prompt": [1, 2, 3], "max_tokens": output_tokens, "stream": True}).encode()
    return [Call(index, index * gap_s, body, 3, output_tokens) for index in range(count)]


def load(url, requests, timeout_s=20.0, **endpoint):
    return asyncio.run(LoadRun(Endpoint(url, "m", **endpoint), timeout_s).run(requests))


@pytest.mark.parametrize(
    ("behaviour", "outcome", "events"),
    [
        (Behaviour.OK, Outcome.OK, 4),
        (Behaviour.HTTP_429, Outcome.HTTP_ERROR, 0),
        (Behaviour.HTTP_500, Outcome.HTTP_ERROR, 0),
        (Behaviour.REDIRECT, Outcome.HTTP_ERROR, 0),
        (Behaviour.SLOW_HEADERS, Outcome.NO_ANSWER, 0),
        (Behaviour.STALL, Outcome.STALLED, 2),
        (Behaviour.RESET, Outcome.RESET, 2),
        (Behaviour.NOT_HTTP, Outcome.NOT_HTTP, 0),
        (Behaviour.NOT_A_STREAM, Outcome.NOT_A_STREAM, 0),
        (Behaviour.NOT_JSON, Outcome.MALFORMED, 2),
        (Behaviour.NO_CHOICES, Outcome.MALFORMED, 2),
        (Behaviour.HUGE_EVENT, Outcome.HUGE_EVENT, 2),
        (Behaviour.BAD_USAGE, Outcome.MALFORMED, 4),
        (Behaviour.ERROR_EVENT, Outcome.SERVER_ERROR, 2),
        (Behaviour.TRUNCATED, Outcome.TRUNCATED, 2),
        (Behaviour.NO_USAGE, Outcome.NO_USAGE, 4),
        (Behaviour.ZERO_TOKENS, Outcome.NO_TOKENS, 0),
        (Behaviour.SHORT, Outcome.SHORT, 3),
    ],
)
def test_every_behaviour_is_its_own_outcome(behaviour, outcome, events):
    stalls = outcome in (Outcome.NO_ANSWER, Outcome.STALLED)
    with MockServer(behaviour) as server:
        (sample,) = load(server.url, calls(), timeout_s=1.0 if stalls else 20.0)
    assert (sample.outcome, sample.ok) == (outcome, outcome is Outcome.OK)
    # An aborted connection may take what was written just before with it.
    assert len(sample.chunk_s) <= events if outcome is Outcome.RESET else len(sample.chunk_s) == events
    if stalls:
        assert sample.end_s - sample.sent_s >= 1.0


def test_a_refused_connection_is_refused():
    (sample,) = load(f"http://127.0.0.1:{closed_port()}", calls())
    assert (sample.outcome, sample.status, sample.ttft_s) == (Outcome.REFUSED, None, None)


@pytest.mark.parametrize(
    ("behaviour", "name"), [(Behaviour.HTTP_429, "http_429"), (Behaviour.HTTP_500, "http_500"), (Behaviour.OK, "ok")]
)
def test_http_errors_are_told_apart_by_status(behaviour, name):
    with MockServer(behaviour) as server:
        assert load(server.url, calls())[0].error == name


def test_one_bad_answer_leaves_the_others_whole():
    pattern = [Behaviour.OK, Behaviour.RESET, Behaviour.OK, Behaviour.STALL, Behaviour.HTTP_500, Behaviour.OK]
    with MockServer(lambda number: pattern[number]) as server:
        samples = load(server.url, calls(6, gap_s=0.05), timeout_s=1.5)
    assert [sample.index for sample in samples] == list(range(6))
    assert sorted(sample.error for sample in samples) == ["http_500", "ok", "ok", "ok", "reset", "stalled"]


def test_sending_does_not_wait_for_answers():
    """A closed loop, or a pool of connections, would wait for ever for the first of these answers."""
    with MockServer(hold_until=150) as server:
        samples = load(server.url, calls(150))
    assert {sample.outcome for sample in samples} == {Outcome.OK}


def test_nothing_is_sent_early_or_twice():
    with MockServer() as server:
        samples = load(server.url, calls(40, gap_s=0.005))
        assert len(server.served) == 40
    assert all(sample.lag_s >= 0 for sample in samples)
    assert [sample.intended_s for sample in samples] == pytest.approx([index * 0.005 for index in range(40)])


def test_times_agree_with_the_log_of_the_server():
    """Both sides read one clock, so a client can never see a token before the server wrote it."""
    with MockServer(ttft_s=0.03, itl_s=0.01) as server:
        samples = load(server.url, calls(10, gap_s=0.05, output_tokens=6))
        log = list(server.served)
    for sample, served in zip(samples, log, strict=True):
        assert sample.ttft_s is not None
        assert sample.e2e_s is not None
        assert sample.tpot_s is not None
        waited_s = served.written_s[0] - served.arrived_s
        assert waited_s <= sample.ttft_s < waited_s + 1.0
        streamed_s = served.written_s[-1] - served.arrived_s
        assert streamed_s <= sample.e2e_s < streamed_s + 1.0
        assert len(sample.itl_s) == len(served.written_s) - 1 == 5
        assert sum(sample.itl_s) == pytest.approx(sample.tpot_s * 5)
        assert sample.sent_s < sample.headers_s <= sample.chunk_s[0] <= sample.chunk_s[-1] <= sample.end_s


def test_tokens_are_counted_by_usage_when_events_carry_several_and_no_text():
    with MockServer(tokens_per_event=3, text="", itl_s=0.02) as server:
        (sample,) = load(server.url, calls(output_tokens=7))
    assert sample.ok
    assert len(sample.chunk_s) == 3
    assert sample.output_tokens == 7
    assert sample.tpot_s == pytest.approx((sample.chunk_s[-1] - sample.chunk_s[0]) / 6)


def test_a_single_token_has_no_tpot_and_no_gap():
    with MockServer() as server:
        (sample,) = load(server.url, calls(output_tokens=1))
    assert sample.ok
    assert sample.tpot_s is None
    assert sample.itl_s == []
    assert sample.e2e_s == sample.ttft_s


def test_latency_from_the_intended_send_holds_the_lag():
    sample = Sample(0, 1.0, 1.5, 1.6, (2.0, 3.0), 3.0, 3, 2, Outcome.OK)
    assert (sample.lag_s, sample.ttft_s, sample.ttft_from_intended_s) == (0.5, 0.5, 1.0)


def test_bodies_and_headers_arrive_as_given():
    with MockServer() as server:
        load(server.url + "/", calls(), headers=(("Authorization", "Bearer k"),))
        assert server.served[0].body["prompt"] == [1, 2, 3]
        assert server.served[0].headers["Authorization"] == "Bearer k"


def test_bodies_are_drawn_one_ahead():
    drawn = []

    def lazily():
        for call in calls(3, gap_s=0.2):
            drawn.append(time.perf_counter())
            yield call

    with MockServer() as server:
        load(server.url, lazily())
    assert drawn[2] - drawn[1] >= 0.15  # the third only after the second was due


def test_cancellation_ends_a_run_that_waits():
    async def cancelled(url):
        run = LoadRun(Endpoint(url, "m"), 600.0)
        task = asyncio.create_task(run.run(calls(3)))
        while run.in_flight < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with MockServer(Behaviour.SLOW_HEADERS) as server, pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled(server.url))


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "http://", "file:///etc/passwd"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(BadInput):
        Endpoint(url, "m")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OSError(24, "Too many open files"), Outcome.CLIENT_LIMIT),
        (ConnectionRefusedError(111, "Connection refused"), Outcome.REFUSED),
        (OSError(113, "No route to host"), Outcome.REFUSED),
        (socket.gaierror(-2, "Name or service not known"), Outcome.REFUSED),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), Outcome.TLS),
        (TimeoutError(), Outcome.CONNECT_TIMEOUT),
    ],
)
def test_a_connection_that_fails_says_whose_fault_it_was(error, outcome):
    assert _unconnected(error)[0] is outcome
