"""Which path to an engine is measured next, by the model of the path and what was measured behind another."""

from __future__ import annotations

from dataclasses import replace

from tests.fakes import make_request, make_step
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric
from tuner.search.path_liking import by_path
from tuner.stats.intervals import Quantiles
from tuner.trial.results import LoadStep

PLAIN = ParallelLayout()


def preferred(paths, rate_req_per_s, ttft_ms, changes=None):
    request = make_request(
        {
            "workload.prompt_tokens": {"mean": 1024},
            "workload.output_tokens": {"mean": 128},
            "workload.arrival.requests_per_s": rate_req_per_s,
            **(changes or {}),
        }
    )
    step = make_step(LoadStep(0, rate_req_per_s, 10.0, 0), request, ttft_ms)
    latency = step.latency | {m: Quantiles(100, *[ms] * 5) for m, ms in ((Metric.TTFT, ttft_ms), (Metric.TPOT, 8.0))}
    step, liking = replace(step, latency=latency), by_path(Cluster.from_spec(request.cluster))
    layouts = [ParallelLayout.parse(f"tp=1,{path}") for path in paths]
    return [
        path
        for _, path in sorted((liking(request, PLAIN, step, one), p) for one, p in zip(layouts, paths, strict=True))
    ]


def test_a_path_that_keeps_up_comes_before_one_that_does_not():
    paths = ["ingress_replicas=1", "stream_interval_ms=50"]
    assert preferred(paths, 40, 900)[0] == "stream_interval_ms=50"


def test_at_little_load_what_holds_tokens_back_comes_last():
    paths = ["stream_interval_ms=100", "stream_interval_ms=20", "ingress_replicas=4"]
    assert preferred(paths, 1, 60) == ["ingress_replicas=4", "stream_interval_ms=20", "stream_interval_ms=100"]


def test_messages_come_as_often_as_a_target_asks():
    slo = [{"metric": "itl", "percentile": 99, "ms": 30}, {"metric": "ttft", "percentile": 99, "ms": 200}]
    paths = ["stream_interval_ms=50", "stream_interval_ms=20"]
    assert preferred(paths, 40, 900)[0] == "stream_interval_ms=50"
    assert preferred(paths, 40, 900, {"slo": slo}) == ["stream_interval_ms=20", "stream_interval_ms=50"]
