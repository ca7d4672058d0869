"""Histograms of latencies that can be merged: of windows, of client processes, of runs on several machines.

Percentiles of parts do not add up to those of the whole; counts by bucket do. The buckets and the text form are those
of HdrHistogram (hdrhistogram.org; text form V2, as in its ``AbstractHistogram.encodeIntoCompressedByteBuffer``) with
three significant digits and a unit of 1 µs: every microsecond below 2,048 µs, and from there on 1,024 buckets for each
doubling, so that a value is known to 0.05 % or half a microsecond, whichever is more. Any of its libraries reads and
merges what is written here.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.errors import BadInput

_HALF = 1024  # buckets for each doubling
_LARGEST_US = 1 << 36  # 19 hours
_BUCKETS = 27 * _HALF  # below that value
_PLAIN, _PACKED = 0x1C849313, 0x1C849314  # the first word of the V2 form, and of its compressed form
_HEADER = struct.Struct(">iiiiqqd")  # word, bytes that follow, offset, digits, lowest and highest value (µs), ratio
_PACK = struct.Struct(">ii")  # word, bytes that follow
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """The buckets with values in them, ascending, and how many each holds (at least 1)."""

    bucket: Integers
    count: Integers

    @classmethod
    def of(cls, values_ms: ArrayLike) -> Histogram:
        """Of latencies in milliseconds. Raises BadInput for one that is negative, not a number or beyond 19 hours."""
        values_us = np.asarray(values_ms, dtype=np.float64).ravel() * 1e3
        if not np.all((values_us >= 0) & (values_us < _LARGEST_US - 1)):
            raise BadInput("values_ms", "a value out of range", f"from 0 to {_LARGEST_US / 1e3:g} ms")
        whole_us = np.rint(values_us).astype(np.int64)
        dropped = np.maximum(np.frexp(whole_us.astype(np.float64))[1].astype(np.int64) - 11, 0)  # bits beyond eleven
        bucket, count = np.unique(dropped * _HALF + (whole_us >> dropped), return_counts=True)
        return cls(bucket, count.astype(np.int64))

    @property
    def total(self) -> int:
        """The number of values."""
        return int(self.count.sum())

    def percentile_ms(self, level: float) -> float | None:
        """The middle of the bucket that holds the value of ``tuner.stats.intervals.percentile``; None of no values.

        Raises BadInput for a level outside ]0, 100].
        """
        if not 0 < level <= 100:
            raise BadInput("percentile", level, "above 0 and at most 100")
        if not self.count.size:
            return None
        rank = max(1, int(np.ceil(level * self.total / 100 - 1e-9)))
        bucket = int(self.bucket[np.searchsorted(np.cumsum(self.count), rank)])
        dropped = max(0, bucket // _HALF - 1)
        lowest_us = (bucket - dropped * _HALF) << dropped
        return (lowest_us + ((1 << dropped) - 1) / 2) / 1e3

    def text(self) -> str:
        """HdrHistogram's text form: base64 of the compressed V2 form."""
        counts = bytearray()
        following = 0
        for bucket, count in zip(self.bucket.tolist(), self.count.tolist(), strict=True):
            if bucket > following:
                counts += _varint(following - bucket)  # so many empty buckets
            counts += _varint(count)
            following = bucket + 1
        plain = _HEADER.pack(_PLAIN, len(counts), 0, 3, 1, _LARGEST_US, 1.0) + counts
        packed = zlib.compress(plain, 9)
        return base64.b64encode(_PACK.pack(_PACKED, len(packed)) + packed).decode()

    @classmethod
    def read(cls, text: str) -> Histogram:
        """The histogram of such a text. Raises BadInput for anything else, other digits and units among it."""
        try:
            packed = base64.b64decode(text, validate=True)
            word, _ = _PACK.unpack_from(packed)
            unpacker = zlib.decompressobj()
            plain = unpacker.decompress(packed[_PACK.size :], 10 * _BUCKETS)
            if not unpacker.eof:
                raise ValueError("it breaks off, or is too long")
            kind, size, offset, digits, lowest_us, _, ratio = _HEADER.unpack_from(plain)
            counts = list(_varints(plain[_HEADER.size : _HEADER.size + size]))
        except (binascii.Error, ValueError, struct.error, zlib.error) as error:
            raise BadInput("histogram", f"a text that is none ({error})", "HdrHistogram's text form V2") from None
        if (word, kind, offset, digits, lowest_us, ratio) != (_PACKED, _PLAIN, 0, 3, 1, 1.0):
            raise BadInput("histogram", "another form, precision or unit", "V2 with three digits and a unit of 1 µs")
        steps = np.array([1 if count >= 0 else -count for count in counts], dtype=np.int64)
        found = np.array(counts, dtype=np.int64)
        bucket = np.cumsum(steps) - steps
        if (steps > _BUCKETS).any() or steps.sum() > _BUCKETS:
            raise BadInput("histogram", "a value out of range", f"from 0 to {_LARGEST_US / 1e3:g} ms")
        return cls(bucket[found > 0], found[found > 0])


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """The histogram of all values together."""
    counts = np.zeros(_BUCKETS, dtype=np.int64)
    for one in histograms:
        counts[one.bucket] += one.count
    bucket = np.flatnonzero(counts)
    return Histogram(bucket, counts[bucket])


def _varint(value: int) -> bytes:
    """ZigZag and LEB128: small numbers of either sign are short."""
    rest, written = value * 2 if value >= 0 else -value * 2 - 1, bytearray()
    while rest > 0x7F:
        written.append(rest & 0x7F | 0x80)
        rest >>= 7
    written.append(rest)
    return bytes(written)


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value >> 1 if value & 1 == 0 else -(value >> 1) - 1
            value = shift = 0
        elif shift > 49:
            raise ValueError("a count too long")
    if shift:
        raise ValueError("a count without an end")
