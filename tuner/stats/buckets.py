"""Counts by bucket as Prometheus keeps them: how many values lie within a limit, and between which bounds that is so.

A bucket tells how many values are at most its upper bound. Where a limit lies inside a bucket, nobody knows on which
side of it the values of that bucket are: some number between none and all of them is within. The likely number spreads
them evenly over the bucket, as ``histogram_quantile`` of Prometheus does; in the last bucket, which has no upper bound,
nothing can be spread, and the likely number is the least.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Within:
    """How many of ``total`` values are within a limit: at least, likely and at most."""

    total: float
    least: float
    likely: float
    most: float

    def __add__(self, other: Within) -> Within:
        return Within(
            self.total + other.total, self.least + other.least, self.likely + other.likely, self.most + other.most
        )

    def __sub__(self, other: Within) -> Within:
        return Within(
            self.total - other.total, self.least - other.least, self.likely - other.likely, self.most - other.most
        )

    @property
    def shares(self) -> dict[str, float] | None:
        """``least``, ``likely`` and ``most`` as shares of all, from 0 to 1; None where there are no values."""
        if not self.total:
            return None
        return {name: min(1.0, max(0.0, getattr(self, name) / self.total)) for name in BOUNDS}


BOUNDS = ("least", "likely", "most")
NOTHING = Within(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Buckets:
    """A cumulative histogram of values that are not negative.

    ``bounds`` are the upper bounds, ascending, the last of them infinite; ``at_most`` how many values each bounds.
    """

    bounds: tuple[float, ...]
    at_most: tuple[float, ...]

    @classmethod
    def of(cls, at_most: Mapping[float, float]) -> Buckets | None:
        """From counts by upper bound; None where they are no histogram: without an infinite bound, or not rising."""
        bounds = tuple(sorted(at_most))
        counts = tuple(at_most[bound] for bound in bounds)
        rising = all(low <= high for low, high in zip((0.0, *counts), counts, strict=False))
        return cls(bounds, counts) if bounds and bounds[-1] == math.inf and rising else None

    @property
    def total(self) -> float:
        """The number of values."""
        return self.at_most[-1]

    def within(self, limit: float) -> Within:
        """How many values are at most ``limit``, which is in the unit of the bounds and not negative."""
        at = bisect_left(self.bounds, limit)
        most, upper = self.at_most[at], self.bounds[at]
        if limit == upper:
            return Within(self.total, most, most, most)
        least, lower = (self.at_most[at - 1], self.bounds[at - 1]) if at else (0.0, 0.0)
        part = 0.0 if math.isinf(upper) else (limit - lower) / (upper - lower)
        return Within(self.total, least, least + part * (most - least), most)

    def grown_from(self, before: Buckets | None) -> Buckets | None:
        """The values that came since ``before``; where counts fell the counter began anew, and all of them are new.

        None where that is not known: there is nothing before, or its buckets are others.
        """
        if before is None or before.bounds != self.bounds:
            return None
        grown = tuple(now - then for then, now in zip(before.at_most, self.at_most, strict=True))
        if min(grown) < 0:
            return self
        rising = all(low <= high for low, high in zip((0.0, *grown), grown, strict=False))
        return Buckets(self.bounds, grown) if rising else self


def within_all(parts: Iterable[Buckets], limit: float) -> Within:
    """``within`` of several histograms together; their buckets may differ."""
    return sum((part.within(limit) for part in parts), NOTHING)
