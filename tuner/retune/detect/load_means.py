"""What latencies are at a load: the means of the first requests that came at it.

Loads are the same where rate, prompt and answer lengths are, each within about an eighth. Lengths are counted from
their mean over the first requests, so that those of one workload do not fall on both sides of a border.
"""

from __future__ import annotations

import math
from collections.abc import Container

from tuner.ask.request import Metric
from tuner.retune.seen import Look

KNOWN_REQUESTS, LEARNT_REQUESTS = 400.0, 2000.0  # of a load: when its mean is used, and when it is final
_STEP = math.log(1.25)
_Load = tuple[int, int, int]


class LoadMeans:
    """Mean ms by metric and load."""

    def __init__(self) -> None:
        self._known: dict[_Load, dict[Metric, tuple[float, float]]] = {}
        self._requests = 0.0
        self._lengths = [0.0, 0.0]  # of prompts and answers: logarithms of means over the first requests

    def expected(self, look: Look) -> dict[Metric, float]:
        """Mean ms by metric at the load of this look; nothing where that load is new."""
        load = self._load(look)
        known = self._known.get(load, {}) if load is not None else {}
        return {metric: mean for metric, (requests, mean) in known.items() if requests >= KNOWN_REQUESTS}

    def learn(self, look: Look, but: Container[Metric] = ()) -> None:
        """Take in a look; ``but`` these metrics, which are not as expected any more."""
        if not look.arrived:
            return
        if self._requests < KNOWN_REQUESTS:
            self._learn_lengths(look, look.arrived)
            return
        load = self._load(look)
        if load is None:
            return
        known = self._known.setdefault(load, {})
        for metric, ms in look.mean_ms.items():
            requests, mean = known.get(metric, (0.0, 0.0))
            if requests < LEARNT_REQUESTS and metric not in but:
                total = requests + look.arrived
                known[metric] = total, mean + (ms - mean) * look.arrived / total

    def _learn_lengths(self, look: Look, requests: float) -> None:
        self._requests += requests
        for place, tokens in enumerate((look.prompt, look.output)):
            if tokens is not None and tokens.mean > 0:
                off = math.log(tokens.mean) - self._lengths[place]
                self._lengths[place] += off * requests / self._requests

    def _load(self, look: Look) -> _Load | None:
        """None where a look does not tell its load, or that of the first requests is not known yet."""
        rate = look.req_per_s
        if not rate or self._requests < KNOWN_REQUESTS:
            return None
        lengths = zip((look.prompt, look.output), self._lengths, strict=True)
        steps = [round((math.log(one.mean) - usual) / _STEP) if one and one.mean > 0 else 0 for one, usual in lengths]
        return round(math.log(rate) / _STEP), steps[0], steps[1]
