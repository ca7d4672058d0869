"""Engine metrics beside a load: names of every supported vLLM, resets, and what is absent."""

import http.server
import threading
import time
from dataclasses import fields
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.measure.engine_metrics import EngineFigures, Scrape, Scraper, increase, parse_metrics, window_of

TODAY = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="tiny"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 1.0
vllm:num_requests_waiting{engine="1",model_name="tiny"} 0.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.5
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="tiny"} 2.0
# TYPE vllm:num_preemptions_created gauge
vllm:num_preemptions_created{engine="0",model_name="tiny"} 1.7e+09
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 100.0
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 40.0
vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf",model_name="tiny"} 5.0
"""
BOTH = """
vllm:num_requests_running{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.125
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.125
vllm:gpu_prefix_cache_queries_total{engine="0",model_name="m"} 32.0
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 32.0
vllm:gpu_prefix_cache_hits_total{engine="0",model_name="m"} 16.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 16.0
vllm:num_preemptions_total{engine="0",model_name="m"} 0.0
"""
OLD = """
vllm:num_requests_running{model_name="m"} 1.0
vllm:num_requests_swapped{model_name="m"} 9.0
vllm:num_requests_waiting{model_name="m"} 2.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.125
vllm:gpu_prefix_cache_hit_rate{model_name="m"} -1.0
vllm:num_preemptions_total{model_name="m"} 7.0
"""
RAY = """
ray_vllm_num_requests_running{Component="core_worker",ReplicaId="ab12",WorkerId="w1",engine="0",model_name="m"} 1.0
ray_vllm_num_requests_waiting{Component="core_worker",ReplicaId="ab12",WorkerId="w1",engine="0",model_name="m"} 2.0
ray_vllm:kv_cache_usage_perc{ReplicaId="cd34",engine="0",model_name="m"} 0.5
ray_serve_num_router_requests_total{application="a"} 4.0
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TODAY, {"0": EngineFigures(3, 1, 0.25, 2, 100, 40), "1": EngineFigures(4, 0, 0.5)}),
        (BOTH, {"0": EngineFigures(1, 2, 0.125, 0, 32, 16)}),
        (OLD, {"0": EngineFigures(1, 2, 0.125, 7)}),
        (RAY, {"ab12/0": EngineFigures(1, 2), "cd34/0": EngineFigures(kv_cache_share=0.5)}),
        ("", {}),
        ("<!DOCTYPE html><p>no metrics here", {}),
        ("# TYPE up gauge\nup 1\n", {}),
        ('vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 1.0\n', {}),
    ],
    ids=["today", "0.10, both names", "0.6, old names", "ray", "empty", "html", "other", "only a longer name"],
)
def test_names_of_every_version_are_read(text, expected):
    assert parse_metrics(text) == expected


def test_a_broken_line_of_ours_is_no_figure():
    with pytest.raises(ValueError, match="could not convert"):
        parse_metrics('vllm:num_requests_running{engine="0"} many\n')


def scrapes(*rows, every_s=1.0):
    return [Scrape(number * every_s, row) for number, row in enumerate(rows)]


def test_requests_add_up_and_the_fullest_cache_counts():
    window = window_of(scrapes(parse_metrics(TODAY), {"0": EngineFigures(1, 0, 0.75, 3, 150, 60)}), -1, 2)
    assert (window.running_mean, window.running_max) == (4, 7)
    assert (window.waiting_mean, window.waiting_max) == (0.5, 1)
    assert (window.kv_cache_share_mean, window.kv_cache_share_max) == (0.625, 0.75)
    assert (window.preemptions, window.prefix_queries_tokens, window.prefix_hits_tokens) == (1, 50, 20)
    assert window.prefix_hit_share == 0.4
    assert (window.restarted, window.missing) == ((), None)


def test_counters_start_from_the_last_scrape_before_the_window():
    rows = [{"0": EngineFigures(preemptions=value)} for value in (5, 7, 8, 12)]
    assert window_of(scrapes(*rows), 1.5, 2.5).preemptions == 1
    assert window_of(scrapes(*rows), 0.5, 9).preemptions == 7


