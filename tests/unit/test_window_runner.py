"""One window: from the workload to figures that count every request."""

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from serve.load.endpoint import Endpoint
from serve.load.request_sample import Outcome, Sample
from serve.load.saturation import ClientBound, ClientLimit
from serve.measure.http_meter import HttpMeter, step_result
from serve.measure.window_requests import order_of, share_of
from serve.measure.window_runner import WindowRunner
from tests.mock_server import Behaviour, MockServer, closed_port
from tuner.ask.arrivals import closed_load
from tuner.ask.request import Metric, SloTarget
from tuner.ask.request_document import parse_request
from tuner.ask.slo import Verdict
from tuner.errors import BadInput, Cancelled, Cause, FailureReason, LaunchFailed
from tuner.stats.sequential import SloTest
from tuner.trial.cancel import CancelHandle
from tuner.trial.results import LoadStep
from tuner.trial.seams import Meter, Watch


@pytest.fixture(autouse=True)
def quiet_client(monkeypatch):
    """Here the machine's other work must not decide whether a window is valid."""
    monkeypatch.setattr("serve.measure.window_runner.client_bound", lambda *_: None)


DEAD = (FailureReason.REPLICA_DIED, "exit code -9")


@dataclass
class FakeDeployment:
    """A deployment at ``url``; ``died`` is what it says of itself."""

    url: str
    died: tuple[FailureReason, str] | None = None
    model_id: str = "tiny"
    ready_after_s: float = 0.0

    def failure(self):
        return self.died

    def log_tail(self, lines=20):
        return ("last words",)

    def teardown(self):
        self.died = DEAD


def request(**changes):
    workload = {
        "prompt_tokens": {"mean": 24, "min": 16, "max": 32},
        "output_tokens": 4,
        "arrival": {"process": "constant", "requests_per_s": 20},
        "shared_prefix_tokens": 8,
    }
    return parse_request(
        {
            "model": "tiny",
            "cluster": {"gpu": "cpu", "gpus_per_node": 2},
            "workload": workload | changes.pop("workload", {}),
            "slo": [{"metric": "ttft", "percentile": 99, "ms": 500}, {"metric": "tpot", "percentile": 90, "ms": 50}],
            "load": {"request_timeout_s": 10},
            **changes,
        }
    )


def step(rate=20.0, seconds=0.5, seed=3, **other):
    return LoadStep(index=1, rate_req_per_s=rate, duration_s=seconds, seed=seed, **other)


@pytest.mark.slow
def test_the_asked_attainment_is_judged_while_the_window_runs_and_at_its_end(monkeypatch):
    asked = []

    class Recorder(SloTest):
        def __init__(self, *given, attainment=None, **rest):
            asked.append(attainment)
            super().__init__(*given, attainment=attainment, **rest)

    monkeypatch.setattr("serve.measure.window_runner.SloTest", Recorder)
    with MockServer() as server:
        order = order_of(step(), request(attainment=0.9))
        found = WindowRunner(Endpoint(server.url, "tiny")).run(order)
    assert (asked, found.figures.attainment_asked) == ([0.9], 0.9)


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
    assert result.latency[Metric.ITL].count == 24 * 3
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


@pytest.mark.slow
def test_progress_is_told_while_the_window_runs():
    progress = []
    with MockServer(ttft_s=0.01, itl_s=0.002) as server:
        runner = WindowRunner(Endpoint(server.url, "tiny"), on_progress=progress.append)
        found = runner.run(order_of(step(seconds=1.2), request()))
    assert len(progress) >= 2
    assert (progress[-1].sent, progress[-1].completed, progress[-1].in_flight) == (24, 24, 0)
    assert (progress[-1].expected, progress[-1].order.rate_req_per_s) == (24, 20)
    assert progress[-1].ttft_p50_ms == pytest.approx(found.figures.latency[Metric.TTFT].at_ms[50])


def prompts(a_step):
    order = order_of(a_step, request())
    made = list(share_of(order, Endpoint("http://h", "tiny")).calls)
    assert [call.prompt_tokens for call in made] == order.load.prompt_tokens.tolist()
    return [tuple(json.loads(call.body)["prompt"]) for call in made]


def test_prompts_share_their_prefix_and_nothing_else():
    steps = [step(), step(seed=4), step(warmup=True), LoadStep(2, 20.0, 0.5, 3)]
    made = [prompt for a_step in steps for prompt in prompts(a_step)]
    assert len({prompt[:8] for prompt in made}) == 1
    assert len({prompt[8:16] for prompt in made}) == len(made) == 40
    assert all(10 <= token <= 1000 for prompt in made for token in prompt)


