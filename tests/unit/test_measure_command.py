"""``parlay measure``: what it prints and writes, how it ends, and its one clear line for what cannot be measured."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from serve.load.endpoint import Endpoint
from serve.measure.probe import base_url
from serve.measure.summary import figures
from tests.load_windows import quiet_client  # noqa: F401
from tests.measure_command import SHORT, answer, measure
from tests.measure_sample import SLO, measured_window
from tests.mock_server import Behaviour, MockServer, closed_port
from tuner.app.answers.measure import window_answer
from tuner.app.measure.options import MeasureOptions
from tuner.app.measure.run import Measured
from tuner.app.measure.screen import summary_tables
from tuner.ask.slo import Verdict
from tuner.errors import ParlayError
from tuner.stats.histogram import Histogram

ROOT = Path(__file__).parents[2]
KEYS = {
    *("url", "model", "protocol", "seed", "interrupted", "seconds", "windows", "load", "valid", "invalid_reason"),
    *("warm_up_left_s",),
    *("ended_early", "meets_slo", "verdict_certain", "slo", "attainment", "attainment_interval", "ttft_ms", "tpot_ms"),
    *("itl_ms", "e2e_ms", "ttft_from_intended_ms", "offered_req_per_s", "achieved_req_per_s", "goodput_req_per_s"),
    *("prompt_tok_per_s", "output_tok_per_s", "sent", "completed", "failed", "cut_off", "errors", "offered_s"),
    *("wall_s", "schedule_lag_ms", "client", "engine", "files"),
}


@pytest.mark.slow
def test_the_answer_has_its_stable_keys():
    with MockServer(ttft_s=0.01, itl_s=0.002) as server:
        code, found = answer(server.url, "--rate", 50, "--slo", "ttft:p99:9000", "--slo", "tpot:p90:9000")
    assert code == 0
    assert set(found) >= KEYS
    assert (found["model"], found["protocol"], found["completed"], found["failed"]) == ("tiny", "completions", 14, 0)
    assert set(found["ttft_ms"]) == {"count", "mean", "p50", "p90", "p95", "p99", "intervals", "histogram"}
    histogram = Histogram.read(found["ttft_ms"]["histogram"])
    assert histogram.total == found["ttft_ms"]["count"]
    assert histogram.percentile_ms(50) == pytest.approx(found["ttft_ms"]["p50"], rel=1e-3)
    if (interval := found["ttft_ms"]["intervals"]["p50"]) is not None:  # a busy machine makes neighbours alike
        assert interval[0] <= found["ttft_ms"]["p50"] <= interval[1]
    assert found["ttft_ms"]["p50"] >= 10
    assert found["ttft_ms"]["intervals"]["p99"] is None  # of 14 requests
    assert [target["met"] for target in found["slo"]] == [True, True]
    assert found["engine"]["waiting_mean"] is None
    assert "404" in found["engine"]["missing"]
    (only,) = found["windows"]
    assert only.items() <= found.items()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "slo", "code"),
    [
        (Behaviour.OK, [], 0),
        (Behaviour.OK, ["--slo", "ttft:p99:5000"], 0),
        (Behaviour.OK, ["--slo", "ttft:p99:0.001"], 3),
        (lambda number: Behaviour.HTTP_500 if number else Behaviour.OK, [], 1),
        (lambda number: Behaviour.HTTP_500 if number > 2 else Behaviour.OK, ["--slo", "ttft:p99:5000"], 3),
    ],
    ids=["no SLO", "met", "missed", "no answer after the first", "some fail"],
)
def test_the_exit_code_says_how_it_went(behaviour, slo, code):
    with MockServer(behaviour) as server:
        assert answer(server.url, "--rate", 20, *slo)[0] == code


@pytest.mark.slow
def test_a_sweep_stands_on_its_heaviest_window_that_met_the_slo():
    with MockServer(lambda number: Behaviour.HTTP_500 if number > 40 else Behaviour.OK) as server:
        code, found = answer(server.url, "--rate", 20, "--rate", 40, "--rate", 200, "--slo", "ttft:p99:5000")
    assert code == 0
    assert [window["load"]["name"] for window in found["windows"]] == ["20 req/s", "40 req/s", "200 req/s"]
    assert [window["meets_slo"] for window in found["windows"]] == [True, True, False]
    assert found["load"]["rate_req_per_s"] == pytest.approx(40, rel=0.5)


@pytest.mark.slow
def test_tables_are_for_people_and_the_warm_up_does_not_count(tmp_path):
    words = ("--seconds", "0.4", "--warmup-seconds", "0.2", "--prompt-tokens", "8..16", "--output-tokens", "2")
    with MockServer() as server:
        code, out, err = measure(server.url + "/v1/", "--users", 2, *words, "--slo", "e2e:p50:1000")
        bodies = [served.body for served in server.served]
    assert code == 0
    assert f"tiny at {server.url}" in err
    for shown in ("2 users", "TTFT", "E2E", "e2e p50 ≤ 1000 ms", "schedule lag", "engine: no figures", "attainment"):
        assert shown in out
    assert all(8 <= len(body["prompt"]) <= 16 and body["max_tokens"] == 2 for body in bodies)


@pytest.mark.slow
def test_a_trace_is_replayed(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp,prompt_tokens,output_tokens\n10,16,2\n10.1,24,3\n10.2,32,4\n")
    with MockServer() as server:
        code, found = answer(server.url, "--trace", trace)
        lengths = [(len(served.body["prompt"]), served.body["max_tokens"]) for served in server.served]
    assert (code, found["sent"]) == (0, 3)
    assert lengths == [(16, 2), (16, 2), (24, 3), (32, 4)]  # the first request comes before all windows


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_every_request_has_its_record(suffix, tmp_path):
    path = tmp_path / f"requests.{suffix}"
    with MockServer(lambda number: Behaviour.RESET if number == 3 else Behaviour.OK, itl_s=0.02) as server:
        _, found = answer(server.url, "--rate", 20, "--requests-out", path)
    assert found["files"] == {"requests": str(path)}
    if suffix == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = parquet.read_table(path).to_pylist()
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == found["sent"]
    assert [row["outcome"] for row in rows].count("reset") == 1
    whole = next(row for row in rows if row["outcome"] == "ok")
    assert len(whole["chunk_s"]) == whole["output_tokens"] == 4
    assert whole["ttft_ms"] == pytest.approx((whole["first_token_s"] - whole["sent_s"]) * 1e3)
    assert whole["tpot_ms"] == pytest.approx((whole["chunk_s"][-1] - whole["chunk_s"][0]) * 1e3 / 3)


@pytest.mark.slow
def test_a_page_is_written(tmp_path):
    path = tmp_path / "report.html"
    with MockServer() as server:
        answer(server.url, "--rate", 20, "--slo", "ttft:p99:9000", "--report", path)
    page = path.read_text()
    assert "ttft p99 ≤ 9000 ms is met under 20 req/s" in page
    assert 'data-figure="share-ttft"' in page


@pytest.mark.slow
def test_a_key_is_sent_and_never_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    with MockServer(key="s3cret") as server:
        code, out, err = measure(server.url, "--rate", 20, *SHORT, "--json", "--api-key-env", "MY_KEY")
        assert code == 0
        assert "s3cret" not in out + err
        with pytest.raises(ParlayError, match=r"got 'no key'; allowed: one that the server accepts.*401"):
            measure(server.url, "--rate", 20, *SHORT)
        monkeypatch.setenv("MY_KEY", "wrong")
        with pytest.raises(ParlayError, match="got 'a key'") as caught:
            measure(server.url, *SHORT, "--api-key-env", "MY_KEY")
    assert (caught.value.exit_code, "wrong" in str(caught.value)) == (2, False)


@pytest.mark.slow
def test_a_wrong_model_names_what_is_served():
    with (
        MockServer(models=("big", "small")) as server,
        pytest.raises(ParlayError, match=r"--model: got 'tiny'.*big, small"),
    ):
        measure(server.url, "--model", "tiny")
    with MockServer(models=()) as server, pytest.raises(ParlayError, match="does not say what it serves"):
        measure(server.url)


@pytest.mark.slow
def test_an_endpoint_that_answers_nothing_right_is_one_line():
    with pytest.raises(ParlayError, match=r"/v1/models cannot be reached: .*refused") as caught:
        measure(f"http://127.0.0.1:{closed_port()}")
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (1, False)
    with (
        MockServer(Behaviour.NOT_A_STREAM) as server,
        pytest.raises(ParlayError, match="does not answer a first request: 1 of 1 requests failed"),
    ):
        measure(server.url)


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["--rate", "0"], "--rate"),
        (["--users", "0"], "--users"),
        (["--rate", "1", "--users", "1"], "--users"),
        (["--slo", "ttft:99:5"], "--slo"),
        (["--prompt-tokens", "9..3"], "--prompt-tokens"),
        (["--output-tokens", "many"], "--output-tokens"),
        (["--prompt-tokens", "8", "--shared-prefix-tokens", "8"], "--shared-prefix-tokens"),
        (["--process", "weekly"], "--process"),
        (["--burstiness", "2"], "--burstiness"),
        (["--start-share", "2"], "--start-share"),
        (["--process", "ramp", "--start-share", "3"], "--start-share"),
        (["--process", "ramp", "--find-rate", "--slo", "ttft:p99:500"], "--find-rate"),
        (["--think-seconds", "2"], "--think-seconds"),
        (["--trace-speed", "2"], "--trace-speed"),
        (["--trace-window", "0..2"], "--trace-window"),
        (["--trace", "t.csv", "--trace-window", "2..1"], "--trace-window"),
        (["--requests-out", "r.txt"], "--requests-out"),
        (["--requests-out", "no/such/r.jsonl"], "--requests-out"),
        (["--report", "no/such/r.html"], "--report"),
        (["--trace", "no-such.csv"], "trace"),
        (["--ca-file", "no-such.pem"], "ca_file"),
    ],
)
def test_what_is_not_allowed_is_refused_before_anything_is_sent(words, where):
    with MockServer() as server, pytest.raises(ParlayError) as caught:
        measure(server.url, *words)
    assert str(caught.value).startswith(where)
    assert (caught.value.exit_code, server.served) == (2, [])


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_an_address_may_end_in_v1(url):
    assert base_url(url) == "http://h:1"


@pytest.mark.slow
def test_ctrl_c_shows_what_was_measured():
    with MockServer(ttft_s=0.01) as server:
        command = [
            sys.executable,
            "-m",
            "tuner.app.cli.commands",
            "measure",
            server.url,
            "--rate",
            "50",
            "--seconds",
            "60",
        ]
        words = ["--warmup-seconds", "0", "--prompt-tokens", "8", "--output-tokens", "2", "--json"]
        with subprocess.Popen(
            [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            while len(server.served) < 20:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    found = json.loads(out)
    assert found["interrupted"] is True
    assert found["sent"] == found["completed"] + found["cut_off"] >= 1
    assert found["offered_s"] < 60
    assert "Traceback" not in err


def test_a_window_without_a_value_of_a_target_is_not_judged():
    """Every answer had one token by chance: the TPOT target is neither met nor missed."""
    window = measured_window(4, broken=None)
    samples = [replace(one, output_tokens=1, chunk_s=one.chunk_s[:1], end_s=one.chunk_s[0]) for one in window.samples]
    window = replace(window, samples=tuple(samples), figures=figures(samples, SLO, 30.0))
    run = Measured(MeasureOptions("http://h"), Endpoint("http://h", "tiny"), SLO, (window,), None, False, 1.0)
    assert (window.invalid, window.verdict, run.exit_code) == (None, Verdict.UNKNOWN, 1)
    told = window_answer(window)
    assert (told.valid, told.meets_slo, told.verdict_certain) == (True, None, None)
    assert [one.met for one in told.slo] == [True, None]
    out = Console(file=StringIO(), width=200)
    summary_tables(out, (window,), window, None, {})
    assert "tpot p90 ≤ 30 ms: – ms: not measured" in out.file.getvalue()
    assert "shows nothing of the SLO" in out.file.getvalue()


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"warm_up_s": 4.2}, "the first 4.2 s that count were much slower than the rest"),
        ({"unsteady": "requests in flight rose by 9"}, "not steady: requests in flight rose by 9"),
    ],
)
def test_what_the_window_should_not_have_held_is_said(seen, words):
    out, window = Console(file=StringIO(), width=200), measured_window(4)
    for shown, said in ((window, False), (replace(window, **seen), True)):
        summary_tables(out, (shown,), shown, None, {})
        assert (words in out.file.getvalue()) is said


@pytest.mark.slow
def test_the_turns_of_a_session_follow_each_other_and_carry_the_conversation(tmp_path):
    trace = tmp_path / "trace.csv"
    rows = ("0,16,2,a", "0,16,2,b", "0.01,24,2,a", "0.02,40,2,a", "0.06,24,2,b")
    trace.write_text("\n".join(("timestamp,prompt_tokens,output_tokens,session", *rows)))
    with MockServer(ttft_s=0.1) as server:
        code, found = answer(server.url, "--trace", trace, "--trace-speed", 0.1)
        served = server.served[1:]  # after the first answer
    assert (code, found["completed"]) == (0, 5)
    opening = next(one for one in served if len(one.body["prompt"]) == 40).body["prompt"][:16]
    first, second, third = (one for one in served if one.body["prompt"][:16] == opening)
    assert second.body["prompt"][:16] == first.body["prompt"]
    assert third.body["prompt"][:24] == second.body["prompt"]
    assert first.written_s[-1] < second.arrived_s
    assert second.written_s[-1] < third.arrived_s


@pytest.mark.slow
def test_a_part_of_a_trace_is_replayed_at_several_speeds(tmp_path):
    trace = tmp_path / "azure.csv"
    times = "".join(f"2023-11-16 18:00:{second:02d}.0000000,16,2\n" for second in range(10))
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + times)
    with MockServer() as server:
        speeds = ("--trace-speed", 10, "--trace-speed", 20)
        code, found = answer(server.url, "--trace", trace, "--trace-window", "2..6", *speeds)
    assert code == 0
    assert [window["load"]["name"] for window in found["windows"]] == ["azure.csv at 10 x", "azure.csv at 20 x"]
    assert [window["sent"] for window in found["windows"]] == [4, 4]


@pytest.mark.slow
@pytest.mark.parametrize("process", ["ramp", "step"])
def test_a_window_whose_rate_changes_goes_on_to_its_end(process):
    with MockServer() as server:
        slo = ("--slo", "ttft:p50:9000", "--start-share", 0)
        code, found = answer(server.url, "--rate", 1000, "--process", process, *slo)
    assert code == 0
    assert found["ended_early"] is None
    assert found["steady"] is True


@pytest.mark.slow
def test_users_think_after_an_answer():
    with MockServer() as server:
        _, found = answer(server.url, "--users", 2, "--think-seconds", 0.25)
    assert found["sent"] == 4  # of two users, at 0 and 0.25 s of 0.4
