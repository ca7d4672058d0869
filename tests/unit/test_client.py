"""The client sends on time, counts what the server sent, and gives every bad server its own outcome."""

import asyncio
import json
import socket
import ssl
import time

import pytest

from serve.load.client import LoadRun
from serve.load.connection_pool import unconnected
from serve.load.endpoint import Endpoint
from serve.load.request_sample import Outcome, Sample
from serve.load.request_spec import Call
from tests.mock_server import Behaviour, MockServer


def calls(count=1, gap_s=0.0, output_tokens=4):
    body = json.dumps({"model": "m", "prompt": [1, 2, 3], "max_tokens": output_tokens, "stream": True}).encode()
    return [Call(index, index * gap_s, body, 3, output_tokens) for index in range(count)]


def load(url, requests, timeout_s=20.0, **endpoint):
    return asyncio.run(LoadRun(Endpoint(url, "m", **endpoint), timeout_s).run(requests))


@pytest.mark.slow
def test_one_bad_answer_leaves_the_others_whole():
    pattern = [Behaviour.OK, Behaviour.RESET, Behaviour.OK, Behaviour.STALL, Behaviour.HTTP_500, Behaviour.OK]
    with MockServer(lambda number: pattern[number]) as server:
        samples = load(server.url, calls(6, gap_s=0.05), timeout_s=1.5)
    assert [sample.index for sample in samples] == list(range(6))
    assert sorted(sample.error for sample in samples) == ["http_500", "ok", "ok", "ok", "reset", "stalled"]


@pytest.mark.slow
def test_sending_does_not_wait_for_answers():
    """A closed loop, or a pool of connections, would wait for ever for the first of these answers."""
    with MockServer(hold_until=150) as server:
        samples = load(server.url, calls(150))
    assert {sample.outcome for sample in samples} == {Outcome.OK}


@pytest.mark.slow
def test_nothing_is_sent_early_or_twice():
    with MockServer() as server:
        samples = load(server.url, calls(40, gap_s=0.005))
        assert len(server.served) == 40
    assert all(sample.lag_s >= 0 for sample in samples)
    assert [sample.intended_s for sample in samples] == pytest.approx([index * 0.005 for index in range(40)])


@pytest.mark.slow
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
    assert sample.opening_tokens == 2  # an event carries as many as all do on average
    assert sample.tpot_s == pytest.approx((sample.chunk_s[-1] - sample.chunk_s[0]) / 5)


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


@pytest.mark.slow
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


def test_a_chat_streams_as_completions_do():
    """The event that only names the role and the last one without content are no tokens."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi to you"}], "max_tokens": 4}).encode()
    with MockServer(ttft_s=0.05, text="é") as server:
        (sample,) = load(server.url, [Call(0, 0.0, body, 3, 4, keep_text=True)], chat=True)
        (served,) = server.served
    assert sample.ok
    assert len(sample.chunk_s) == 4
    assert sample.ttft_s >= served.written_s[0] - served.arrived_s
    assert (sample.text, sample.counted_prompt_tokens) == ("éééé", 3)


@pytest.mark.slow
def test_a_closed_loop_waits_for_the_answer_and_thinks():
    def then(call, sample):
        return Call(call.index + 2, sample.end_s + 0.05, call.body, 3, 4) if call.index < 4 else None

    with MockServer(ttft_s=0.02) as server:
        run = LoadRun(Endpoint(server.url, "m"), 20.0)
        samples = asyncio.run(run.run(calls(2), then))
        assert len(server.served) == 6
    assert [sample.index for sample in samples] == list(range(6))
    for earlier, later in zip(samples, samples[2:], strict=False):
        assert later.sent_s >= earlier.end_s + 0.05 == later.intended_s


def test_users_use_their_connections_again():
    def then(call, sample):
        return Call(call.index + 1, 0.0, call.body, 3, 4) if call.index < 5 else None

    with MockServer() as server:
        run = LoadRun(Endpoint(server.url, "m"), 20.0)
        samples = asyncio.run(run.run(calls(1), then))
        assert {sample.outcome for sample in samples} == {Outcome.OK}
        assert len({served.peer for served in server.served}) == 1


def test_a_failed_request_is_told_too():
    told = []
    with MockServer(Behaviour.HTTP_500) as server:
        run = LoadRun(Endpoint(server.url, "m"), 20.0)
        samples = asyncio.run(run.run(calls(2), lambda call, sample: told.append((call.index, sample.error))))
    assert sorted(told) == [(0, "http_500"), (1, "http_500")]
    assert len(samples) == 2


def test_an_error_of_the_caller_ends_the_run():
    def then(call, sample):
        raise RuntimeError("no more turns")

    with MockServer() as server, pytest.raises(RuntimeError, match="no more turns"):
        asyncio.run(LoadRun(Endpoint(server.url, "m"), 20.0).run(calls(3, gap_s=0.01), then))


@pytest.mark.slow
@pytest.mark.parametrize("cut_off", [True, False])
def test_a_window_can_be_ended_early(cut_off):
    async def stopped(url):
        run = LoadRun(Endpoint(url, "m"), 20.0)
        task = asyncio.create_task(run.run(calls(10, gap_s=0.0) + calls(20, gap_s=100.0)[10:]))
        while len([call for call in run.open_calls() if call.first_token_s is not None]) < 10:
            await asyncio.sleep(0.01)
        run.stop(cut_off=cut_off)
        return await task

    with MockServer(itl_s=0.1) as server:
        samples = asyncio.run(stopped(server.url))
    assert len(samples) == 10
    assert {sample.outcome for sample in samples} == {Outcome.CUT_OFF if cut_off else Outcome.OK}


@pytest.mark.slow
def test_a_window_may_open_later():
    """By the server's log nothing comes before it has opened."""
    start_s = time.perf_counter() + 0.2
    with MockServer() as server:
        samples = asyncio.run(LoadRun(Endpoint(server.url, "m"), 20.0).run(calls(3, gap_s=0.01), None, start_s))
        assert all(served.arrived_s >= start_s for served in server.served)
    assert all(sample.lag_s >= 0 for sample in samples)


def test_an_index_is_used_once():
    with MockServer(Behaviour.SLOW_HEADERS) as server, pytest.raises(ValueError, match="index 0"):
        load(server.url, [*calls(), *calls()])


@pytest.mark.slow
def test_the_client_reports_on_itself():
    with MockServer() as server:
        run = LoadRun(Endpoint(server.url, "m"), 20.0)
        asyncio.run(run.run(calls(10, gap_s=0.02)))
    assert run.client_load is not None
    assert len(run.client_load.loop_lag_s) > 1
    assert all(lag_s >= 0 for lag_s in run.client_load.loop_lag_s)
    assert run.client_load.cpu_share > 0
    assert (run.sent, run.in_flight) == (10, 0)


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
    assert unconnected(error)[0] is outcome
