"""Several looks as one, with requests enough to speak of means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tuner.ask.request import Metric
from tuner.retune.detect.bins import BinSize
from tuner.retune.seen import Look, Tokens


class Gathered:
    """Looks at latencies, until they are enough. A look without any is left out."""

    def __init__(self, size: BinSize) -> None:
        self._size, self._looks = size, list[Look]()
        self._requests = self._seconds = 0.0

    def add(self, look: Look) -> Look | None:
        """All that were gathered as one, if they are enough with this one."""
        if not look.arrived or not math.isfinite(look.arrived) or not look.mean_ms:
            return None
        self._looks.append(look)
        self._requests, self._seconds = self._requests + look.arrived, self._seconds + look.seconds
        if self._requests < self._size.requests or self._seconds < self._size.seconds:
            return None
        together = look if len(self._looks) == 1 else _together(self._looks, self._requests, self._seconds)
        self._looks.clear()
        self._requests = self._seconds = 0.0
        return together


def _together(looks: Sequence[Look], requests: float, seconds: float) -> Look:
    """Their requests, latencies and lengths; nothing else."""
    metrics: dict[Metric, list[tuple[float, float]]] = {}
    for look in looks:
        for metric, ms in look.mean_ms.items():
            metrics.setdefault(metric, []).append((look.arrived or 0.0, ms))
    return Look(
        looks[-1].at_s,
        seconds,
        arrived=requests,
        mean_ms={metric: _mean(pairs) for metric, pairs in metrics.items()},
        prompt=_tokens(look.prompt for look in looks),
        output=_tokens(look.output for look in looks),
    )


def _tokens(parts: Iterable[Tokens | None]) -> Tokens | None:
    known = [part for part in parts if part is not None and part.requests > 0]
    count = sum(part.requests for part in known)
    return Tokens(count, _mean([(part.requests, part.mean) for part in known])) if count else None


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    return sum(weight * value for weight, value in weighted) / sum(weight for weight, _ in weighted)
