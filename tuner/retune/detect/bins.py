"""Looks at a mean, gathered until there are requests enough to speak of one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.retune.detect.levels import Bin


@dataclass(frozen=True, slots=True)
class BinSize:
    """A bin ends with at least so many requests, over at least so long."""

    requests: float = 30.0
    seconds: float = 30.0


BIN_SIZE = BinSize()


def as_logarithm(one: Bin) -> Bin:
    """The same bin of the logarithm of its value, which is above 0."""
    relative = math.sqrt(one.variance) / one.value
    return Bin(one.begin_s, one.end_s, one.seconds, math.log(one.value), relative * relative)


class Bins:
    """Means weighted by requests, each with the variance that sampling gives to it."""

    def __init__(self, size: BinSize) -> None:
        self._size = size
        self._begin_s: float | None = None
        self._requests = self._sum = self._squares = self._seconds = 0.0

    def add(self, at_s: float, seconds: float, requests: float, mean: float, variance: float) -> Bin | None:
        """The mean over ``requests`` that came in the ``seconds`` before ``at_s``; ``variance`` is that of one request.
        The bin that ends with them, if one does."""
        if not (0 < requests < math.inf and math.isfinite(mean) and math.isfinite(variance)):
            return None
        if self._begin_s is None:
            self._begin_s = at_s - seconds
        self._requests += requests
        self._sum += requests * mean
        self._squares += requests * variance
        self._seconds += seconds
        if self._requests < self._size.requests or self._seconds < self._size.seconds:
            return None
        count, begin_s = self._requests, self._begin_s
        ended = Bin(begin_s, at_s, self._seconds, self._sum / count, self._squares / count**2)
        self.clear()
        return ended

    def clear(self) -> None:
        """Forget a bin that has not ended."""
        self._begin_s = None
        self._requests = self._sum = self._squares = self._seconds = 0.0
