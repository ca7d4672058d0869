"""Histograms of latencies that can be merged: of windows, of client processes, of runs on several machines.

Percentiles of parts do not add up to those of the whole; counts by bucket do. The buckets are those of the HDR
histogram (Tene, "HdrHistogram", hdrhistogram.org) with three significant digits and a unit of 1 µs: every microsecond
below 2,048 µs, and from there on 1,024 buckets for each doubling, so that a value is known to 0.05 % or half a
microsecond, whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.errors import BadInput

_DIGITS = 11  # bits of a value that are kept
_LARGEST_US = 1 << 42  # 51 days
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie in each bucket: its lowest value in microseconds (ascending) and its count (at least 1)."""

    lowest_us: Integers
    count: Integers

    @classmethod
    def of(cls, values_ms: ArrayLike) -> Histogram:
        """Of latencies in milliseconds. Raises BadInput for one that is negative, not a number or beyond 51 days."""
        values_us = np.asarray(values_ms, dtype=np.float64).ravel() * 1e3
        if not np.all((values_us >= 0) & (values_us < _LARGEST_US)):
            raise BadInput("values_ms", "a value out of range", f"from 0 to {_LARGEST_US / 1e3:g} ms")
        whole_us = np.rint(values_us).astype(np.int64)
        dropped = _dropped_bits(whole_us)
        lowest_us, count = np.unique(whole_us >> dropped << dropped, return_counts=True)
        return cls(lowest_us, count.astype(np.int64))

    @classmethod
    def read(cls, written: Iterable[tuple[int, int]] | Iterable[list[int]]) -> Histogram:
        """The histogram that ``written`` gave. Raises BadInput where it cannot have."""
        rows = [tuple(row) for row in written]
        if not all(len(row) == 2 and all(type(number) is int for number in row) for row in rows):
            raise BadInput("histogram", "something else", "pairs of a bucket's lowest value (µs) and its count")
        lowest_us, count = np.array(rows, dtype=np.int64).reshape(-1, 2).T
        dropped = _dropped_bits(np.clip(lowest_us, 0, _LARGEST_US - 1))
        known = (lowest_us >= 0) & (lowest_us < _LARGEST_US) & (lowest_us >> dropped << dropped == lowest_us)
        if not known.all() or (count < 1).any() or (np.diff(lowest_us) <= 0).any():
            raise BadInput("histogram", "other buckets", "ascending buckets of three significant digits, none empty")
        return cls(lowest_us, count)

    def written(self) -> list[tuple[int, int]]:
        """Pairs of a bucket's lowest value in microseconds and its count, for JSON."""
        return list(zip(self.lowest_us.tolist(), self.count.tolist(), strict=True))

    @property
    def total(self) -> int:
        """The number of values."""
        return int(self.count.sum())

    def percentile_ms(self, level: float) -> float | None:
        """The middle of the bucket that holds the value of ``tuner.stats.percentile``; None of no values.

        Raises BadInput for a level outside ]0, 100].
        """
        if not 0 < level <= 100:
            raise BadInput("percentile", level, "above 0 and at most 100")
        if not self.count.size:
            return None
        rank = max(1, int(np.ceil(level * self.total / 100 - 1e-9)))
        place = int(np.searchsorted(np.cumsum(self.count), rank))
        return float(self.lowest_us[place] + (_width_us(self.lowest_us[place : place + 1])[0] - 1) / 2) / 1e3


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """The histogram of all values together."""
    parts = list(histograms)
    empty = np.empty(0, dtype=np.int64)
    lowest_us, place = np.unique(np.concatenate([empty, *(one.lowest_us for one in parts)]), return_inverse=True)
    count = np.zeros(lowest_us.size, dtype=np.int64)
    np.add.at(count, place, np.concatenate([empty, *(one.count for one in parts)]))
    return Histogram(lowest_us, count)


def _dropped_bits(whole_us: Integers) -> Integers:
    """By how many bits a value is longer than what is kept."""
    bits = np.frexp(whole_us.astype(np.float64))[1].astype(np.int64)
    return np.maximum(bits - _DIGITS, 0)


def _width_us(lowest_us: Integers) -> Integers:
    return np.left_shift(np.int64(1), _dropped_bits(lowest_us))
