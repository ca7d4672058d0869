"""Events are found however they are cut, and each is counted for what it is."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.load.event_stream import MAX_EVENT_BYTES, Answer, BadAnswer
from serve.load.request_sample import Outcome

TEXT = 'añ€😀 data: [DONE] \\n" {'


def event(message):
    return f"data: {json.dumps(message, ensure_ascii=False)}".encode()


def token(text="x"):
    return event({"id": "1", "choices": [{"index": 0, "text": text, "logprobs": None}], "usage": None})


def delta(**content):
    return event({"choices": [{"index": 0, "delta": content}]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}})
DONE = b"data: [DONE]"
WHOLE = [token(TEXT), token(), USAGE, DONE]


def read(*parts, asked=2, **options):
    answer = Answer(asked, **options)
    for number, part in enumerate(parts):
        answer.feed(part, float(number))
    return answer


def cut(stream, places):
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@given(
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.sampled_from([b"", b": ping", b"event: message", b"id: 7", b"retry: 100"]),
    st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_any_line_end_any_cut_and_other_fields_make_the_same_events(end, other, places):
    between = other + end if other else b""
    stream = b"".join(between + one + end + end for one in WHOLE)
    answer = read(*cut(stream, places), keep_text=True)
    answer.feed(end, 99.0)  # a lone CR at the end of a read may be half of a CRLF
    assert answer.verdict() == (Outcome.OK, None)
    assert len(answer.chunk_s) == 2
    assert (answer.prompt_tokens, answer.output_tokens) == (7, 2)
    assert answer.text == [TEXT, "x"]


def test_an_event_has_the_time_of_the_read_that_completes_it():
    first, second = token() + b"\n\n", token() + b"\n\n"
    answer = read(first[:10], first[10:], second, USAGE + b"\n\n" + DONE + b"\n\n")
    assert answer.chunk_s == [1.0, 2.0]


def test_an_event_of_several_data_lines_is_one():
    answer = read(b'data: {"choices":\ndata:  [{"text": "x"}]}\n\n')
    assert len(answer.chunk_s) == 1


@pytest.mark.parametrize(
    ("one", "tokens"),
    [
        (token(""), 1),  # a token may have no text of its own
        (delta(role="assistant", content=""), 0),
        (delta(role="assistant"), 0),
        (delta(role="assistant", content="Hi"), 1),
        (delta(content="Hi"), 1),
        (delta(content=""), 1),
        (delta(), 0),
        (delta(reasoning_content="hm"), 1),
        (delta(reasoning="hm"), 1),
        (delta(tool_calls=[{"index": 0}]), 1),
        (USAGE, 0),
        (event({"choices": [{"text": "x"}], "usage": {"completion_tokens": 3}}), 1),
    ],
)
def test_which_events_stand_for_tokens(one, tokens):
    assert len(read(one + b"\n\n").chunk_s) == tokens


@pytest.mark.parametrize(
    "one",
    [
        b"data: {",
        b"data: []",
        b"data: 7",
        b"data: \xff",
        b'data: {"choices": 7}',
        b'data: {"choices": [7]}',
        b'data: {"choices": [{"text": 7}]}',
        b'data: {"choices": [{"text": "\xff\xfe"}]}',
        b"data: {}",
        b'data: {"choices": [], "usage": {}}',
        b'data: {"choices": [], "usage": {"completion_tokens": -1}}',
        b'data: {"choices": [], "usage": {"completion_tokens": true}}',
        b'data: {"choices": [], "usage": {"completion_tokens": 1.5}}',
        b'data: {"choices": [], "usage": 3}',
    ],
)
def test_what_is_no_completion_is_malformed(one):
    with pytest.raises(BadAnswer) as bad:
        read(one + b"\n\n")
    assert bad.value.outcome is Outcome.MALFORMED


@pytest.mark.parametrize("parts", [[b"data: " + b"x" * 2 * MAX_EVENT_BYTES], [b"data: " + b"x" * 4096 + b"\n"] * 512])
def test_an_event_without_an_end_is_refused(parts):
    with pytest.raises(BadAnswer) as bad:
        read(*parts)
    assert bad.value.outcome is Outcome.HUGE_EVENT


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([], Outcome.EMPTY),
        ([b": nothing but a comment"], Outcome.EMPTY),
        ([token(), token()], Outcome.TRUNCATED),
        ([DONE], Outcome.NO_TOKENS),
        ([token(), DONE], Outcome.NO_USAGE),
        ([token(), event({"choices": [], "usage": {"completion_tokens": 0}}), DONE], Outcome.NO_TOKENS),
        ([token(), event({"choices": [], "usage": {"completion_tokens": 1}}), DONE], Outcome.SHORT),
        ([token(), event({"choices": [], "usage": {"completion_tokens": 3}}), DONE], Outcome.OVERLONG),
        ([token(), event({"error": {"message": "engine died"}}), DONE], Outcome.SERVER_ERROR),
        ([token(), USAGE, DONE], Outcome.OK),
    ],
)
def test_the_verdict_on_a_stream_that_ended(events, outcome):
    assert read(*(one + b"\n\n" for one in events)).verdict()[0] is outcome
