"""Whether what serves is slower or faster than was expected of it, at the load that it has.

The logarithm of measured ÷ expected mean is a series whose level is tested (``levels``). What is expected comes from a
function of the look (a model's prediction for that load), or from the first looks at the same load: the same rate and
lengths within an eighth. A constant error of the prediction is no change: the level of the first bins, while the
decision was fresh, is the reference. Where nothing is expected at a load, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping

from tuner.ask.request import Metric
from tuner.retune.detect.bins import BIN_SIZE, Bins, BinSize, as_logarithm
from tuner.retune.detect.departure import Departed, Departure
from tuner.retune.detect.levels import LevelSettings
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look

Expected = Callable[[Look], Mapping[Metric, float]]  # mean ms of each metric at the load of a look, where it is known
SETTINGS = LevelSettings(least_change=math.log(1.15), wander=0.1)
_STEP = math.log(1.25)  # loads within it are the same
_KNOWN_REQUESTS, _LEARNT_REQUESTS = 100.0, 2000.0  # of a load: when its mean is used, and when it is final


class ExpectedByLoad:
    """What is expected at a load: the mean of the first requests that came at it."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], dict[Metric, tuple[float, float]]] = {}

    def __call__(self, look: Look) -> dict[Metric, float]:
        """Mean ms by metric at the load of this look; nothing while that load is new."""
        load = _load(look)
        known = self._known.get(load, {}) if load is not None else {}
        return {metric: mean for metric, (requests, mean) in known.items() if requests >= _KNOWN_REQUESTS}

    def learn(self, look: Look, but: Container[Metric] = ()) -> None:
        """Take in a look; ``but`` these metrics, which are not as expected any more."""
        load = _load(look)
        if load is None or not look.arrived:
            return
        known = self._known.setdefault(load, {})
        for metric, ms in look.mean_ms.items():
            requests, mean = known.get(metric, (0.0, 0.0))
            if requests < _LEARNT_REQUESTS and metric not in but:
                known[metric] = requests + look.arrived, mean + (ms - mean) * look.arrived / (requests + look.arrived)


def _load(look: Look) -> tuple[int, ...] | None:
    parts = (look.req_per_s, look.prompt.mean if look.prompt else None, look.output.mean if look.output else None)
    if parts[0] is None or any(part is not None and part <= 0 for part in parts):
        return None
    return tuple(0 if part is None else round(math.log(part) / _STEP) for part in parts)


class Residual:
    """Detects that, metric by metric; see above."""

    def __init__(self, expected: Expected | None = None, size: BinSize = BIN_SIZE) -> None:
        self._given, self._size = expected, size
        self._learnt = ExpectedByLoad()
        self._series: dict[Metric, tuple[Bins, Departure]] = {}

    def look(self, look: Look) -> tuple[Notice, ...]:
        """The metrics that are away from what was expected."""
        if look.arrived and look.mean_ms:
            for metric, expected in (self._given or self._learnt)(look).items():
                ms = look.mean_ms.get(metric)
                if ms is not None and 0 < ms < math.inf and 0 < expected < math.inf:
                    self._add(metric, ms / expected, look, look.arrived)
        departed = {metric: series.departed for metric, (_, series) in self._series.items() if series.departed}
        if self._given is None:
            self._learnt.learn(look, departed)
        return tuple(_notice(metric, one) for metric, one in departed.items())

    def _add(self, metric: Metric, ratio: float, look: Look, requests: float) -> None:
        if metric not in self._series:
            self._series[metric] = Bins(self._size), Departure(SETTINGS)
        bins, series = self._series[metric]
        # Of one request: the square of deviation ÷ mean, taken for that of an exponential distribution.
        one = bins.add(look.at_s, look.seconds, requests, ratio, ratio * ratio)
        if one is not None:
            series.add(as_logarithm(one))

    def decided(self, at_s: float) -> None:
        """Of another deployment something else is expected."""
        self._series = {}
        self._learnt = ExpectedByLoad()


def _notice(metric: Metric, departed: Departed) -> Notice:
    factor = math.exp(departed.level - departed.reference)
    how = f"{factor - 1:.0%} slower" if factor > 1 else f"{1 - factor:.0%} faster"
    evidence = f"mean {metric.value} is {how} than at the same load when this was decided"
    figures = {"measured_over_expected_ratio": factor, "false_per_week": departed.per_week}
    return Notice(NoticeKind.RESIDUAL, metric.value, evidence, departed.confidence, departed.since_s, figures)
