"""Figures that follow each other in time: how much they depend on each other, where they settle, whether they drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.errors import BadInput

Floats = NDArray[np.float64]
BATCHES = 10
_T_8 = 2.306  # Student's t with 8 degrees of freedom (ten batches, two coefficients), 97.5 % quantile
_MSER_BATCH = 5


def design_effect(values: ArrayLike) -> float:
    """How many of these values are worth one independent one: 1 + 2 Σ autocorrelations; at least 1.

    The sum ends before the first pair of lags whose autocorrelations add up to nothing or less (the initial positive
    sequence, Geyer 1992, "Practical Markov chain Monte Carlo").
    """
    series = _series(values)
    if not series.size or not np.ptp(series):
        return 1.0
    centred = series - series.mean()
    centred = np.ldexp(centred, -int(np.frexp(np.abs(centred).max())[1]))  # or the squares of small ones would be 0
    width = 1 << (2 * series.size - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, width)) ** 2
    correlation = np.fft.irfft(power, width)[: series.size]
    correlation /= correlation[0]
    pairs = correlation[: series.size // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    return max(1.0, float(2 * pairs[: ends[0] if ends.size else None].sum() - 1))


def effective_size(values: ArrayLike) -> float:
    """The number of independent values whose mean would be known as well as that of these."""
    series = _series(values)
    return series.size / design_effect(series)


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through values over time: its rise per second and the 95 % interval of that."""

    per_s: float
    at_least_per_s: float
    at_most_per_s: float

    @property
    def rises(self) -> bool:
        """True where chance alone would hardly show such a rise."""
        return self.at_least_per_s > 0


def trend(at_s: ArrayLike, values: ArrayLike) -> Trend:
    """The trend of at least ``BATCHES`` values, ordered by time.

    Least squares through the means of ten batches of consecutive values: neighbours are alike, their batches much less.
    """
    times, series = _series(at_s), _series(values)
    if times.size != series.size or series.size < BATCHES:
        raise BadInput("values", f"{series.size} values at {times.size} times", f"the same number, at least {BATCHES}")
    x, y = (np.array([batch.mean() for batch in np.array_split(one, BATCHES)]) for one in (times, series))
    x = x - x.mean()
    spread = float(x @ x)
    if spread == 0:
        return Trend(0.0, 0.0, 0.0)
    slope = float(x @ y) / spread
    rest = y - y.mean() - slope * x
    half = _T_8 * math.sqrt(float(rest @ rest) / (BATCHES - 2) / spread)
    return Trend(slope, slope - half, slope + half)


def warm_up(values: ArrayLike) -> int | None:
    """How many of the first values to leave out as warm-up; None where no steady part is to be seen.

    MSER-5 (White 1997, "An effective truncation heuristic for bias reduction in simulation output"): the cut, in
    batches of five, that makes the standard error of the mean of the rest smallest. A cut beyond the half means that
    the series has not settled.
    """
    series = _series(values)
    count = series.size // _MSER_BATCH
    if count < BATCHES:
        return None
    means = series[: count * _MSER_BATCH].reshape(count, _MSER_BATCH).mean(axis=1)
    kept = np.arange(count, 0, -1)
    sums, squares = (np.cumsum(power[::-1])[::-1] for power in (means - means.mean(), (means - means.mean()) ** 2))
    error = (squares - sums**2 / kept) / kept.astype(float) ** 2
    cut = int(np.argmin(error[: count - BATCHES // 2]))
    return None if cut > count // 2 else cut * _MSER_BATCH


def in_flight(sent_s: ArrayLike, end_s: ArrayLike, at_s: ArrayLike) -> NDArray[np.int64]:
    """Requests sent and not yet ended at each moment; an end that has not come is infinite."""
    sent, ended = np.sort(np.asarray(sent_s, dtype=float)), np.sort(np.asarray(end_s, dtype=float))
    times = np.asarray(at_s, dtype=float)
    return np.searchsorted(sent, times, side="right") - np.searchsorted(ended, times, side="right")


def _series(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64).ravel()
