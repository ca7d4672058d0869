"""Every event is counted for what it is: a token, a count, an error, an end, or nothing that belongs to an answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.load.event_stream import MAX_EVENT_BYTES
from serve.load.request_sample import Outcome
from serve.load.streamed_answer import Answer, BadAnswer
from tests.unit.test_event_stream import cut

TEXT = 'añ€😀 data: [DONE] \\n" {'


def event(message):
    return f"data: {json.dumps(message, ensure_ascii=False)}".encode()


def token(text="x", finish_reason=None):
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
    return event({"id": "1", "choices": [choice], "usage": None})


def delta(finish_reason=None, **content):
    return event({"choices": [{"index": 0, "delta": content, "finish_reason": finish_reason}]})


def usage(made, prompt=7):
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": made}})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}})
DONE = b"data: [DONE]"
WHOLE = [token(TEXT), token(), USAGE, DONE]
NO_PART = [  # what servers send between tokens, and what is none of an answer
    b"data:",
    b"data: ",
    b"data:  ",
    b"data: ping",
    b"data: keep-alive",
    b"data: null",
    b"data: []",
    b"data: 7",
    b"data: {}",
    b'data: {"type": "ping"}',
    b'event: ping\ndata: {"type": "ping"}',
    b"event: heartbeat\ndata: 2026-11-27T07:00:00Z",
    event({"choices": []}),
    event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
    event({"choices": [{"index": 0, "delta": {}}]}),
    event({"choices": [{"index": 0, "delta": {"annotations": [1]}}]}),
    event({"object": "something else", "error": None}),
]
NO_EVENT = [b": OPENROUTER PROCESSING", b"event: ping", b"id: 7", b"retry: 100", b"other", b""]


def read(*parts, asked=2, **options):
    answer = Answer(asked, **options)
    for number, part in enumerate(parts):
        answer.feed(part, float(number))
    return answer


@given(
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.sampled_from(NO_EVENT),
    st.booleans(),
    st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_any_line_end_any_cut_and_other_fields_make_the_same_answer(end, other, bom, places):
    between = other + end if other else b""
    stream = (b"\xef\xbb\xbf" if bom else b"") + b"".join(between + one + end + end for one in WHOLE)
    answer = read(*cut(stream, places), keep_text=True)
    assert answer.verdict() == (Outcome.OK, None)
    assert len(answer.chunk_s) == 2
    assert (answer.prompt_tokens, answer.output_tokens, answer.ignored) == (7, 2, 0)
    assert answer.text == [TEXT, "x"]


@given(st.lists(st.sampled_from(NO_PART), max_size=6), st.integers(0, len(WHOLE) - 1))
def test_what_is_no_part_of_an_answer_is_ignored_and_counted(odd, place):
    answer = read(*(one + b"\n\n" for one in (*WHOLE[:place], *odd, *WHOLE[place:])))
    assert answer.verdict() == (Outcome.OK, None)
    assert (len(answer.chunk_s), answer.output_tokens, answer.ignored) == (2, 2, len(odd))
    assert (answer.ignored_example is None) is not bool(odd)


def test_an_event_has_the_time_of_the_read_that_completes_it():
    first, second = token() + b"\n\n", token() + b"\n\n"
    answer = read(first[:10], first[10:], second, USAGE + b"\n\n" + DONE + b"\n\n")
    assert answer.chunk_s == [1.0, 2.0]


def test_an_event_of_several_data_lines_is_one():
    answer = read(b'data: {"choices":\ndata:  [{"text": "x"}]}\n\n')
    assert len(answer.chunk_s) == 1


def test_an_event_whose_type_is_named_is_a_token_all_the_same():
    assert len(read(b"event: chunk\n" + token() + b"\n\n").chunk_s) == 1


@pytest.mark.parametrize(
    ("one", "tokens"),
    [
        (token(""), 1),  # a token may have no text of its own
        (delta(role="assistant", content=""), 0),
        (delta(role="assistant"), 0),
        (delta(role="assistant", content="Hi"), 1),
        (delta(content="Hi"), 1),
        (delta(content=""), 1),
        (delta(content=[{"type": "text", "text": "Hi"}]), 1),
        (delta(), 0),
        (delta("stop"), 0),
        (delta(reasoning_content="hm"), 1),
        (delta(reasoning="hm", content=None), 1),
        (delta(tool_calls=[{"index": 0}], content=None), 1),
        (delta(function_call={"name": "f"}), 1),
        (delta(refusal="no"), 1),
        (USAGE, 0),
        (event({"choices": [{"text": "x"}], "usage": {"completion_tokens": 3}}), 1),
        (event({"choices": [{"finish_reason": "stop"}]}), 0),
        (b'data: {"choices": [{"text": "\xff\xfe"}]}', 1),  # the standard decodes with replacement
    ],
)
def test_which_events_stand_for_tokens(one, tokens):
    assert len(read(one + b"\n\n").chunk_s) == tokens


@pytest.mark.parametrize(
    ("events", "at_s"),
    [
        ([token("a"), token(""), token("b"), usage(3)], [0, 1, 2]),
        ([token("a"), token("b"), token("", "stop"), usage(2)], [0, 1]),  # the close was no token
        ([token("a"), token("b"), token("", "stop"), usage(3)], [0, 1, 2]),  # it was the end of text
        ([delta(content=""), delta(content="a"), delta(content="b"), usage(2)], [1, 2]),
        ([delta(content=""), delta(content="a"), delta(content="b")], [1, 2]),  # nothing counts them
        ([token(""), token(""), usage(2)], [0, 1]),
        ([token("abc"), token("def"), usage(6)], [0, 1]),
    ],
)
def test_events_without_text_are_tokens_only_where_the_count_has_room_for_them(events, at_s):
    answer = read(*(one + b"\n\n" for one in (*events, DONE)), asked=6)
    assert answer.verdict()[0] is Outcome.OK
    assert answer.chunk_s == at_s


@pytest.mark.parametrize(
    "one",
    [
        b"data: {",
        b"data: oops",
        b"data: \xff",
        b'data: {"choices": 7}',
        b'data: {"choices": [7]}',
        b'data: {"choices": [{"text": 7}]}',
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


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (event({"error": {"message": "engine died"}}), "engine died"),
        (event({"error": "engine died"}), "engine died"),
        (event({"object": "error", "message": "engine died", "code": 500}), "engine died"),
        (event({"type": "error", "message": "engine died"}), "engine died"),
        (event({"choices": [{"text": ""}], "error": {"message": "engine died"}}), "engine died"),
        (b"event: error\ndata: engine died", "engine died"),
        (b'event: error\ndata: {"message": "engine died"}', "engine died"),
        (b"event: error\ndata", "error"),
        (token("x", "abort"), "abort"),
    ],
)
def test_an_error_in_the_stream_fails_the_request_with_its_words(one, words):
    outcome, detail = read(*(part + b"\n\n" for part in (token(), one, DONE))).verdict()
    assert outcome is Outcome.SERVER_ERROR
    assert words in detail


def test_an_event_without_an_end_is_refused():
    with pytest.raises(BadAnswer) as bad:
        read(b"data: " + b"x" * 2 * MAX_EVENT_BYTES)
    assert bad.value.outcome is Outcome.HUGE_EVENT


def test_a_stream_without_an_end_is_cut_off():
    with pytest.raises(BadAnswer) as bad:
        read(*[token() + b"\n\n"] * 100)
    assert bad.value.outcome is Outcome.OVERLONG


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([], Outcome.EMPTY),
        ([b": nothing but a comment"], Outcome.EMPTY),
        ([token(), token()], Outcome.TRUNCATED),
        ([token(), token("x", "length")], Outcome.OK),  # it says that it has ended
        ([DONE], Outcome.NO_TOKENS),
        ([token(), DONE], Outcome.OK),
        ([token(), usage(0), DONE], Outcome.NO_TOKENS),
        ([token(), usage(1), DONE], Outcome.OK),
        ([token(), usage(3), DONE], Outcome.OVERLONG),
        ([token(), b'data: {"choices": [], "usage": {}}', DONE], Outcome.OK),
        ([token(), USAGE, DONE], Outcome.OK),
    ],
)
def test_the_verdict_on_a_stream_that_ended(events, outcome):
    assert read(*(one + b"\n\n" for one in events)).verdict()[0] is outcome
