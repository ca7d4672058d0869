"""Histograms lose nothing by merging, little by counting in buckets, and are read by HdrHistogram's own libraries."""

import base64
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import BadInput
from tuner.stats.histogram import Histogram, merged
from tuner.stats.intervals import percentile

LATENCIES = st.lists(st.floats(0, 1e7), max_size=60)
# Written by the Python library of HdrHistogram (hdrhistogram 0.10.8; 1 to 3,600,000,000, three digits).
THEIRS_US = [0, 1, 2047, 2048, 2049, 20_431, 20_432, 5_000_000, 60_000_000, *[5000] * 1000]
THEIRS = "HISTFAAAADV4nJNpmSzMwMAgwgABzFCaEURcm7yEwf4DRICJ6ac8E8tB4Qv8GxWYmLrrmQ5bMgEA6lkKTw=="


def counted(histogram):
    return dict(zip(histogram.bucket.tolist(), histogram.count.tolist(), strict=True))


def packed(plain, word=0x1C849314):
    data = zlib.compress(plain)
    return base64.b64encode(struct.pack(">ii", word, len(data)) + data).decode()


def plain(counts=b"", word=0x1C849313, digits=3, unit=1):
    return struct.pack(">iiiiqqd", word, len(counts), 0, digits, unit, 1 << 36, 1.0) + counts


@given(values_ms=LATENCIES.filter(bool), level=st.floats(0.1, 100))
def test_a_percentile_is_known_to_a_twentieth_of_a_percent(values_ms, level):
    exact_ms = percentile(values_ms, level)
    rounding_ms = 0.0005
    assert abs(Histogram.of(values_ms).percentile_ms(level) - exact_ms) <= exact_ms / 2000 + rounding_ms


@given(parts=st.lists(LATENCIES, max_size=4))
def test_parts_merge_to_the_whole(parts):
    whole = merged(Histogram.of(part) for part in parts)
    assert counted(whole) == counted(Histogram.of([value for part in parts for value in part]))
    assert whole.total == sum(map(len, parts))


@pytest.mark.slow
@given(values_ms=LATENCIES, times=st.integers(1, 2000))
def test_what_is_written_is_read_again(values_ms, times):
    found = merged([Histogram.of(values_ms)] * times)
    assert counted(Histogram.read(found.text())) == counted(found)


def test_the_text_of_their_library_is_read():
    assert counted(Histogram.read(THEIRS)) == counted(Histogram.of(np.array(THEIRS_US) / 1e3))


def test_our_text_holds_what_theirs_does():
    ours, theirs = (zlib.decompress(base64.b64decode(text)[8:]) for text in (Histogram.read(THEIRS).text(), THEIRS))
    assert ours[40:] == theirs[40:]
    assert ours[:24] == theirs[:24]  # after these bytes comes the highest value that each can hold
    assert ours[32:40] == theirs[32:40]


def test_many_values_are_few_characters():
    values_ms = np.random.default_rng(0).lognormal(np.log(50), 0.5, 200_000)
    assert len(Histogram.of(values_ms).text()) < 10_000


def test_nothing_has_no_percentile():
    assert merged([]).percentile_ms(50) is None
    assert Histogram.read(Histogram.of([]).text()).total == 0


@pytest.mark.parametrize("value_ms", [-0.1, float("nan"), float("inf"), 1e10])
def test_what_is_no_latency_is_refused(value_ms):
    with pytest.raises(BadInput, match="values_ms"):
        Histogram.of([1.0, value_ms])


@pytest.mark.parametrize("level", [0, -1, 100.5])
def test_levels_lie_between_0_and_100(level):
    with pytest.raises(BadInput, match="percentile"):
        Histogram.of([1.0]).percentile_ms(level)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64!",
        "aGVsbG8=",
        THEIRS[:-8],
        packed(b"short"),
        packed(plain(), word=0x1C849304),
        packed(plain(word=0x1C849301)),
        packed(plain(digits=2)),
        packed(plain(unit=1000)),
        packed(plain(b"\x80")),
        packed(plain(b"\x80" * 12 + b"\x01")),
        packed(plain(b"\xff\xff\xff\x0f\x02")),  # beyond the last bucket
        packed(plain(b"\xff" * 7 + b"\x7f") + b"\x02"),
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(BadInput, match="histogram"):
        Histogram.read(text)
