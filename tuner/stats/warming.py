"""Is an engine warm yet? Latencies in order of time fall while it compiles, captures graphs and fills its caches.

First a fall is looked for by ranks (Pettitt 1979, "A non-parametric approach to the change-point problem"), as
latencies are few and have long tails: the place that best parts higher values from lower ones after it, where chance
would seldom part values that are alike so well. It is looked for again in what follows, until none is found. What is
left has its halves compared (as Geweke 1992 compares the ends of a chain, "Evaluating the accuracy of sampling-based
approaches to the calculation of posterior moments"): a slow fall shows there, or is seen to be none.

Latencies that rise (the queue fills, the batch grows) are no warm-up. A fall that has not begun cannot be seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.stats.series import design_effect

Floats = NDArray[np.float64]
LEAST = 10  # values, in fewer no fall is looked for
FOR_HALVES = 20  # values, of fewer no halves are compared
ENOUGH = 30  # values after the last fall, and half of all, by fewer no engine is called warm
OVER = 1 / 3  # of all values, which must follow a fall before that is over
MATERIAL = math.log(1.1)  # of two levels, from which on they are not alike
CHANCE = 0.05  # of a fall in independent values that are alike
_Z = 1.645  # standard errors, one-sided 95 %
_MOST = 500  # values that are looked at one by one; of more, means of neighbours: the client has other work
_TINY = 1e-9


class Warmth(StrEnum):
    """What the latencies so far say of an engine."""

    COLD = "cold"  # they have fallen lately, or still do
    WARM = "warm"  # they fall no more
    UNKNOWN = "unknown"  # neither is certain


def warmth(values: ArrayLike) -> Warmth:
    """What one series of latencies in order of time says."""
    series = np.asarray(values, dtype=np.float64).ravel()
    width = max(1, math.ceil(series.size / _MOST))
    means = series[: series.size // width * width].reshape(-1, width).mean(axis=1)
    place = _last_fall(means)
    rest = series.size - place * width
    fall, error = _fall_of_halves(np.log(np.maximum(means[place:], _TINY)))
    lately = place > 0 and rest < max(LEAST, OVER * series.size)
    if lately or (fall >= MATERIAL and fall > _Z * error):
        return Warmth.COLD
    steady = rest >= max(ENOUGH, series.size / 2) and fall + _Z * error <= MATERIAL
    return Warmth.WARM if steady else Warmth.UNKNOWN


def together(found: Sequence[Warmth]) -> Warmth:
    """What several series say: COLD where one does, WARM where all do."""
    if Warmth.COLD in found:
        return Warmth.COLD
    return Warmth.WARM if set(found) == {Warmth.WARM} else Warmth.UNKNOWN


def _last_fall(series: Floats) -> int:
    """How many values come before the last material fall; 0 where there is none."""
    begin = last = 0
    while series.size - begin >= LEAST and (place := _parting(series[begin:])):
        before, after = np.median(series[begin : begin + place]), np.median(series[begin + place :])
        begin += place
        last = begin if before >= math.exp(MATERIAL) * after else last
    return last


def _parting(series: Floats) -> int:
    """How many values come before the place that best parts higher from lower ones; 0 where chance may show as much.

    Pettitt's statistic is K = max over t of 2 Σ ranks of the first t values − t (n + 1), which independent values
    exceed with a probability of exp(−6 K² / (n³ + n²)). Of values that depend on each other K² counts divided by the
    design effect, which is that of the ranks, each less the mean of its part.
    """
    size, ranks = series.size, _ranks(series)
    k = 2 * np.cumsum(ranks)[:-1] - np.arange(1, size) * (size + 1)
    place = int(np.argmax(k)) + 1
    evidence = 6 * max(0.0, float(k[place - 1])) ** 2 / (size**3 + size**2)
    if evidence < -math.log(CHANCE):
        return 0
    parts = np.concatenate([part - part.mean() for part in np.split(ranks, [place])])
    return place if evidence >= -math.log(CHANCE) * design_effect(parts) else 0


def _fall_of_halves(logs: Floats) -> tuple[float, float]:
    """By how much logarithms are lower in the second half, and the standard error of that; of few it is infinite."""
    if logs.size < FOR_HALVES:
        return 0.0, math.inf
    first, second = np.array_split(logs, 2)
    rest = np.concatenate((first - first.mean(), second - second.mean()))
    variance = float(rest @ rest) / (logs.size - 2) * design_effect(rest)
    return float(first.mean() - second.mean()), math.sqrt(variance * (1 / first.size + 1 / second.size))


def _ranks(series: Floats) -> Floats:
    """From 1; equal values have the mean of theirs."""
    _, at, counts = np.unique(series, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[at])
