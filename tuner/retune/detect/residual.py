"""Whether what serves is slower or faster than was expected of it, at the load that it has.

The logarithm of measured ÷ expected mean is a series whose level is tested (``levels``). What is expected comes from a
function of the load (a model's prediction), or from the first requests that came at the same load (``load_means``). A
constant error of the prediction is no change: the level of the first bins, while the decision was fresh, is the
reference. Where nothing is expected at a load, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tuner.ask.request import Metric
from tuner.retune.detect.bins import BIN_SIZE, BinSize
from tuner.retune.detect.departure import Departed, Departure
from tuner.retune.detect.levels import Bin, LevelSettings
from tuner.retune.detect.load_means import LoadMeans
from tuner.retune.detect.looks import Gathered
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look

Expected = Callable[[Look], Mapping[Metric, float]]  # mean ms of each metric at the load of a look, where it is known
SETTINGS = LevelSettings(least_change=math.log(1.15), wander=0.1)


class Residual:
    """Detects that, metric by metric; see above."""

    def __init__(self, expected: Expected | None = None, size: BinSize = BIN_SIZE) -> None:
        self._expected, self._size = expected, size
        self.decided(0.0)

    def look(self, look: Look) -> tuple[Notice, ...]:
        """The metrics that are away from what was expected."""
        together = self._gathered.add(look)
        if together is not None:
            self._judge(together)
        departed = ((metric, one.departed) for metric, one in self._series.items())
        return tuple(_notice(metric, one) for metric, one in departed if one is not None)

    def _judge(self, look: Look) -> None:
        """A look with requests enough to speak of means."""
        for metric, expected in (self._expected or self._learnt.expected)(look).items():
            ms = look.mean_ms.get(metric)
            if ms is not None and 0 < ms < math.inf and 0 < expected < math.inf and look.arrived:
                # The deviation of one request is taken for its mean, as that of an exponential distribution is.
                one = Bin(look.at_s - look.seconds, look.at_s, look.seconds, math.log(ms / expected), 1 / look.arrived)
                if metric not in self._series:
                    self._series[metric] = Departure(SETTINGS)
                self._series[metric].add(one)
        if self._expected is None:
            self._learnt.learn(look, [metric for metric, one in self._series.items() if one.departed])

    def decided(self, at_s: float) -> None:
        """Of another deployment something else is expected."""
        self._gathered, self._learnt = Gathered(self._size), LoadMeans()
        self._series: dict[Metric, Departure] = {}


def _notice(metric: Metric, departed: Departed) -> Notice:
    factor = math.exp(departed.level - departed.reference)
    how = f"{factor - 1:.0%} slower" if factor > 1 else f"{1 - factor:.0%} faster"
    evidence = f"mean {metric.value} is {how} than at the same load when this was decided"
    figures = {"measured_over_expected_ratio": factor, "false_per_week": departed.per_week}
    return Notice(NoticeKind.RESIDUAL, metric.value, evidence, departed.confidence, departed.since_s, figures)
