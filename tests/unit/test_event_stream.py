"""Events are those of the HTML standard, however the stream is cut into reads."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serve.load.event_stream import MAX_EVENT_BYTES, EventStream, EventTooLong
from tests.event_stream_reference import events as reference

BOM = b"\xef\xbb\xbf"
PIECES = st.sampled_from(
    [
        *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n"),
        *(
            b"data",
            b"data:",
            b"data: ",
            b"data:  x",
            b"data: {}",
            b"data:\xff",
            b"data: \xe6\x97\xa5",
            b"\xe6",
            b"\xa5",
        ),
        *(b"event", b"event:", b"event: ping", b"event:message", b"id: 7", b"id:\0", b"retry: 10", b"retry: x"),
        *(b": comment", b":", b"Data: x", b" data: x", b"data : x", b"dat", b"a: b: c", BOM, b"\xef\xbb", b" ", b"\0"),
    ]
)
STREAMS = st.lists(PIECES, max_size=24).map(b"".join)


def cut(stream, places):
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def read(*parts):
    stream = EventStream()
    return [event for part in parts for event in stream.feed(part)]


def shown(events):
    """As the standard's decoder shows them."""
    return [(kind.decode("utf-8", "replace"), data.decode("utf-8", "replace")) for data, kind in events]


@pytest.mark.slow
@given(STREAMS, st.lists(st.integers(0, 1 << 20), max_size=12))
@example(BOM + b"data: x\r\n\r\n", [1, 2, 11, 13])
@example(b"data: x\n\n" + BOM + b"data: y\n\n", [])
@example(b"data\n\ndata\ndata\n\ndata:", [])  # the standard's own: an empty event, one of a line end, and none
@example(b"data: x\r", [])
@example(b"data: a\r\r", [])
def test_any_stream_in_any_reads_has_the_events_of_the_standard(stream, places):
    assert shown(read(*cut(stream, places))) == reference(stream)


@given(STREAMS)
def test_a_stream_that_comes_byte_by_byte_is_the_same(stream):
    assert shown(read(*(stream[place : place + 1] for place in range(len(stream))))) == reference(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: x\n\n", [(b"x", b"")]),
        (b"data:x\n\n", [(b"x", b"")]),
        (b"data:  x \n\n", [(b" x ", b"")]),
        (b"data: \n\n", [(b"", b"")]),
        (b"\n\nevent: ping\n\ndata: x\n\n", [(b"x", b"")]),  # an event without data is none, and its type is forgotten
        (b"event: ping\ndata: x\n\ndata: y\n\n", [(b"x", b"ping"), (b"y", b"")]),
        (b"data: a\ndata: b\n\n", [(b"a\nb", b"")]),
        (b": keep-alive\n\nid: 1\nretry: 3\nfoo: bar\ndata: x\n\n", [(b"x", b"")]),
        (b"data: x\n", []),
        (b"data: x\n\ndata: y", [(b"x", b"")]),
        (BOM + b"data: x\n\n", [(b"x", b"")]),
        (BOM + BOM + b"data: x\n\n", []),  # only one is dropped: the other is part of a name
    ],
)
def test_streams_of_the_standard(stream, events):
    assert read(stream) == events


@pytest.mark.parametrize("end", [b"\r", b"\r\n", b"\n"])
def test_an_event_is_dispatched_when_its_blank_line_ends(end):
    """A lone CR ends a line at once, whether an LF follows or not."""
    stream = EventStream()
    first = stream.feed(b"data: x" + end + b"\r")
    assert list(first) == [(b"x", b"")]
    assert list(stream.feed(b"\ndata: y\n\n")) == [(b"y", b"")]


@pytest.mark.parametrize("parts", [[b"data: " + b"x" * 2 * MAX_EVENT_BYTES], [b"data: " + b"x" * 4096 + b"\n"] * 512])
def test_an_event_without_an_end_is_refused(parts):
    with pytest.raises(EventTooLong):
        read(*parts)
