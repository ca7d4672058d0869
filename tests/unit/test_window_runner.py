"""One window: from the workload to figures that count every request."""

import json
from dataclasses import replace

import pytest

from serve.load.endpoint import Endpoint
from serve.load.request_sample import Outcome, Sample
from serve.load.saturation import ClientBound, ClientLimit
from serve.measure.http_meter import HttpMeter, step_result
from serve.measure.window_requests import order_of, share_of
from serve.measure.window_runner import WindowRunner
from tests.load_windows import FakeDeployment, quiet_client, request, step  # noqa: F401
from tests.mock_server import Behaviour, MockServer
from tuner.ask.arrivals import closed_load
from tuner.ask.request import Metric, SloTarget
from tuner.ask.slo import Verdict
from tuner.stats.sequential import SloTest
from tuner.trial.results import LoadStep
from tuner.trial.seams import Watch


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
