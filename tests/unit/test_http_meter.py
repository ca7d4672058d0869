"""The meter of trials: a load step of a deployment becomes figures, or a failure that says whose it is."""

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.measure.http_meter import HttpMeter
from tests.load_windows import DEAD, FakeDeployment, quiet_client, request, step  # noqa: F401
from tests.mock_server import Behaviour, MockServer, closed_port
from tuner.ask.request import Metric
from tuner.errors import BadInput, Cancelled, Cause, FailureReason, LaunchFailed
from tuner.trial.cancel import CancelHandle
from tuner.trial.seams import Meter, Watch


def test_a_meter_is_a_meter():
    assert isinstance(HttpMeter(), Meter)


@pytest.mark.slow
def test_a_good_server_is_measured():
    seen, words = {}, []
    meter = HttpMeter()
    with MockServer(ttft_s=0.01, itl_s=0.002) as server:
        result = meter.measure(
            FakeDeployment(server.url), step(seconds=1.2), request(), Watch(progress=words.append, samples=seen.update)
        )
        bodies = [served.body for served in server.served]
    assert (result.sent, result.completed, result.failed) == (24, 24, 0)
    assert not result.errors
    assert set(result.latency) == set(Metric)
    assert 0 < result.latency[Metric.ITL].count <= 24 * 3  # events that a busy machine reads at once have one time
    assert result.latency[Metric.TTFT].p50_ms >= 10
    assert result.slo_values_ms == {
        (Metric.TTFT, 99): result.latency[Metric.TTFT].p99_ms,
        (Metric.TPOT, 90): result.latency[Metric.TPOT].p90_ms,
    }
    assert result.goodput_req_per_s == pytest.approx(result.attainment * 24 / 1.2)
    assert (result.offered_s, result.ended_early, result.invalid, result.engine) == (1.2, None, None, {})
    assert set(result.slo_intervals_ms.values()) == {None}  # there is none of a p99 or p90 of 24 requests
    assert result.attainment_interval[0] <= result.attainment <= result.attainment_interval[1]
    assert result.output_tok_per_s == pytest.approx(24 * 4 / result.wall_s)
    assert {metric: len(values) for metric, values in seen.items()} == {
        metric: figures.count for metric, figures in result.latency.items()
    }
    assert len(words) >= 2
    assert "24/24 answered, TTFT p50" in words[-1]
    for body in bodies:
        assert 16 <= len(body["prompt"]) <= 32
        assert (body["max_tokens"], body["ignore_eos"], body["temperature"]) == (4, True, 0)
        assert (body["stream"], body["stream_options"], body["model"]) == (True, {"include_usage": True}, "tiny")


@pytest.mark.parametrize(("router", "kind"), [("PrefixCacheAffinityRouter", str), ("RoundRobinRouter", list)])
def test_a_router_that_looks_at_the_text_of_prompts_gets_some(router, kind):
    with MockServer(ttft_s=0.01, itl_s=0.002) as server:
        deployment = FakeDeployment(server.url, router=router)
        result = HttpMeter().measure(deployment, step(seconds=0.2), request(), Watch())
        prompts = [served.body["prompt"] for served in server.served]
    assert result.completed > 0
    assert {type(prompt) for prompt in prompts} == {kind}
    assert all(16 <= len(prompt.split() if kind is str else prompt) <= 32 for prompt in prompts)


@pytest.mark.slow
def test_failed_requests_count_as_missed_and_keep_out_of_the_latency():
    with MockServer(lambda number: Behaviour.HTTP_429 if number % 2 else Behaviour.OK) as server:
        result = HttpMeter().measure(FakeDeployment(server.url), step(), request(), Watch())
    assert (result.sent, result.completed, result.failed) == (10, 5, 5)
    assert result.errors["http_429"] == 5
    assert result.latency[Metric.TTFT].count == 5
    assert result.attainment is not None
    assert result.attainment <= 0.5
    assert not result.meets(request())


@pytest.mark.parametrize("behaviour", [Behaviour.ZERO_TOKENS, Behaviour.HTTP_500, Behaviour.RESET])
def test_a_server_that_answers_nothing_whole_fails_the_trial(behaviour):
    with MockServer(behaviour) as server, pytest.raises(LaunchFailed) as caught:
        HttpMeter().measure(FakeDeployment(server.url), step(seconds=0.1), request(), Watch())
    assert caught.value.reason is FailureReason.CLIENT_ERROR
    assert behaviour.value.replace("zero", "no") in caught.value.detail
    assert caught.value.log_tail == ("last words",)


def test_a_refused_connection_fails_the_trial():
    with pytest.raises(LaunchFailed, match="refused"):
        HttpMeter().measure(FakeDeployment(f"http://127.0.0.1:{closed_port()}"), step(seconds=0.1), request(), Watch())


@pytest.mark.slow
@pytest.mark.parametrize("answered", [0, 2])
def test_a_deployment_that_died_is_no_slow_deployment(answered):
    with (
        MockServer(lambda number: Behaviour.OK if number < answered else Behaviour.RESET) as server,
        pytest.raises(LaunchFailed) as caught,
    ):
        HttpMeter().measure(FakeDeployment(server.url, died=DEAD), step(seconds=0.2), request(), Watch())
    assert caught.value.reason is FailureReason.REPLICA_DIED
    assert "exit code -9" in caught.value.detail


@pytest.mark.slow
def test_requests_in_flight_at_the_end_of_the_window_count():
    with MockServer(ttft_s=0.4) as server:
        result = HttpMeter().measure(FakeDeployment(server.url), step(seconds=0.1), request(), Watch())
    assert (result.sent, result.completed) == (2, 2)
    assert result.wall_s >= 0.4


@pytest.mark.slow
def test_an_error_of_the_progress_callback_is_not_lost():
    def fail(figures):
        raise ZeroDivisionError

    with MockServer() as server, pytest.raises(ZeroDivisionError):
        HttpMeter().measure(FakeDeployment(server.url), step(seconds=0.8), request(), Watch(progress=fail))


@pytest.mark.parametrize("token_ids", [(-1, 5), (5, 5), (9, 3)])
def test_token_ids_that_make_no_prompt_are_refused(token_ids):
    with pytest.raises(BadInput):
        HttpMeter(token_ids=token_ids)


INTERRUPTED = """
import sys
from tests.load_windows import FakeDeployment, request, step
from serve.measure.http_meter import HttpMeter
from tuner.trial.seams import Watch
try:
    HttpMeter().measure(
        FakeDeployment(sys.argv[1]), step(), request(load={"request_timeout_s": 600}),
        Watch(progress=lambda words: print("running", flush=True)))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.slow
def test_ctrl_c_ends_a_measurement_at_once():
    with MockServer(Behaviour.SLOW_HEADERS) as server:
        command = [sys.executable, "-c", INTERRUPTED, server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()[-1], errors) == (0, "interrupted", "")


@pytest.mark.slow
def test_a_cancelled_measurement_ends_at_once_in_any_thread_and_the_server_stays():
    handle = CancelHandle()
    with MockServer(Behaviour.SLOW_HEADERS) as server, ThreadPoolExecutor() as threads:
        running = threading.Event()
        watch = Watch(handle, progress=lambda words: running.set())
        order = (FakeDeployment(server.url), step(), request(load={"request_timeout_s": 600}), watch)
        measured = threads.submit(HttpMeter().measure, *order)
        assert running.wait(20)
        asked_at = time.perf_counter()
        handle.cancel(Cause.OPERATOR, "enough")
        with pytest.raises(Cancelled, match="enough"):
            measured.result(20)
        assert time.perf_counter() - asked_at < 5