def test_a_restarted_engine_is_named_and_its_counters_go_on_from_zero():
    rows = [{"0": EngineFigures(preemptions=v), "1": EngineFigures(preemptions=1)} for v in (10, 12, 3, 4)]
    window = window_of(scrapes(*rows), 0, 9)
    assert (window.preemptions, window.restarted) == (2 + 3 + 1, ("0",))


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20))
def test_a_counter_that_only_rises_grows_by_its_ends(steps):
    values = sorted(steps)
    found, fell = increase(scrapes(*({"0": EngineFigures(preemptions=v)} for v in values)), "preemptions")
    assert (found, fell) == (values[-1] - values[0], ())


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20))
def test_a_counter_never_grows_by_less_than_nothing(values):
    found, fell = increase(scrapes(*({"0": EngineFigures(preemptions=v)} for v in values)), "preemptions")
    assert found is not None
    assert found >= 0
    assert bool(fell) == any(later < earlier for earlier, later in pairwise(values))


def test_absent_figures_are_none():
    window = window_of(scrapes({"0": EngineFigures(running=1)}, {"0": EngineFigures(running=1)}), 0, 9)
    assert window.running_mean == 1
    absent = (window.waiting_mean, window.kv_cache_share_max, window.preemptions, window.prefix_hit_share)
    assert absent == (None, None, None, None)
    assert window_of([], 0, 1, "GET /metrics: 404").missing == "GET /metrics: 404"
    assert window_of(scrapes({"0": EngineFigures(running=1)}), 5, 6).missing == "no scrape fell into the window"


def test_every_figure_is_looked_for():
    assert all(getattr(parse_metrics(BOTH)["0"], field.name) is not None for field in fields(EngineFigures))


class Metrics(http.server.BaseHTTPRequestHandler):
    answers: list[tuple[int, str]]
    asked: list[str | None]

    def do_GET(self):
        self.asked.append(self.headers["Authorization"])
        status, text = self.answers[min(len(self.asked), len(self.answers)) - 1]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    """A metrics endpoint: hand it its answers; the last one goes on."""
    servers = []

    def serve(*answers):
        kind = type("Handler", (Metrics,), {"answers": list(answers), "asked": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/metrics", kind.asked

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_window_is_sampled_while_it_lasts(served):
    busier = TODAY.replace('running{engine="0",model_name="tiny"} 3', 'running{engine="0",model_name="tiny"} 30')
    url, asked = served((200, TODAY), (200, busier), (500, "busy"), (200, TODAY))
    start_s = time.perf_counter()
    with Scraper([url], {"Authorization": "Bearer k"}, every_s=0.01) as scraper:
        while len(asked) < 5:
            time.sleep(0.005)
        window = scraper.window(start_s, time.perf_counter())
        assert scraper.latest is not None
    assert (window.running_max, window.missing, set(asked)) == (34, None, {"Bearer k"})
    after = len(asked)
    time.sleep(0.03)
    assert len(asked) == after


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, "{}"), "answers with status 404"),
        ((200, "hello"), "exposes no metric of vLLM's"),
        ((200, "vllm:num_requests_running{ 1"), "not in Prometheus' text format"),
    ],
)
def test_an_endpoint_without_metrics_says_why_and_is_left_alone(served, answer, words):
    url, asked = served(answer)
    with Scraper([url], every_s=0.01) as scraper:
        time.sleep(0.03)
        window = scraper.window(0, time.perf_counter())
    assert words in (window.missing or "")
    assert (len(asked), window.running_mean, scraper.latest) == (1, None, None)


def test_nobody_there_says_why():
    with Scraper(["http://127.0.0.1:9/metrics"]) as scraper:
        assert "cannot be read" in (scraper.window(0, time.perf_counter()).missing or "")
    with Scraper([]) as scraper:
        assert scraper.window(0, 1).missing == "no metrics address is known"
