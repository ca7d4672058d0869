"""``parlay simulate`` as a person or a script meets it."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.fakes import make_request
from tuner.app.simulate import SimulateOptions, simulate_answer, simulate_tables
from tuner.ask.layout import ParallelLayout
from tuner.errors import BadInput

REQUEST = make_request({"workload.prompt_tokens": 512, "workload.output_tokens": 64})


def options(text="tp=1", **changes):
    return SimulateOptions(ParallelLayout.parse(text), **({"requests": 200} | changes))


def asked(request, wanted):
    """The answer as a script reads it."""
    return json.loads(simulate_answer(request, wanted).to_json())


def test_the_answer_has_the_documented_keys():
    answer = asked(REQUEST, options())
    for metric in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"):
        found = answer[metric]
        assert list(found) == ["p50", "p90", "p95", "p99", "mean"]
        assert 0 < found["p50"] <= found["p90"] <= found["p95"] <= found["p99"]
    assert 0 <= answer["attainment"] <= 1
    assert 0 < answer["goodput_req_per_s"] <= answer["max_rate_req_per_s"]
    assert answer["simulated_output_tokens"] == 64 * answer["load"]["requests"]
    assert answer["seconds"] > 0
    assert answer["simulated"] is True
    low, high = answer["slo"][0]["interval_ms"]
    assert low <= answer["slo"][0]["ms"] <= high


@pytest.mark.slow
def test_attainment_counts_beside_the_targets():
    ttft_ms = asked(REQUEST, options())["ttft_ms"]
    target = {"metric": "ttft", "percentile": 50, "ms": (ttft_ms["p50"] + ttft_ms["p90"]) / 2}
    lengths = {"workload.prompt_tokens": 512, "workload.output_tokens": 64}
    alone, beside = (
        asked(make_request({**lengths, "slo": [target], **more}), options()) for more in ({}, {"attainment": 0.95})
    )
    assert alone["slo"] == beside["slo"]
    assert 0.5 <= beside["attainment"] < 0.95
    assert (alone["meets_slo"], beside["meets_slo"]) == (True, False)
    assert beside["max_rate_req_per_s"] < alone["max_rate_req_per_s"]


@pytest.mark.slow
def test_one_seed_one_answer():
    first, second, other = (asked(REQUEST, options(seed=seed)) for seed in (3, 3, 4))
    for answer in (first, second, other):
        del answer["seconds"]
    assert first == second
    assert first["ttft_ms"] != other["ttft_ms"]


@pytest.mark.slow
def test_rate_users_and_trace_replace_the_asked_load(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp,prompt_tokens,output_tokens\n0,400,10\n1,3000,20\n")
    faster = asked(REQUEST, options(rate_req_per_s=30.0))
    assert faster["load"]["rate_req_per_s"] == pytest.approx(30, rel=0.2)
    assert asked(REQUEST, options(users=5))["load"] == {"requests": 200, "users": 5}
    roomy = make_request({"engine.max_model_len": 4096})
    assert asked(roomy, options(trace=trace, requests=None))["simulated_output_tokens"] == 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "tp=3"}, "--layout"),
        ({"text": "tp=1,dp=16"}, "--layout"),
        ({"rate_req_per_s": 1.0, "users": 2}, "one of --rate, --users"),
        ({"rate_req_per_s": 0.0}, "--rate"),
        ({"users": 0}, "load.users"),
        ({"trace": Path("nowhere.csv")}, "trace"),
        ({"router": "fastest"}, "router"),
    ],
)
def test_what_cannot_be_simulated_is_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        simulate_answer(REQUEST, options(**changes))


def test_a_layout_that_does_not_fit_is_refused_with_its_memory():
    large = make_request({"model": "meta-llama/Llama-3.1-405B"})
    with pytest.raises(BadInput, match="GiB exceed"):
        simulate_answer(large, options("tp=1"))


def test_people_are_told_that_it_is_simulated():
    console = Console(record=True, width=120, file=io.StringIO())
    simulate_tables(console, simulate_answer(REQUEST, options("tp=1,dp=2", users=8)))
    text = console.export_text()
    for words in ("Simulated: tp=1,pp=1,dp=2", "8 users in a closed loop", "TTFT", "attainment", "2 replica(s)"):
        assert words in text


def pools(prefill="tp=2", decode="tp=1,dp=2", **changes):
    parse = ParallelLayout.parse
    made = SimulateOptions(prefill_layout=parse(prefill), decode_layout=parse(decode), requests=100)
    return replace(made, **changes)


@pytest.mark.slow
def test_two_pools_and_what_passes_between_them():
    answer = asked(REQUEST, pools())
    assert [(pool["role"], pool["gpus"]) for pool in answer["pools"]] == [("prefill", 2), ("decode", 2)]
    assert answer["gpus"] == 4
    assert answer["kv_transfer"]["mean_bytes_per_request"] == 32 * 2 * 8 * 128 * 2 * 512
    assert 0 < answer["kv_transfer"]["mean_ms"] <= answer["kv_transfer"]["max_ms"]
    assert [one["role"] for one in answer["replicas"]] == ["prefill", "decode", "decode"]
    assert answer["max_rate_req_per_s"] > 0
    assert asked(REQUEST, options())["kv_transfer"] is None
    console = Console(file=io.StringIO(), width=200)
    simulate_tables(console, simulate_answer(REQUEST, pools()))
    text = console.file.getvalue()
    assert "replica(s) for decode (tp=1" in text
    assert "KV cache handed over: 67.1 MB" in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (SimulateOptions(), "--prefill-layout with --decode-layout"),
        (pools(layout=ParallelLayout()), "--prefill-layout with --decode-layout"),
        (pools(decode_layout=None), "--decode-layout: got None"),
        (pools(decode="tp=3"), "--decode-layout"),
        (pools(prefill="tp=8"), "pools of 10 devices"),
        (pools(decode="tp=1,gpu=l40s"), "gpu=l40s, the nodes have"),
        (pools(decode="tp=1,kv_cache_dtype=fp8"), "'kv_cache_dtype=fp8'; allowed: auto, as the prefill pool"),
        (pools(users=4), "closed loop"),
    ],
)
def test_pools_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(BadInput, match=message):
        simulate_answer(REQUEST, wrong)
