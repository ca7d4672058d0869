"""The engines' own histograms: of vLLM as it serves them, of Ray's agent, of older releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.measure.engine_latencies import fetch_latencies, parse_latencies
from tuner.ask.request import Metric

DATA = Path(__file__).parents[1] / "data" / "engine_metrics"
OLD = """
vllm:time_per_output_token_seconds_bucket{le="0.01",model_name="m"} 275.0
vllm:time_per_output_token_seconds_bucket{le="+Inf",model_name="m"} 286.0
vllm:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 3.0
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 4.0
vllm:time_to_first_token_seconds_count{model_name="m"} 4.0
"""
ADAPTERS = """
vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf",model_name="m"} 1.0
vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf",model_name="adapter"} 2.0
vllm:e2e_request_latency_seconds_bucket{engine="1",le="+Inf",model_name="m"} 4.0
"""


@pytest.mark.parametrize(
    ("name", "engine", "within_20_ms"),
    [("vllm_0.29.txt", "0/tiny", 24), ("ray_2.60_vllm_0.29.txt", "w6ncvtkw/0/tiny", 20)],
)
def test_a_recorded_text_has_every_metric(name: str, engine: str, within_20_ms: int) -> None:
    found = parse_latencies((DATA / name).read_text(encoding="utf-8"))
    assert list(found) == [engine]
    assert found[engine].model == "tiny"
    latencies = found[engine].latencies
    assert {metric: buckets.total for metric, buckets in latencies.items()} == {
        Metric.TTFT: 42, Metric.TPOT: 42, Metric.ITL: 286, Metric.E2E: 42,
    }  # fmt: skip
    within = latencies[Metric.TTFT].within(0.02)
    assert (within.least, within.likely, within.most) == (within_20_ms,) * 3


def test_what_older_releases_call_time_per_output_token_is_itl() -> None:
    latencies = parse_latencies(OLD)["0/m"].latencies
    assert {metric: buckets.total for metric, buckets in latencies.items()} == {Metric.TTFT: 4, Metric.ITL: 286}


def test_engines_and_models_are_apart() -> None:
    found = parse_latencies(ADAPTERS)
    assert {(name, one.model): one.latencies[Metric.E2E].total for name, one in found.items()} == {
        ("0/m", "m"): 1, ("0/adapter", "adapter"): 2, ("1/m", "m"): 4,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "<!DOCTYPE html>", "up 1\n", "vllm:num_requests_running 1.0\n"])
def test_a_text_without_histograms_has_none(text: str) -> None:
    assert parse_latencies(text) == {}


def test_a_broken_line_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        parse_latencies('vllm:time_to_first_token_seconds_bucket{model_name="m"} 3.0\n')


def test_nobody_there_says_why() -> None:
    engines, why = fetch_latencies("http://127.0.0.1:9/metrics")
    assert engines is None
    assert "cannot be read" in (why or "")