def test_every_layout_gets_the_same_prompts():
    assert prompts(step()) == prompts(step())


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
from tests.unit.test_window_runner import FakeDeployment, request, step
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


def test_an_endpoint_of_a_deployment_is_its_completions_address():
    assert Endpoint("http://h:1/prefix/", "m").request_path == "/prefix/v1/completions"


def window(server, order=None, **changes):
    order = order or order_of(step(), request())
    return WindowRunner(Endpoint(server.url, "tiny")).run(replace(order, **changes))


@pytest.mark.slow
def test_a_closed_loop_keeps_its_users_busy_until_the_window_is_over():
    load = closed_load(request().workload, users=3, requests=5, seed=1)
    with MockServer(ttft_s=0.03) as server:
        found = window(server, load=load, duration_s=0.4, rate_req_per_s=None)
    assert len(server.served) == found.figures.completed == found.figures.sent
    assert found.figures.sent > 5  # beyond the lengths that were drawn
    assert [one.index for one in found.samples] == list(range(len(found.samples)))
    for now_s in (one.sent_s for one in found.samples):
        assert sum(one.sent_s <= now_s < one.end_s for one in found.samples) <= 3
    assert max(one.sent_s for one in found.samples) < 0.4


@pytest.mark.slow
def test_a_chat_sends_messages():
    with MockServer() as server:
        runner = WindowRunner(Endpoint(server.url, "tiny", chat=True))
        found = runner.run(order_of(step(), request()))
    (message,) = server.served[0].body["messages"]
    assert (message["role"], found.figures.completed) == ("user", 10)
    assert len(message["content"].split()) == found.samples[0].prompt_tokens


METRICS = """
vllm:num_requests_waiting{{engine="0"}} {waiting}
vllm:num_preemptions_total{{engine="0"}} {preemptions}
"""


@pytest.mark.slow
def test_the_engines_own_figures_stand_beside_the_window():
    with MockServer(metrics=lambda: METRICS.format(waiting=2, preemptions=len(server.served))) as server:
        runner = WindowRunner(Endpoint(server.url, "tiny"), [f"{server.url}/metrics"])
        found = runner.run(order_of(step(), request()))
    assert (found.engine.waiting_max, found.engine.preemptions) == (2, 10)
    assert (found.engine.running_mean, found.engine.missing) == (None, None)
    assert found.invalid is None
    assert step_result(found, step()).engine == {"waiting_mean": 2, "waiting_max": 2, "preemptions": 10}


@pytest.mark.slow
def test_an_engine_that_restarted_makes_the_window_invalid():
    counts = iter([5, 1, 1, 1])
    with MockServer(metrics=lambda: METRICS.format(waiting=0, preemptions=next(counts))) as server:
        found = WindowRunner(Endpoint(server.url, "tiny"), [f"{server.url}/metrics"]).run(order_of(step(), request()))
    assert "restarted" in (found.invalid or "")
    assert found.verdict is Verdict.UNKNOWN


@pytest.mark.slow
def test_a_window_whose_client_was_the_bottleneck_is_invalid(monkeypatch):
    bound = ClientBound(ClientLimit.CPU, "the client used 99% of a core")
    monkeypatch.setattr("serve.measure.window_runner.client_bound", lambda *_: bound)
    with MockServer() as server:
        found = window(server)
        result = HttpMeter().measure(FakeDeployment(server.url), step(), request(), Watch())
    assert found.invalid == "the client was the bottleneck: the client used 99% of a core"
    assert found.verdict is Verdict.UNKNOWN
    assert (found.figures.verdict, result.client_bound) == (Verdict.MET, True)


@pytest.mark.slow
def test_a_window_without_an_answer_is_invalid_and_not_slow():
    with MockServer(Behaviour.HTTP_500) as server:
        found = window(server)
    assert "10 of 10 requests failed; most often (10): http_500" in (found.invalid or "")
    assert (found.verdict, found.figures.verdict) == (Verdict.UNKNOWN, Verdict.MISSED)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_the_shares_of_all_workers_are_the_window(workers):
    order, endpoint = order_of(step(seconds=2), request()), Endpoint("http://h", "tiny")
    shares = [list(share_of(order, endpoint, worker, workers).calls) for worker in range(workers)]
    assert all(calls == sorted(calls, key=lambda call: call.intended_s) for calls in shares)
    assert sorted((call for calls in shares for call in calls), key=lambda call: call.index) == list(
        share_of(order, endpoint).calls
    )


