"""Gaps between messages behind a path: the engine's own, shaken by what loops delay, or those of the ticks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tuner.simulate.result import SimulationResult
from tuner.simulate.state import GAP_BINS, GAP_FLOOR_MS, GAP_RATIO

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_DRAWN = 4096  # gaps that stand for all
_STILL = 0.01  # of the mean gap: what shakes less is left out


def shaken(seen: SimulationResult, delay_ms: Floats, count: Floats) -> SimulationResult:
    """The gaps where each message of a burst comes ``delay_ms`` late, ``count`` of them to a burst: the engine's gaps
    and the changes of the delay are drawn independently of each other."""
    total = int(seen.gap_counts.sum())
    if not total or len(delay_ms) < 2:
        return seen
    change = np.diff(delay_ms)
    if float(np.sqrt(np.average(change**2, weights=count[1:]))) < _STILL * seen.gap_sum_ms / total:
        return seen
    random, at = np.random.default_rng(len(delay_ms)), (np.arange(_DRAWN) + 0.5) / _DRAWN
    bins = np.searchsorted(np.cumsum(seen.gap_counts), at * total)
    engine_ms = GAP_FLOOR_MS * GAP_RATIO ** (bins + 0.5)
    weight = np.cumsum(count[1:])
    drawn = change[np.minimum(np.searchsorted(weight, random.permutation(at) * weight[-1]), len(change) - 1)]
    gaps_ms = np.maximum(engine_ms + drawn, GAP_FLOOR_MS)
    counts = np.bincount(_bins(gaps_ms), minlength=GAP_BINS) * total
    counts = np.diff(np.concatenate([[0], np.cumsum(counts) // _DRAWN]))
    slow = seen.slow_gaps
    if slow.size:
        gaps = np.maximum(seen.output_tokens - 1, 0)[:, None]
        was, now = ((values[:, None] > seen.gap_limits_ms).mean(axis=0) for values in (engine_ms, gaps_ms))
        more = np.clip((now - was) / np.maximum(1 - was, 1e-9), 0.0, 1.0)
        slow = slow + np.rint((gaps - slow) * more).astype(np.int64)
    return replace(seen, gap_counts=counts, slow_gaps=slow)


def of_messages(seen: SimulationResult, at_ms: Floats, request: Ints, last: Ints) -> SimulationResult:
    """The gaps between messages that come ``at_ms``, each of its request; ``last`` are the places of the last ones."""
    own = np.argsort(request, kind="stable")  # a request's messages in order
    gaps_ms, same = np.maximum(np.diff(at_ms[own]), GAP_FLOOR_MS), np.diff(request[own]) == 0
    gaps_ms, of = gaps_ms[same], request[own][1:][same]
    count = len(last)
    slow = np.stack(
        [np.bincount(of[gaps_ms > limit], minlength=count) for limit in seen.gap_limits_ms], axis=1
    ) if seen.slow_gaps.size else seen.slow_gaps  # fmt: skip
    return replace(
        seen,
        gap_counts=np.bincount(_bins(gaps_ms), minlength=GAP_BINS),
        gap_sum_ms=float(gaps_ms.sum()),
        slow_gaps=slow,
        messages=np.bincount(request, minlength=count),
    )


def _bins(gaps_ms: Floats) -> Ints:
    """Bins of the histogram, as ``tuner.simulate.replica.gap_bin`` has them."""
    found = np.log(np.maximum(gaps_ms, GAP_FLOOR_MS) / GAP_FLOOR_MS) / np.log(GAP_RATIO)
    return np.asarray(np.minimum(found.astype(np.int64), GAP_BINS - 1))
