"""The interval of a percentile of values that follow each other in time, as those of one window of load do.

Two answers to their dependence are taken together, so that the interval is as wide as the wider says:

- ranks, as of independent values of which there are fewer (``percentile_interval`` by ``effective_size``). How few is
  known from the window itself: of one in which no queue happened to build up too many, and then this is too narrow. In
  a tail it has no upper bound where few are left;
- sectioning (Asmussen and Glynn, Stochastic Simulation, 2007, III.5): the window in four parts, whose percentiles
  differ as much as chance has them. It says something in tails, too, and knows little of what remembers longer.

What both miss lies above: a window in which no long queue happened to build up shows nothing of one, the other way
round it does. So the upper side of the second is stretched, by a figure chosen on simulated windows of 30 s and their
early ends. ``python -m tests.benchmarks.coverage`` says how often the interval holds, on others.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.stats.intervals import percentile, percentile_interval
from tuner.stats.series import effective_size

Interval = tuple[float, float]
_SECTIONS = 4
_T_3 = 3.182  # Student's t with 3 degrees of freedom, 97.5 % quantile
_UPWARDS = 1.75  # times as far as downwards
_LEAST_BEYOND = 8  # values on the far side of the percentile, below which sections alone know nothing of it
_LEAST_EFFECTIVE = 10.0  # independent values, below which nothing is known of the spread
_MOST_FACTOR = 1e6  # between the percentiles of a part and of all
_MEMORY_LEVEL = 90.0  # crossings of a higher percentile are too rare to tell of dependence


def serial_interval(values: ArrayLike, level: float) -> Interval | None:
    """The 95 % interval of a percentile of values in order of time; None of too few."""
    series = np.asarray(values, dtype=np.float64).ravel()
    if effective_size(_ranks(series)) < _LEAST_EFFECTIVE:
        return None
    above = series > (percentile(series, min(level, _MEMORY_LEVEL)) or 0.0)
    ranked = percentile_interval(series, level, size=effective_size(above))
    if ranked is None and series.size * min(level, 100 - level) / 100 < _LEAST_BEYOND:
        return None
    low, high = _sectioned(series, level)
    return (low, high) if ranked is None else (min(low, ranked[0]), max(high, ranked[1]))


def _sectioned(series: NDArray[np.float64], level: float) -> Interval:
    """By the percentiles of four parts; in logarithms, as latencies scatter by factors, unless absurd ones."""
    whole = percentile(series, level) or 0.0
    parts = np.array([percentile(part, level) or 0.0 for part in np.array_split(series, _SECTIONS)])
    if parts.min() * _MOST_FACTOR <= whole or parts.max() >= whole * _MOST_FACTOR:  # so where one is zero
        half = _half(parts - whole)
        return max(float(series.min()), whole - half), whole + _UPWARDS * half
    half = _half(np.log(parts / whole))
    return whole * math.exp(-half), whole * math.exp(_UPWARDS * half)


def _half(differences: NDArray[np.float64]) -> float:
    return _T_3 * math.sqrt(float(differences @ differences) / (_SECTIONS - 1) / _SECTIONS)


def _ranks(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of equal values are equal."""
    return np.searchsorted(np.sort(series), series).astype(np.float64)
