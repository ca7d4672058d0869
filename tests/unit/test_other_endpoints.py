"""``parlay measure`` and the meter on servers that are not vLLM, or count otherwise than was asked.

The situations are those of public reports: answers that end by themselves (guidellm 979, 982), prompts of another
length than asked (vllm 10847, 44708), and empty ``data:`` between events (omnigent 1474, modelcontextprotocol
python-sdk 1670).
"""

import json

import pytest

from serve.measure.http_meter import HttpMeter
from tests.load_windows import (
    FakeDeployment,
    quiet_client,  # noqa: F401
    request,
    step,
)
from tests.measure_command import measure
from tests.mock_server import Behaviour, MockServer
from tuner.app.answers.trial import step_answer
from tuner.errors import BadInput
from tuner.study.step_rows import dump_step, load_step
from tuner.trial.seams import Watch

SHORT = ("--seconds", "0.4", "--warmup-seconds", "0", "--prompt-tokens", "32", "--output-tokens", "4", "--rate", "20")
BOM = b"\xef\xbb\xbf"


def told(*words):
    code, out, _ = measure(*words, *SHORT, "--json")
    return code, json.loads(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("opening", "ignored"),
    [
        (b"", 0),
        (BOM, 0),
        (b"data: \n\n", 1),
        (BOM + b"data:\r\n\r\n: hi\n\n", 1),
        (b'event: ping\ndata: {"type": "ping"}\n\n', 1),
    ],
)
def test_what_opens_a_stream_changes_no_figure(opening, ignored):
    with MockServer(opening=opening, itl_s=0.05) as server:
        code, found = told(server.url, "--chat", "--no-ignore-eos")
    assert (code, found["failed"], found["itl_ms"]["count"]) == (0, 0, 3 * found["completed"])
    assert found["tokens"]["ignored_events"] == ignored * found["completed"]
    assert any("no part of an answer" in words for words in found["cautions"]) is bool(ignored)


@pytest.mark.slow
def test_answers_that_end_by_themselves_are_measured_as_they_are(tmp_path):
    records = tmp_path / "records.jsonl"
    with MockServer(Behaviour.SHORT, itl_s=0.01) as server:
        code, found = told(server.url, "--requests-out", records)
        shown = measure(server.url, *SHORT)[1]
    assert (code, found["failed"]) == (0, 0)
    assert found["tokens"]["short_answers"] == found["completed"]
    assert (found["tokens"]["short_median"], found["tokens"]["short_median_asked"]) == (3, 4)
    words = f"{found['completed']} of {found['completed']} answers were shorter than asked: median 3 of 4 tokens"
    assert words in found["cautions"]
    assert words in shown
    for row in map(json.loads, records.read_text().splitlines()):
        assert (row["output_tokens"], row["asked_output_tokens"]) == (3, 4)
        assert row["tpot_ms"] == pytest.approx((row["chunk_s"][-1] - row["chunk_s"][0]) * 1e3 / 2)


@pytest.mark.slow
def test_a_model_that_must_end_is_measured_and_it_is_said_how(tmp_path):
    records, report = tmp_path / "records.jsonl", tmp_path / "report.html"
    with MockServer(Behaviour.MUST_END) as server:
        code, found = told(server.url, "--chat", "--requests-out", records, "--report", report)
        shown = measure(server.url, "--chat", *SHORT)[1]
    assert (code, found["failed"]) == (0, 0)
    assert "ignore_eos" not in found["sent_fields"]
    (words,) = found["fallbacks"]
    assert words.startswith("ignore_eos is not sent, so that answers may be shorter than asked")
    assert "ignore_eos is not sent" in shown
    assert "ignore_eos is not sent" in report.read_text()
    assert all("ignore_eos" not in json.loads(row)["sent_fields"] for row in records.read_text().splitlines())


@pytest.mark.slow
def test_a_failure_that_shows_only_later_says_what_was_sent():
    def later(number):
        return Behaviour.MUST_END if number else Behaviour.OK

    with MockServer(later) as server:
        code, found = told(server.url, "--chat")
    assert (code, found["completed"]) == (1, 0)
    assert any("requests held ignore_eos" in words for words in found["cautions"])


@pytest.mark.slow
@pytest.mark.parametrize("chat", [(), ("--chat",)])
def test_prompts_that_the_server_counts_otherwise_are_said_with_both_numbers(chat, tmp_path):
    report = tmp_path / "report.html"
    with MockServer(counts=lambda asked: 8) as server:
        _, found = told(server.url, *chat, "--report", report)
    words = "the server counts 8 prompt tokens per request, 32 were asked for"
    assert words in found["cautions"]
    assert words in report.read_text()
    assert found["tokens"]["prompt_per_request"] == 8
    assert found["prompt_tok_per_s"] == pytest.approx(8 * found["completed"] / found["wall_s"])


@pytest.mark.slow
def test_answers_without_usage_are_counted_by_events_and_it_is_said():
    with MockServer(Behaviour.NO_USAGE) as server:
        code, found = told(server.url)
    assert (code, found["failed"]) == (0, 0)
    assert found["tokens"]["counted_by_events"] == found["completed"]
    assert any("came without a count of their tokens" in words for words in found["cautions"])
    assert any("does not count prompt tokens" in words for words in found["cautions"])


@pytest.mark.slow
def test_a_trial_whose_server_counts_otherwise_is_warned_about_alike():
    with MockServer(counts=lambda asked: asked + 20, tokens_per_event=2) as server:
        result = HttpMeter().measure(FakeDeployment(server.url), step(seconds=0.1), request(), Watch())
    assert load_step(dump_step(result), request().slo) == result
    assert any("prompt tokens per request" in words for words in result.cautions)
    assert any("ITL is the time between events" in words for words in result.cautions)
    assert step_answer(result, request()).cautions == list(result.cautions)
    with MockServer() as server:
        quiet = HttpMeter().measure(FakeDeployment(server.url), step(seconds=0.1), request(), Watch())
    assert quiet.cautions == ()
    assert "cautions" not in step_answer(quiet, request()).model_dump()


@pytest.mark.slow
def test_a_key_that_may_not_list_models_is_good_for_a_named_one():
    with MockServer(models=403) as server:
        with pytest.raises(BadInput, match="API key"):
            measure(server.url, *SHORT)
        assert told(server.url, "--model", "tiny")[0] == 0


@pytest.mark.slow
def test_headers_go_with_every_request_and_are_not_shown(monkeypatch):
    monkeypatch.setenv("GATEWAY_KEY", "s3cret")
    with MockServer() as server:
        headers = ("--header", "X-Title=a b", "--header-env", "api-key=GATEWAY_KEY")
        code, out, err = measure(server.url, *SHORT, *headers)
        sent = [served.headers for served in server.served]
    assert code == 0
    assert all((one["X-Title"], one["api-key"]) == ("a b", "s3cret") for one in sent)
    assert "s3cret" not in out + err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("--header", "X-Title"), "--header"),
        (("--header", "=x"), "--header"),
        (("--header", "Content-Length=3"), "--header"),
        (("--header", "X Y=3"), "headers"),
        (("--header", "X=1", "--header", "x=2"), "headers"),
        (("--header-env", "api-key=NO_SUCH_VARIABLE"), "--header-env"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused(words, where):
    with pytest.raises(BadInput, match=where):
        measure("http://127.0.0.1:1", *words)