@pytest.mark.slow
def test_several_processes_send_one_window():
    with MockServer(ttft_s=0.01) as server:
        found = WindowRunner(Endpoint(server.url, "tiny"), workers=2).run(order_of(step(seconds=1), request()))
        bodies = [served.body["prompt"] for served in server.served]
    assert [one.index for one in found.samples] == list(range(20))
    assert (found.figures.completed, found.client.workers) == (20, 2)
    assert sorted(bodies) == sorted(
        json.loads(call.body)["prompt"] for call in share_of(found.order, Endpoint(server.url, "tiny")).calls
    )


def test_users_are_shared_out_and_no_two_requests_have_one_number():
    load = closed_load(request().workload, users=5, requests=100, seed=1)
    order = replace(order_of(step(seconds=9), request()), load=load)
    numbers = []
    for worker in range(3):
        share = share_of(order, Endpoint("http://h", "tiny"), worker, 3)
        for call in share.calls:
            while call is not None:
                numbers.append(call.index)
                end_s = call.intended_s + 1.5
                done = Sample(call.index, 0, 0, 0, (end_s,), end_s, 16, 4, Outcome.OK)
                call = share.then(call, done)
    assert len(numbers) == len(set(numbers)) == 5 * 6
    assert set(range(5)) < set(numbers)


def long_order(*slo, rate=100.0, seconds=30.0):
    asked = request(slo=[target.model_dump() for target in map(SloTarget.parse, slo)])
    return order_of(step(rate=rate, seconds=seconds), asked)


@pytest.mark.slow
def test_a_window_ends_when_the_slo_is_certainly_missed_and_leaves_nothing_in_flight():
    with MockServer(ttft_s=3.0) as server:
        found = window(server, long_order("ttft:p90:100"))
    assert (found.ended_early, found.verdict, found.certain) == (Verdict.MISSED, Verdict.MISSED, True)
    assert found.figures.offered_s < 20
    assert found.figures.cut_off > 0
    assert found.figures.failed == 0
    assert (found.figures.targets[0].value_ms or 0) > 100
    assert max(one.end_s for one in found.samples) < 20


@pytest.mark.slow
def test_a_window_ends_when_the_slo_is_certainly_met_and_waits_for_its_answers():
    with MockServer(ttft_s=0.02) as server:
        found = window(server, long_order("ttft:p90:5000"))
    assert (found.ended_early, found.verdict, found.certain) == (Verdict.MET, Verdict.MET, True)
    assert found.figures.offered_s < 20
    assert found.figures.completed == found.figures.sent == len(server.served)
    assert found.figures.goodput_req_per_s == pytest.approx(found.figures.sent / found.figures.offered_s)


@pytest.mark.slow
def test_a_whole_window_is_asked_for():
    with MockServer(ttft_s=0.02) as server:
        runner = WindowRunner(Endpoint(server.url, "tiny"), whole_windows=True)
        found = runner.run(long_order("ttft:p50:5000", seconds=1.5))
    assert (found.ended_early, found.figures.offered_s) == (None, 1.5)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "ended"), [("ttft:p50:5000", None), ("ttft:p50:0.001", Verdict.MISSED)])
def test_where_latencies_are_compared_only_a_miss_ends_a_window(target, ended):
    with MockServer(ttft_s=0.02) as server:
        runner = WindowRunner(Endpoint(server.url, "tiny"), met_is_enough=False)
        found = runner.run(long_order(target, seconds=1.5))
    assert found.ended_early is ended
    assert (found.figures.offered_s == 1.5) is (ended is None)


@pytest.mark.slow
def test_the_lead_in_is_sent_and_does_not_count():
    order = order_of(step(seconds=1.0), request())
    with MockServer(lambda number: Behaviour.HTTP_500 if number < 10 else Behaviour.OK) as server:
        found = window(server, order, lead_s=0.5, duration_s=0.5)
    assert (len(found.samples), len(found.counted)) == (20, 10)
    assert (found.figures.sent, found.figures.completed, found.figures.failed) == (10, 10, 0)
    assert found.figures.offered_req_per_s == pytest.approx(20)


@pytest.mark.slow
def test_a_window_that_met_its_slo_while_the_queue_grew_decides_nothing(monkeypatch):
    monkeypatch.setattr("serve.measure.window_runner.unsteady", lambda samples: "requests in flight rose by 9")
    with MockServer() as server:
        met = window(server, long_order("ttft:p99:5000", rate=20, seconds=0.5))
        missed = window(server, long_order("ttft:p99:0.001", rate=20, seconds=0.5))
    assert (met.verdict, met.invalid) == (
        Verdict.UNKNOWN,
        "not steady, so a longer window may miss the SLO: requests in flight rose by 9",
    )
    assert (missed.verdict, missed.invalid) == (Verdict.MISSED, None)
