"""A request whose load is a trace: its lengths, rate and limits are the trace's, wherever they are asked for."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import document
from tuner.app.cli.commands import main
from tuner.app.simulate import SimulateOptions, simulate_answer
from tuner.app.tune.report_data import _request_facts
from tuner.app.wiring import plan_request
from tuner.ask.arrivals import closed_load, offered
from tuner.ask.layout import ParallelLayout
from tuner.ask.recorded import notes
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import load_request, parse_request
from tuner.ask.traces import read_trace
from tuner.ask.workload import TooLong
from tuner.errors import BadInput
from tuner.study.resuming import require_same_request

CASES = Path(__file__).parents[1] / "data" / "cases"
AZURE = CASES / "simulate_trace_max_rate" / "azure_code_300.csv"
ONE_GPU = {"space": {"tp": [1], "dp": [1], "max_num_batched_tokens": [8192], "max_num_seqs": [256]}}


def traced(trace, arrival=None, **changes):
    """The document of a request that names a trace alone."""
    work = {"arrival": {"process": "trace", "trace": str(trace), **(arrival or {})}}
    return document({"workload": work | changes.pop("workload", {}), **changes})


def csv(path, rows):
    """A trace of ours: rows of time in s, prompt and output tokens."""
    path.write_text("timestamp,prompt_tokens,output_tokens\n" + "".join(f"{t},{p},{o}\n" for t, p, o in rows))
    return path


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["parlay", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    found = capsys.readouterr()
    return stop.value.code, found.out, found.err


@pytest.mark.slow
def test_the_highest_rate_of_a_simulated_trace_is_the_traces(monkeypatch, capsys, tmp_path):
    asked = yaml.safe_load((CASES / "simulate_trace_max_rate" / "request.yaml").read_text())
    asked["engine"] = {"max_model_len": 8192}
    path = tmp_path / "request.yaml"
    path.write_text(yaml.safe_dump(asked))
    words = ("simulate", path, "--layout", "tp=1", "--trace", AZURE)
    code, out, _ = command(monkeypatch, capsys, *words[:3], "tp=1,front=vllm", *words[4:], "--json")
    direct = json.loads(out)
    assert code == 0
    assert direct["max_rate_req_per_s"] == pytest.approx(2.76, rel=0.01)
    code, out, _ = command(monkeypatch, capsys, *words, "--json")
    answer = json.loads(out)
    assert code == 0
    assert 0.95 < answer["max_rate_req_per_s"] / direct["max_rate_req_per_s"] <= 1  # the path takes some of it
    assert answer["load"]["rate_req_per_s"] == pytest.approx(299 / 216.838, rel=1e-4)
    code, out, _ = command(monkeypatch, capsys, *words)
    assert f"the SLO holds up to {answer['max_rate_req_per_s']:.2f} req/s, in the rhythm of the trace" in out


@pytest.mark.slow
def test_what_the_engine_would_refuse_is_counted_and_named(monkeypatch, capsys):
    request = CASES / "simulate_trace_max_rate" / "request.yaml"
    words = ("simulate", request, "--layout", "tp=1", "--trace", AZURE)
    code, _, said = command(monkeypatch, capsys, *words)
    assert code == 2
    assert "176 of 300 requests longer than 1,152 tokens; the longest, line 79, has 7,448" in said
    assert "--too-long" in said
    tokens = read_trace(AZURE).prompt_tokens + read_trace(AZURE).output_tokens
    for choice, left in (("skip", 124), ("truncate", 300)):
        code, out, _ = command(monkeypatch, capsys, *words, "--too-long", choice, "--json")
        answer = json.loads(out)
        assert (code, answer["load"]["requests"], answer["trace"]["too_long"]) == (0, left, int((tokens > 1152).sum()))
        assert answer["trace"]["longest_tokens"] <= 1152
        assert (
            "176 of 300 requests of the trace are longer than max_model_len, 1,152 tokens"
            in answer["trace"]["notes"][0]
        )


@pytest.mark.slow
def test_a_request_may_name_its_trace_alone(monkeypatch, capsys):
    folder = CASES / "trace_lengths_cannot_be_said"
    asked = yaml.safe_load((folder / "request.yaml").read_text())
    request = parse_request(asked, folder=AZURE.parent)
    lengths = request.workload.prompt_tokens
    assert (lengths.mean, lengths.bounds) == (pytest.approx(2091.763, abs=1e-3), (14, 7436))
    assert request.max_model_len == 7448
    found, _ = plan_request(request)
    assert found.ranked[0].prediction.goodput_req_per_s == pytest.approx(20.2, rel=0.05)
    uniform = yaml.safe_load((folder / "request_uniform.yaml").read_text())
    with pytest.raises(BadInput, match=r"prompt_tokens.*nothing, as the trace brings its own \(mean 2091.76, min 14"):
        parse_request(uniform, folder=AZURE.parent)


def test_a_trace_is_found_beside_its_request(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    csv(tmp_path / "here" / "t.csv", [(0, 10, 2), (1, 20, 2)])
    path = tmp_path / "here" / "request.yaml"
    path.write_text(yaml.safe_dump(traced("t.csv")))
    monkeypatch.chdir(tmp_path)
    assert load_request(path).workload.arrival.trace == str(tmp_path / "here" / "t.csv")
    csv(tmp_path / "t.csv", [(0, 30, 2), (1, 40, 2)])
    assert load_request(path).workload.prompt_tokens.bounds == (30, 40)  # the working directory comes first


ROWS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(1, 5000), st.integers(1, 900)), min_size=2, max_size=40
).filter(lambda rows: len({t for t, _, _ in rows}) > 1)


@pytest.mark.slow
@settings(max_examples=15)
@given(rows=ROWS, rate=st.floats(0.01, 100))
def test_the_resolved_workload_is_what_the_trace_holds(rows, rate, tmp_path_factory):
    path = csv(tmp_path_factory.mktemp("trace") / "t.csv", rows)
    request = parse_request(traced(path, slo=[{"metric": "ttft", "percentile": 99, "ms": 100}]))
    work = request.workload
    for lengths, column in ((work.prompt_tokens, 1), (work.output_tokens, 2)):
        values = [row[column] for row in rows]
        assert lengths.mean == pytest.approx(np.mean(values))
        assert lengths.bounds == (min(values), max(values))
    assert request.max_model_len == max(p + o for _, p, o in rows)
    span_s = max(t for t, _, _ in rows) - min(t for t, _, _ in rows)
    assert work.arrival.requests_per_s == pytest.approx((len(rows) - 1) / span_s)
    assert TuneRequest.model_validate_json(request.model_dump_json()) == request
    assert (
        parse_request(request.model_dump(mode="json")) == request
    )  # what was read says the same when it is read again
    load = offered(work, rate, len(rows) / rate, seed=3)
    assert sorted(zip(load.prompt_tokens.tolist(), load.output_tokens.tolist(), strict=True)) == sorted(
        row[1:] for row in rows
    )
    assert load.rate_req_per_s == pytest.approx(rate)


@pytest.mark.slow
@settings(max_examples=15)
@given(rows=ROWS, limit=st.integers(2, 6000))
def test_too_long_requests_are_refused_skipped_or_truncated(rows, limit, tmp_path_factory):
    path = csv(tmp_path_factory.mktemp("trace") / "t.csv", rows)
    slo = [{"metric": "e2e", "percentile": 99, "ms": 100}]
    rows = sorted(rows, key=lambda row: row[0])
    over = [row for row in rows if row[1] + row[2] > limit]

    def read(too_long):
        return parse_request(traced(path, {"too_long": too_long, "requests_per_s": 1}, slo=slo, **engine))

    engine = {"engine": {"max_model_len": limit}}
    if over:
        with pytest.raises(BadInput, match=f"the longest, line \\d+, has {max(p + o for _, p, o in rows):,}"):
            read("refuse")
    else:
        assert notes(read("refuse").workload) == ()
    if len(over) == len(rows):
        with pytest.raises(BadInput, match="all "):
            read("skip")
    for choice in ("truncate", *(["skip"] if len(over) < len(rows) else [])):
        work = read(choice).workload
        load = offered(work, 1.0, float(len(rows)), seed=0)
        assert int((load.prompt_tokens + load.output_tokens).max()) <= limit
        assert min(load.prompt_tokens.min(), load.output_tokens.min()) >= 1
        assert work.arrival.recorded.too_long == len(over)
        left = len(rows) - (len(over) if choice == "skip" else 0)
        assert work.arrival.recorded.requests == left
        assert len(notes(work)) == (1 if over else 0)


@pytest.mark.parametrize("process", ["poisson", "trace"])
@pytest.mark.parametrize("rate", [2.0, 3.5])
@pytest.mark.slow
def test_simulate_and_a_simulated_plan_give_one_verdict(process, rate):
    asked = traced(AZURE, {"requests_per_s": rate}, slo=[{"metric": "tpot", "percentile": 99, "ms": 100}], **ONE_GPU)
    if process == "poisson":
        asked["workload"] = {"prompt_tokens": 512, "output_tokens": 64, "arrival": {"requests_per_s": rate}}
    request = parse_request(asked)
    found, _ = plan_request(request, 1)
    best = found.ranked[0]
    requests, seed = (None, 0) if process == "trace" else (500, 20260201)
    answer = simulate_answer(request, SimulateOptions(best.layout, requests=requests, seed=seed))
    assert answer.meets_slo is best.prediction.meets_slo
    assert answer.max_rate_req_per_s == best.prediction.goodput_req_per_s
    if process == "trace":
        other = parse_request(document({"engine.max_model_len": request.max_model_len, "slo": asked["slo"], **ONE_GPU}))
        replayed = SimulateOptions(best.layout, trace=AZURE, rate_req_per_s=rate)
        again = simulate_answer(other, replayed)  # the same trace in place of another load
        assert again.load == answer.load
        assert again.max_rate_req_per_s == pytest.approx(answer.max_rate_req_per_s, rel=0.02)
        assert again.meets_slo is answer.meets_slo


GIVEN = [
    ({"prompt_tokens": {"mean": 15, "min": 10, "max": 20}}, True),
    ({"prompt_tokens": {"mean": 15}}, False),  # all have one length: they do not
    ({"prompt_tokens": 15, "output_tokens": 2}, False),
    ({"output_tokens": 2}, True),
    ({"output_tokens": {"mean": 2, "min": 2, "max": 2}}, True),
    ({"prompt_tokens": {"mean": 16, "min": 10, "max": 20}}, False),
    ({"prompt_tokens": {"mean": 15, "min": 10, "max": 21}}, False),
    ({"prompt_tokens": {"mean": 15, "min": 10, "max": 20, "distribution": "normal", "sd": 4}}, False),
    ({"prompt_tokens": {"mean": 15, "min": 10, "max": 20, "distribution": "trace"}}, True),
    ({"prompt_tokens": "long"}, False),
]


@pytest.mark.parametrize(("lengths", "true"), GIVEN)
def test_lengths_beside_a_trace_must_be_its_own(lengths, true, tmp_path):
    asked = traced(csv(tmp_path / "t.csv", [(0, 10, 2), (1, 20, 2)]), workload=lengths)
    if true:
        assert parse_request(asked).workload.prompt_tokens.distribution == "trace"
    else:
        with pytest.raises(BadInput, match="the trace brings its own"):
            parse_request(asked)


REFUSED = [
    ({"arrival": {"trace": "gone.csv"}}, "readable CSV"),
    ({"arrival": {"trace": None}}, "the file of a recorded trace"),
    ({"arrival": {"too_long": "drop"}}, r"too_long: got 'drop'; allowed: refuse, skip, truncate"),
    ({"arrival": {"rate": 3}}, "known keys"),
    ({"arrival": {"users": 3}}, "users with process closed_loop only"),
    ({"arrival": {"requests_per_s": 0}}, "requests_per_s"),
    ({"arrival": {"recorded": {"sha256": "0" * 64}}}, "leave the key out"),
    ({"model": "nobody/nothing"}, "model"),
    ({"engine": {"max_model_len": 21}}, "1 of 2 requests longer than 21 tokens; the longest, line 3, has 22"),
    ({"engine": {"max_model_len": "long"}}, "max_model_len"),
    ({"workload": {"shared_prefix_tokens": 15}}, "shorter than the mean prompt"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_wrong_beside_a_trace_is_named(changes, message, tmp_path):
    path = csv(tmp_path / "t.csv", [(0, 10, 2), (1, 20, 2)])
    changes = dict(changes)
    with pytest.raises(BadInput, match=message):
        parse_request(traced(path, changes.pop("arrival", None), **changes))


def test_a_trace_of_one_moment_needs_a_rate(tmp_path):
    path = csv(tmp_path / "t.csv", [(5, 10, 2), (5, 20, 2), (5, 30, 2)])
    with pytest.raises(BadInput, match=r"requests_per_s: got 'nothing'.*one moment"):
        parse_request(traced(path))
    work = parse_request(traced(path, {"requests_per_s": 6})).workload
    load = offered(work, 6.0, 2.0, seed=0)  # all at once, and again once so many are due
    assert load.offset_s.tolist() == [0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1, 1.5, 1.5, 1.5]


def test_a_file_that_changed_or_went_is_not_replayed(tmp_path):
    path = csv(tmp_path / "t.csv", [(0, 10, 2), (1, 20, 2)])
    request = TuneRequest.model_validate_json(parse_request(traced(path)).model_dump_json())
    assert offered(request.workload, 1.0, 2.0, seed=0).prompt_tokens.tolist() == [10, 20]
    csv(path, [(0, 10, 2), (1, 20, 2), (2, 20, 2)])
    with pytest.raises(BadInput, match="which has changed"):
        offered(request.workload, 1.0, 2.0, seed=0)
    path.unlink()
    with pytest.raises(BadInput, match="readable CSV"):
        offered(request.workload, 1.0, 2.0, seed=0)


def test_a_study_whose_trace_changed_does_not_go_on(tmp_path):
    def read(*rows):
        return parse_request(traced(csv(tmp_path / "t.csv", rows)))

    began = read((0, 10, 2), (1, 20, 2))
    require_same_request("s", began, read((0, 10, 2), (1, 20, 2)))
    with pytest.raises(BadInput, match=r"started with; its trace .*t.csv had the SHA-256 .* has another now"):
        require_same_request("s", began, read((0, 10, 2), (1, 20, 2), (2, 20, 2)))


def test_a_report_tells_of_the_trace(tmp_path):
    path = csv(tmp_path / "t.csv", [(0, 10, 2), (1, 20, 3), (2, 20, 90)])
    told = _request_facts(parse_request(traced(path, {"too_long": "skip"}, engine={"max_model_len": 99})))
    assert ("output tokens", "2.5 (mean)") in told
    assert ("trace", str(path)) in told
    assert ("trace", "1 of 3 requests of the trace are longer than max_model_len, 99 tokens, and are skipped") in told


def test_a_closed_loop_over_a_trace_has_its_lengths(tmp_path):
    work = parse_request(traced(csv(tmp_path / "t.csv", [(0, 10, 2), (1, 20, 3)]))).workload
    load = closed_load(work, users=2, requests=5, seed=0)
    assert (load.prompt_tokens.tolist(), load.output_tokens.tolist()) == ([10, 20, 10, 20, 10], [2, 3, 2, 3, 2])


@pytest.mark.parametrize(
    ("lengths", "limit", "message"),
    [
        ({"mean": 100, "min": 50, "max": 150}, 160, "up to 166 tokens.*at most engine.max_model_len, 160 tokens"),
        (200, 215, "up to 216 tokens"),
        ({"mean": 2092, "min": 1, "max": 7436}, None, "normal or lognormal and its sd; or arrival.process: trace"),
        ({"mean": 10, "min": 1, "max": 19, "distribution": "trace"}, None, "trace with arrival.process trace only"),
    ],
)
def test_drawn_lengths_are_held_to_the_same_rule(lengths, limit, message):
    changes = {"workload.prompt_tokens": lengths} | ({"engine": {"max_model_len": limit}} if limit else {})
    with pytest.raises(BadInput, match=message):
        parse_request(document(changes))


def test_too_long_is_for_a_trace():
    with pytest.raises(BadInput, match="--too-long"):
        simulate_answer(parse_request(document()), SimulateOptions(ParallelLayout(), too_long=TooLong.SKIP))


LONG = {"prompt_tokens": 8000, "output_tokens": 10, "arrival": {"process": "poisson", "requests_per_s": 1}}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"engine": {"max_model_len": 9000}}, "engine.max_model_len"),
        ({"workload": LONG}, "workload"),
    ],
)
def test_plan_and_simulation_refuse_sequences_that_the_model_does_not_take(changes, where, tmp_path):
    config = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "hidden_size": 512,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    request = parse_request(document({"model": str(tmp_path), **ONE_GPU, **changes}))
    one = ParallelLayout()
    pools = SimulateOptions(prefill_layout=one, decode_layout=one)
    for asked in (SimulateOptions(layout=one), pools):
        with pytest.raises(BadInput, match="4096 tokens") as refused:
            simulate_answer(request, asked)
        assert refused.value.where == where
    with pytest.raises(BadInput, match="4096 tokens") as refused:
        plan_request(request)
    assert refused.value.where == where
