"""Public traces are read by their own column names, and what is no trace is refused without showing it."""

import json

import pytest

from tuner.ask.arrivals import offered, replay
from tuner.ask.request import Arrival, Workload
from tuner.ask.traces import read_trace
from tuner.errors import BadInput

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:48.6805900,12,0
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:01+00:00,2399,6
"""
BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,a,1.2,ChatGPT,472,18,490,Conversation log
45,b,0.9,ChatGPT,1087,230,1317,Conversation log
60,,0.9,GPT-4,0,0,0,API log
118,a,2.2,GPT-4,417,276,693,API log
120,,2.2,GPT-4,41,27,68,API log
"""
BURSTGPT_1 = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
"""
MOONCAKE = """{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46, 47, 60]}

{"timestamp": 31000, "input_length": 400, "output_length": 1, "hash_ids": [7]}
"""
SPACED = "timestamp, prompt_tokens, output_tokens\n3.5,1,2.0\n\n1,9,4\n"
ISO = "timestamp,prompt_tokens,output_tokens\n2024-05-10T00:01:00.5Z,5,6\n2024-05-10 01:00:00+01:00,7,8\n"
AZURE_SECONDS = "TIMESTAMP,ContextTokens,GeneratedTokens\n0,3,4\n1.5,5,6\n"
OURS = '{"timestamp": 2.5, "prompt_tokens": 10, "output_tokens": 3, "session": "x"}\n'


@pytest.mark.parametrize(
    ("name", "text", "at_s", "prompts", "outputs", "prefixes", "sessions"),
    [
        ("a.csv", AZURE, [0, 4.314579], [374, 396], [44, 109], None, None),
        ("b.csv", AZURE_2024, [0, 0.99007], [2162, 2399], [5, 6], None, None),
        ("c.csv", BURSTGPT, [0, 40, 113, 115], [472, 1087, 417, 41], [18, 230, 276, 27], None, [0, 1, 0, 2]),
        ("d.csv", BURSTGPT_1, [0], [472], [18], None, None),
        ("e.jsonl", MOONCAKE, [0, 3.053, 3.518], [6955, 6472, 400], [52, 26, 1], [0, 0, 1], None),
        ("f.jsonl", OURS, [0], [10], [3], None, [0]),
        ("g.jsonl", "\ufeff" + OURS, [0], [10], [3], None, [0]),  # a byte order mark
        ("h.csv", "\ufeff" + BURSTGPT_1, [0], [472], [18], None, None),
        ("i.csv", SPACED, [0, 2.5], [9, 1], [4, 2], None, None),
        ("j.csv", ISO, [0, 60.5], [7, 5], [8, 6], None, None),
        ("k.csv", AZURE_SECONDS, [0, 1.5], [3, 5], [4, 6], None, None),
    ],
)
def test_formats_are_recognised_by_their_columns(tmp_path, name, text, at_s, prompts, outputs, prefixes, sessions):
    path = tmp_path / name
    path.write_text(text)
    trace = read_trace(path)
    assert trace.at_s.tolist() == pytest.approx(at_s, abs=1e-5)
    assert trace.prompt_tokens.tolist() == prompts
    assert trace.output_tokens.tolist() == outputs
    assert (None if trace.prefix_group is None else trace.prefix_group.tolist()) == prefixes
    assert (None if trace.session is None else trace.session.tolist()) == sessions


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "0 requests"),
        ("a.csv", "root:x:0:0\nsecret\n", "other columns"),
        ("a.csv", AZURE.replace("18:15:50.9951690", "noon"), "line 3, TIMESTAMP: got '2023-11-16 noon'"),
        ("a.csv", AZURE.replace(",109", ",many"), "line 3, GeneratedTokens: got 'many'"),
        ("a.csv", "Timestamp,Request tokens,Response tokens\n1,0,0\n", "without tokens"),
        ("a.jsonl", MOONCAKE + "{", "line 5: got 'text that is not JSON'"),
        ("a.jsonl", "[1]\n", "line 1: got 'list'"),
        ("a.jsonl", OURS.replace("10", "true"), "line 1, prompt_tokens: got True"),
        ("a.jsonl", OURS.replace("2.5", "[]"), r"line 1, timestamp: got \[\]"),
        ("a.csv", SPACED + "4,2.5,1\n", "line 5, prompt_tokens: got '2.5'; allowed: a whole number"),
        ("a.csv", SPACED + "4,2,1e12\n", "line 5, output_tokens: got '1e12'"),
        ("a.csv", SPACED + "4,-2,1\n", "line 5, prompt_tokens: got '-2'"),
        ("a.csv", SPACED + "4,2,0\n", "line 5, output_tokens: got '0'"),
        ("a.csv", SPACED + ",2,1\n", "line 5, timestamp: got ''; allowed: a time"),
        ("a.jsonl", '[{"id": "x", "conversations": []}]\n', "line 1: got 'list'; allowed: a JSON object"),
        ("a.jsonl", '{"id": "x", "conversations": []}\n', "other columns"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as caught:
        read_trace(path)
    assert "secret" not in str(caught.value)
    assert "root" not in str(caught.value).removeprefix(str(path))


def test_rows_without_tokens_are_counted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(BURSTGPT + "119,,2.2,GPT-4,41,0,41,API log\n")
    trace = read_trace(path)
    assert (len(trace), trace.without_tokens) == (4, 2)
    assert trace.line.tolist() == [2, 3, 5, 6]


def ours(path, count=10, gap_s=2.0):
    lines = [{"timestamp": 100 + gap_s * i, "prompt_tokens": 10 + i, "output_tokens": 1 + i} for i in range(count)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_a_trace_runs_faster_and_in_part(tmp_path):
    path = ours(tmp_path / "t.jsonl")
    fast = replay(path, speed=4)
    assert fast.offset_s.tolist() == [i * 0.5 for i in range(10)]
    part = replay(path, speed=2, window_s=(5, 11))
    assert part.offset_s.tolist() == [0.5, 1.5, 2.5]
    assert part.prompt_tokens.tolist() == [13, 14, 15]
    for bad in ({"speed": 0}, {"window_s": (100, 200)}):
        with pytest.raises(BadInput, match="trace"):
            replay(path, **bad)


def workload(path, longest=100, **arrival):
    lengths = {"mean": 50, "min": 1, "max": longest, "distribution": "normal", "sd": 40}
    arrival = {"process": "trace", "trace": str(path), "requests_per_s": 1.0} | arrival
    return Workload(prompt_tokens=lengths, output_tokens=lengths, arrival=Arrival(**arrival))


@pytest.mark.parametrize("rate", [0.5, 5.0, 20.0])
def test_a_study_replays_a_trace_at_any_rate_and_anew_when_it_ends(tmp_path, rate):
    load = offered(workload(ours(tmp_path / "t.jsonl")), rate, 10.0, seed=0)
    assert len(load) == pytest.approx(10 * rate, abs=1)
    assert (load.offset_s < 10).all()
    assert load.offset_s[:2].tolist() == pytest.approx([0, 1 / rate])
    assert load.prompt_tokens.tolist() == [10 + i % 10 for i in range(len(load))]


def test_a_trace_of_one_moment_can_be_replayed(tmp_path):
    load = offered(workload(ours(tmp_path / "t.jsonl", count=1)), 5.0, 1.0, seed=0)
    assert load.offset_s.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_lengths_that_were_not_planned_for_are_refused(tmp_path):
    path = ours(tmp_path / "t.jsonl", count=100)
    with pytest.raises(BadInput, match=r"workload\.prompt_tokens.*109"):
        offered(workload(path), 1.0, 10.0, seed=0)


def test_a_trace_that_changed_is_read_anew(tmp_path):
    import os

    path = ours(tmp_path / "t.jsonl", count=4)
    assert len(offered(workload(path), 1.0, 4.0, seed=0)) == 4
    ours(path, count=4, gap_s=1.0).write_text(OURS)
    os.utime(path, ns=(1, 1))
    assert set(offered(workload(path), 1.0, 4.0, seed=0).prompt_tokens.tolist()) == {10}
