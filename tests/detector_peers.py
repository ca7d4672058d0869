"""What others would notice changes with: a limit on the mean of five minutes, and the textbook's CUSUM."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean, pstdev

from tuner.retune.seen import Look

Value = Callable[[Look], float | None]  # of a look, as a logarithm unless it is a share
_BIN_S, _LEARN_S = 300.0, 86_400.0


class _Binned:
    """Means of five minutes; those of the first day say what is usual."""

    def __init__(self, value: Value) -> None:
        self._value, self._now, self._begin_s = value, list[float](), -math.inf
        self._first: list[float] = []
        self.alarmed = False

    def look(self, look: Look) -> bool:
        """Whether it alarms now."""
        value = self._value(look)
        if value is not None:
            self._now.append(value)
        if self._begin_s == -math.inf:
            self._begin_s = look.at_s
        if look.at_s - self._begin_s >= _BIN_S and self._now:
            mean, self._now, self._begin_s = fmean(self._now), [], look.at_s
            if len(self._first) * _BIN_S < _LEARN_S:
                self._first.append(mean)
            else:
                self.alarmed = self._judge(mean)
        return self.alarmed

    def _judge(self, mean: float) -> bool:
        raise NotImplementedError


class Threshold(_Binned):
    """Alarms while the mean of five minutes is over a limit or, without one, off by more than a quarter."""

    def __init__(self, value: Value, limit: float | None = None) -> None:
        super().__init__(value)
        self._limit = limit

    def _judge(self, mean: float) -> bool:
        return abs(mean - fmean(self._first)) > math.log(1.25) if self._limit is None else mean > self._limit


class Cusum(_Binned):
    """Page's two-sided CUSUM for a shift of one deviation, mean and deviation from the first day, its limit by
    Siegmund's approximation for one false alarm in fifty weeks (Siegmund 1985, "Sequential Analysis"); as independent
    values have it. After an alarm it begins anew."""

    _K = 0.5
    _RUN = 2 * 50 * 7 * 86_400 / _BIN_S  # of one side

    def __init__(self, value: Value) -> None:
        super().__init__(value)
        self._up = self._down = 0.0
        self._usual: tuple[float, float] | None = None
        self._limit = next(h / 100 for h in range(1, 10_000) if self._run(h / 100) >= self._RUN)

    def _run(self, limit: float) -> float:
        x = 2 * self._K * (limit + 1.166)
        return (math.exp(x) - x - 1) / (2 * self._K**2)

    def _judge(self, mean: float) -> bool:
        self._usual = self._usual or (fmean(self._first), pstdev(self._first))
        z = (mean - self._usual[0]) / self._usual[1]
        self._up, self._down = max(0.0, self._up + z - self._K), max(0.0, self._down - z - self._K)
        alarm = max(self._up, self._down) > self._limit
        if alarm:
            self._up = self._down = 0.0
        return alarm
