"""The highest rate that meets the SLO, asked and told: where to measure next, and how much is known by now.

The search holds a probability for every rate that it may be the limit, on a logarithmic grid, and asks for the middle
of them (probabilistic bisection: Waeber, Frazier and Henderson 2013, "Bisection search with noisy responses"). A
verdict moves it by how far it can be trusted: with the limit at L, a window at rate r meets the SLO with probability
Φ(ln(L / r) / s), lapses aside. The noise s of the windows is not known: it is learned with the limit, so that verdicts
that contradict each other widen the interval instead of misleading the search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tuner.ask.slo import Verdict
from tuner.errors import BadInput

Floats = NDArray[np.float64]
_POINTS = 600  # of the grid of limits
_NOISES = {0.01: 0.4, 0.03: 0.3, 0.1: 0.2, 0.3: 0.1}  # of ln of a rate, one standard deviation: how likely at first
_UNCERTAIN_NOISE = 0.15  # at least, for a verdict that chance in the arrivals could have turned
_LAPSE = 0.02  # of verdicts that say nothing: a disturbance
_TAIL = 0.05  # probability beyond each end of the interval
_BEYOND = 0.1  # probability, before anything is known, that the limit lies below the lowest or above the highest rate
_START_SPREAD = math.log(3)  # how far a first guess is trusted, one standard deviation


class SearchEnd(StrEnum):
    """Why a search is over."""

    FOUND = "found"  # the interval is as narrow as asked
    LOWEST_FAILS = "lowest_fails"  # not even the lowest rate meets the SLO
    HIGHEST_PASSES = "highest_passes"  # the highest allowed rate meets it: the limit lies beyond
    CLIENT_SATURATED = "client_saturated"  # the client cannot send the rates at which the limit lies
    NO_WINDOWS_LEFT = "no_windows_left"  # the budget is spent


@dataclass(frozen=True, slots=True)
class RateFound:
    """What is known of the limit, in requests/s.

    ``rate_req_per_s`` is the highest measured rate that met the SLO and is more likely below the limit than above;
    None where there is none. The limit lies between ``at_least`` and ``at_most`` with 90 % probability; None where it
    may lie below the lowest, or beyond the highest rate.
    """

    rate_req_per_s: float | None
    at_least_req_per_s: float | None
    at_most_req_per_s: float | None
    windows: int
    end: SearchEnd | None


class RateSearch:
    """Searches between ``lowest`` and ``highest`` requests/s until the limit is known to ``precision`` (a share).

    ``start`` is a first guess, such as a predicted rate; a wrong one costs windows, not the result. Any window may be
    told, also those of earlier runs and those that were not asked for.
    """

    def __init__(
        self, lowest: float, highest: float, *, start: float | None = None, precision: float = 0.1, windows: int = 24
    ) -> None:
        if not (math.isfinite(lowest) and 0 < lowest < highest < math.inf):
            raise BadInput("rates", f"{lowest:g} to {highest:g}", "0 < lowest < highest, in requests/s")
        if not precision > 0:
            raise BadInput("precision", precision, "above 0")
        if windows < 1:
            raise BadInput("windows", windows, "at least 1")
        self.lowest, self.highest, self.precision, self.windows = lowest, highest, precision, windows
        self._limits = np.linspace(math.log(lowest), math.log(highest), _POINTS)
        inside = np.full(_POINTS, 1 / _POINTS)
        if start is not None:
            guess = np.exp(-0.5 * ((self._limits - math.log(max(start, 1e-12))) / _START_SPREAD) ** 2)
            inside = 0.3 * inside + (0.7 * guess / guess.sum() if guess.sum() else 0)
            inside /= inside.sum()
        # Rows: noises. Columns: the limit below the lowest rate, at each point of the grid, above the highest rate.
        belief = np.concatenate([[_BEYOND], (1 - 2 * _BEYOND) * inside, [_BEYOND]])
        self._belief = np.array(list(_NOISES.values()))[:, None] * belief
        self._met: list[float] = []
        self._told = 0
        self._saturated = math.inf  # ln of the lowest rate that the client could not send

    def tell(self, rate_req_per_s: float, verdict: Verdict, *, certain: bool = True) -> None:
        """A window at that rate has ended; ``certain`` as an early verdict is, and a whole window may not be.

        An UNKNOWN verdict spends a window and teaches nothing.
        """
        self._told += 1
        if verdict is Verdict.UNKNOWN:
            return
        if verdict is Verdict.MET:
            self._met.append(rate_req_per_s)
        at, step = math.log(rate_req_per_s), self._limits[1] - self._limits[0]
        distance = np.concatenate([[-math.inf], self._limits + step / 2 - at, [math.inf]])
        if at > self._limits[-1]:  # a rate beyond the range tells nothing of limits that lie beyond it, too
            distance[-1] = 0.0
        if at < self._limits[0]:
            distance[0] = 0.0
        for row, noise in enumerate(_NOISES):
            scale = noise if certain else max(noise, _UNCERTAIN_NOISE)
            meets = np.array([_normal(one / scale) for one in distance])
            self._belief[row] *= _LAPSE / 2 + (1 - _LAPSE) * (meets if verdict is Verdict.MET else 1 - meets)
        self._belief /= self._belief.sum()

    def tell_saturated(self, rate_req_per_s: float) -> None:
        """The client could not send that rate: no higher one is asked for again."""
        self._told += 1
        self._saturated = min(self._saturated, math.log(rate_req_per_s))

    def ask(self) -> float | None:
        """The rate to measure next, in requests/s; None when the search is over."""
        if self._end() is not None:
            return None
        limit = min(max(self._quantile(0.5), self._limits[0]), self._limits[-1])
        if limit >= self._saturated:
            limit = (max(self._best, self._limits[0]) + self._saturated) / 2
        return float(math.exp(limit))

    @property
    def found(self) -> RateFound:
        """What is known by now; ``end`` is None while the search goes on."""
        low, middle, high = (self._quantile(level) for level in (_TAIL, 0.5, 1 - _TAIL))
        return RateFound(
            max((rate for rate in self._met if math.log(rate) <= middle), default=None),
            None if math.isinf(low) else math.exp(low),
            None if math.isinf(high) else math.exp(high),
            self._told,
            self._end(),
        )

    def _end(self) -> SearchEnd | None:
        low, high = self._quantile(_TAIL), self._quantile(1 - _TAIL)
        if high == -math.inf:
            return SearchEnd.LOWEST_FAILS
        if low == math.inf:
            return SearchEnd.HIGHEST_PASSES
        if self._quantile(0.5) >= self._saturated <= max(self._best, self._limits[0]) + math.log1p(self.precision):
            return SearchEnd.CLIENT_SATURATED
        if high - low <= math.log1p(self.precision):
            return SearchEnd.FOUND
        return SearchEnd.NO_WINDOWS_LEFT if self._told >= self.windows else None

    @property
    def _best(self) -> float:
        """ln of the highest measured rate that met the SLO."""
        return math.log(max(self._met)) if self._met else -math.inf

    def _quantile(self, level: float) -> float:
        """ln of the limit that is not exceeded with that probability; infinite beyond the range."""
        place = int(np.searchsorted(np.cumsum(self._belief.sum(axis=0)), level))
        if place == 0:
            return -math.inf
        return float(self._limits[place - 1]) if place <= _POINTS else math.inf


def _normal(z: float) -> float:
    return NormalDist().cdf(z) if math.isfinite(z) else float(z > 0)
