"""Percentiles and intervals: pure functions, shared by the measurement and the simulator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.slo import needed
from tuner.errors import BadInput

LAG_FLOOR_MS = 20.0
LAG_SHARE_OF_TTFT = 0.05


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Percentiles of one latency metric over the completed requests of a load step, in milliseconds."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float


def percentile(samples: ArrayLike, level: float) -> float | None:
    """The smallest sample that at least ``level`` % of the samples do not exceed; None of no samples.

    The nearest-rank method (Hyndman and Fan 1996, type 1): always a value that was seen, and at most ``x`` exactly
    when at least ``level`` % of the samples are at most ``x``, so that SLO and attainment cannot contradict.
    Raises BadInput for a level outside ]0, 100] and for samples that are not numbers.
    """
    ordered = _ordered(samples)
    if not 0 < level <= 100:
        raise BadInput("percentile", level, "above 0 and at most 100")
    return _nearest_rank(ordered, level) if ordered.size else None


def percentile_interval(
    samples: ArrayLike, level: float, confidence: float = 0.95, *, size: float | None = None
) -> tuple[float, float] | None:
    """The interval that holds the true percentile with at least ``confidence``; None of too few samples.

    Order statistics (Hahn and Meeker, Statistical Intervals, 1991, chapter 5): the number of samples at or below the
    true percentile is binomial whatever the distribution, so two ranks bound it. ``size`` is the number of independent
    samples that these are worth (None: they are independent), as ``tuner.stats.series.effective_size`` finds it. A high
    percentile has no upper bound in few samples: p99 needs at least 368 independent ones.
    """
    ordered = _ordered(samples)
    if not 0 < level <= 100:
        raise BadInput("percentile", level, "above 0 and at most 100")
    count, tail = ordered.size, (1 - confidence) / 2
    worth = count if size is None else min(count, int(size))
    if not worth or level == 100:
        return None
    low, below_high = _binomial_quantiles(worth, level / 100, (tail, 1 - tail))
    high = below_high + 1
    if low < 1 or high > worth:
        return None
    return float(ordered[low * count // worth - 1]), float(ordered[-(-high * count // worth) - 1])


def _binomial_quantiles(count: int, share: float, levels: tuple[float, float]) -> tuple[int, int]:
    """The smallest numbers of successes out of ``count`` that are exceeded with at most 1 - level."""
    spread = 10 * math.sqrt(count * share * (1 - share)) + 10  # beyond it no probability is left that counts
    first, last = max(0, math.floor(count * share - spread)), min(count, math.ceil(count * share + spread))
    ways = math.lgamma(count + 1)
    logs = [
        ways - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * math.log(share) + (count - k) * math.log1p(-share)
        for k in range(first, last + 1)
    ]
    reached = np.cumsum(np.exp(logs))
    low, high = (first + int(np.searchsorted(reached, level - 1e-12)) for level in levels)
    return low, min(high, last)


def quantiles(samples_ms: ArrayLike) -> Quantiles | None:
    """Count, mean and the kept percentiles of a latency in milliseconds; None of no samples."""
    ordered = _ordered(samples_ms)
    if not ordered.size:
        return None
    p50_ms, p90_ms, p95_ms, p99_ms = (_nearest_rank(ordered, level) for level in (50, 90, 95, 99))
    return Quantiles(int(ordered.size), float(ordered.mean()), p50_ms, p90_ms, p95_ms, p99_ms)


def wilson(
    successes: int, total: int, confidence: float = 0.95, *, size: float | None = None
) -> tuple[float, float] | None:
    """Wilson's score interval of a share (Wilson 1927, without continuity correction); None of nothing counted.

    ``size`` is the number of independent cases that these are worth (None: they are independent).
    """
    if not 0 <= successes <= total:
        raise BadInput("successes", successes, f"0 to {total}")
    if not 0 < confidence < 1:
        raise BadInput("confidence", confidence, "between 0 and 1")
    if not total:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    worth = total if size is None else min(float(total), size)
    share, spread = successes / total, z * z / worth
    centre = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / worth + spread / (4 * worth))
    low = (centre - half) / (1 + spread) if successes else 0.0
    high = (centre + half) / (1 + spread) if successes < total else 1.0
    return low, high


def lag_limit_ms(ttft_p50_ms: float | None) -> float:
    """The schedule lag, in milliseconds, beyond which the client and not the server was slow.

    The larger of 20 ms and 5 % of the median TTFT: below it the lag cannot change a verdict on the layout.
    """
    return max(LAG_FLOOR_MS, LAG_SHARE_OF_TTFT * (ttft_p50_ms or 0.0))


def _ordered(samples: ArrayLike) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    ordered = np.sort(np.asarray(samples, dtype=np.float64).ravel())
    if ordered.size and not (np.isfinite(ordered[0]) and np.isfinite(ordered[-1])):
        raise BadInput("samples", "a value that is not finite", "finite numbers")
    return ordered


def _nearest_rank(ordered: np.ndarray[tuple[int], np.dtype[np.float64]], level: float) -> float:
    return float(ordered[needed(ordered.size, level) - 1])
