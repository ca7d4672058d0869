"""Every bad server has its own outcome; none hangs the run, and none counts as fast."""

import asyncio
import json
import socket
import threading

import pytest

from serve.load.client import LoadRun
from serve.load.endpoint import Endpoint
from serve.load.request_sample import Outcome
from serve.load.request_spec import Call, Timeouts
from tests.mock_server import Behaviour, MockServer, closed_port

BEHAVIOURS = [
    (Behaviour.OK, "ok", 4),
    (Behaviour.HTTP_429, "http_429", 0),
    (Behaviour.HTTP_500, "http_500", 0),
    (Behaviour.WRONG_MODEL, "http_404", 0),
    (Behaviour.REDIRECT, "http_307", 0),
    (Behaviour.SLOW_HEADERS, "no_answer", 0),
    (Behaviour.STALL, "stalled", 2),
    (Behaviour.RESET, "reset", 2),
    (Behaviour.CLOSED, "closed", 0),
    (Behaviour.EMPTY, "empty", 0),
    (Behaviour.NOT_HTTP, "not_http", 0),
    (Behaviour.NOT_A_STREAM, "not_a_stream", 0),
    (Behaviour.NOT_JSON, "malformed", 2),
    (Behaviour.UNKNOWN_EVENT, "ok", 4),
    (Behaviour.HUGE_EVENT, "huge_event", 2),
    (Behaviour.BAD_USAGE, "malformed", 4),
    (Behaviour.ERROR_EVENT, "server_error", 2),
    (Behaviour.TRUNCATED, "truncated", 2),
    (Behaviour.NO_USAGE, "ok", 4),
    (Behaviour.ZERO_TOKENS, "no_tokens", 0),
    (Behaviour.SHORT, "ok", 3),
    (Behaviour.OVERLONG, "overlong", 5),
    (Behaviour.ENDLESS, "overlong", 49),
]


def calls(count=1, output_tokens=4):
    body = json.dumps({"model": "m", "prompt": [1, 2, 3], "max_tokens": output_tokens, "stream": True}).encode()
    return [Call(index, 0.0, body, 3, output_tokens) for index in range(count)]


def load(url, timeouts=20.0, requests=None):
    return asyncio.run(LoadRun(Endpoint(url, "m"), timeouts).run(requests or calls()))


@pytest.mark.slow
@pytest.mark.parametrize(("behaviour", "name", "events"), BEHAVIOURS)
def test_every_behaviour_is_its_own_outcome(behaviour, name, events):
    stalls = name in ("no_answer", "stalled")
    with MockServer(behaviour) as server:
        (sample,) = load(server.url, 1.0 if stalls else 20.0)
    assert (sample.error, sample.ok) == (name, name == "ok")
    # An aborted connection may take what was written just before with it.
    assert len(sample.chunk_s) <= events if name == "reset" else len(sample.chunk_s) == events
    if stalls:
        assert sample.end_s - sample.sent_s >= 1.0


def test_what_the_server_says_of_its_refusal_is_kept():
    with MockServer(Behaviour.WRONG_MODEL) as server:
        (sample,) = load(server.url)
    assert "The model `m` does not exist." in sample.detail


def test_a_missing_key_is_an_error_of_its_own():
    with MockServer(key="sk-1") as server:
        assert load(server.url)[0].error == "http_401"


def test_a_refused_connection_is_refused():
    (sample,) = load(f"http://127.0.0.1:{closed_port()}")
    assert (sample.outcome, sample.status, sample.ttft_s) == (Outcome.REFUSED, None, None)


def test_an_unknown_host_is_refused():
    (sample,) = load("http://no-such-host.invalid:1")
    assert sample.outcome is Outcome.REFUSED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "timeouts", "outcome"),
    [
        (Behaviour.SLOW_HEADERS, Timeouts(60.0, first_byte_s=0.2), Outcome.NO_ANSWER),
        (Behaviour.STALL, Timeouts(60.0, first_byte_s=30.0, stall_s=0.2), Outcome.STALLED),
        (Behaviour.OK, Timeouts(60.0, connect_s=20.0, first_byte_s=20.0, stall_s=20.0), Outcome.OK),
    ],
)
def test_each_limit_of_time_has_its_outcome(behaviour, timeouts, outcome):
    with MockServer(behaviour) as server:
        (sample,) = load(server.url, timeouts)
    assert sample.outcome is outcome
    assert sample.end_s < 30


@pytest.mark.slow
def test_a_stream_that_is_merely_slow_is_no_stall():
    with MockServer(itl_s=0.05) as server:
        (sample,) = load(server.url, Timeouts(1.0), calls(output_tokens=1000))
    assert sample.outcome is Outcome.TIMEOUT


@pytest.mark.slow
def test_a_full_backlog_is_a_connection_that_never_came():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        held = [socket.socket() for _ in range(3)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(address)
        (sample,) = load(f"http://127.0.0.1:{address[1]}", Timeouts(20.0, connect_s=0.3))
        for one in held:
            one.close()
    assert sample.outcome is Outcome.CONNECT_TIMEOUT


def answer_with(*parts):
    """A server that sends these bytes to the first request, part by part, and closes; its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        with server, server.accept()[0] as client:
            client.recv(1 << 16)
            for part in parts:
                client.sendall(part)

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
EVENTS = (
    b"""data: {"choices":[{"text":"a"}]}\n\ndata: {"choices":[],"usage":{"completion_tokens":4}}\n\ndata: [DONE]\n\n"""
)


@pytest.mark.parametrize(
    ("parts", "outcome"),
    [
        ([OK + b"\r\n", EVENTS], Outcome.OK),  # the close is the end
        ([OK + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(EVENTS), EVENTS], Outcome.OK),
        ([OK + b"\r\n"], Outcome.EMPTY),
        ([OK + b"Content-Length: 500\r\n\r\n", EVENTS], Outcome.RESET),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10\r\nhalf a ch"], Outcome.RESET),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n", b"no size\r\n"], Outcome.RESET),
        ([OK], Outcome.RESET),  # the headers do not end
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"\r\n", EVENTS], Outcome.OK),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], Outcome.HTTP_ERROR),
        ([b"HTTP/1.1 500 Oops\r\n\r\n" + b"x" * 100_000], Outcome.HTTP_ERROR),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], Outcome.NOT_A_STREAM),
        ([b"\x15\x03\x01\x00\x02\x02\x16"], Outcome.NOT_HTTP),  # TLS's word for: speak TLS
    ],
    ids=range(12),
)
def test_answers_on_the_wire(parts, outcome):
    (sample,) = load(f"http://127.0.0.1:{answer_with(*parts)}")
    assert sample.outcome is outcome
