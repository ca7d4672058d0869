"""When the warm-up of an engine is over: after its usual length, or when its latencies say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.ask.request import Metric
from tuner.stats.warming import Warmth, together, warmth

Floats = NDArray[np.float64]
LOOK_S = 0.5  # between two looks at it
EARLIEST = 0.5  # of the usual length: before, too little was seen


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of the requests of a warm-up by a moment: TTFT in order of first tokens and TPOT in that of last
    ones (s), a metric without a value is absent, and the longest that a request took, or waits (s)."""

    values_s: Mapping[Metric, Floats]
    longest_s: float

    @classmethod
    def by(
        cls, now_s: float, sent_s: ArrayLike, first_token_s: ArrayLike, end_s: ArrayLike, tpot_s: ArrayLike
    ) -> Heard:
        """By ``now_s`` of requests with these times, one each; what never came is nan."""
        sent, first, end, tpot = (np.asarray(one, dtype=np.float64) for one in (sent_s, first_token_s, end_s, tpot_s))
        begun = np.flatnonzero(first <= now_s)
        begun = begun[np.argsort(first[begun], kind="stable")]
        ended = np.flatnonzero((end <= now_s) & np.isfinite(tpot))
        ended = ended[np.argsort(end[ended], kind="stable")]
        found = {Metric.TTFT: first[begun] - sent[begun], Metric.TPOT: tpot[ended]}
        there = sent <= now_s
        took = np.where(end[there] <= now_s, end[there], now_s) - sent[there]
        return cls({metric: values for metric, values in found.items() if values.size}, float(took.max(initial=0.0)))

    @property
    def warmth(self) -> Warmth:
        """What all of it says; no first token at all is cold."""
        if not self.values_s:
            return Warmth.COLD if self.longest_s else Warmth.UNKNOWN
        return together([warmth(values) for values in self.values_s.values()])


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A warm-up lasts about ``usual_s``. It ends before, from half of that on, where latencies certainly fall no more
    and as many requests leave as come; and goes on while they fall, up to ``longest_s``. Where these two are the same
    it lasts so long whatever is seen."""

    usual_s: float
    longest_s: float

    def over(self, now_s: float, heard: Heard) -> bool:
        """Whether it may end now, as it is looked at every ``LOOK_S``."""
        if now_s >= self.longest_s or self.longest_s <= self.usual_s:
            return now_s >= self.longest_s
        if now_s >= self.usual_s:
            return heard.warmth is not Warmth.COLD
        filled = now_s >= max(EARLIEST * self.usual_s, 2 * heard.longest_s)
        return filled and heard.warmth is Warmth.WARM

    def caution(self, end_s: float, heard: Heard) -> str | None:
        """In words, where it ended only because it had to."""
        if self.longest_s <= self.usual_s or end_s < self.longest_s - LOOK_S or heard.warmth is not Warmth.COLD:
            return None
        words = f"not yet warm after {end_s:.3g} s of load"
        falling = [_fell(metric, values) for metric, values in heard.values_s.items() if warmth(values) is Warmth.COLD]
        return f"{words}: {', '.join(falling) if falling else 'no answer had begun'}"


def _fell(metric: Metric, values_s: Floats) -> str:
    before_ms, after_ms = (float(np.median(half)) * 1e3 for half in np.array_split(values_s, 2))
    return f"{metric.value.upper()} still fell (median {before_ms:.4g} ms, then {after_ms:.4g} ms)"
