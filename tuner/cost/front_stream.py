"""What becomes of a stream of tokens that is sent on at intervals: messages, when the first comes, how gaps look.

The path looks at what has come at multiples of the interval after a stream opened, and at its end
(``ray.llm._internal.serve.utils.batcher`` of Ray 2.60).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.stats.streamed import STREAMED

Floats = NDArray[np.float64]


def messages(output_tokens: float, tpot_ms: ArrayLike, interval_ms: ArrayLike) -> Floats:
    """Mean messages of an answer: one for each token without an interval; else one for each tick that finds a token,
    and one for the end. All arrays of this module broadcast, and an interval of 0 is none."""
    interval = np.asarray(interval_ms, dtype=float)
    if not interval.any():
        return np.asarray(float(output_tokens))
    with np.errstate(divide="ignore"):
        ticks = max(output_tokens - 1, 0.0) * np.maximum(np.asarray(tpot_ms, dtype=float), 1e-9) / interval
    return np.asarray(np.minimum(output_tokens, 1 + ticks))


def first_ms(idle_ms: ArrayLike, wait_ms: ArrayLike, interval_ms: ArrayLike) -> Floats:
    """When the tick comes that finds the first token, on average: of a time that is ``idle_ms`` at least, and longer by
    an exponential one of mean ``wait_ms``. The sum over all ticks of the probability that it is later than each."""
    idle, interval = np.asarray(idle_ms, dtype=float), np.asarray(interval_ms, dtype=float)
    plain = np.asarray(idle + np.asarray(wait_ms, dtype=float))
    if not interval.any():
        return plain
    wait, width = np.maximum(np.asarray(wait_ms, dtype=float), 1e-9), np.where(interval > 0, interval, 1.0)
    sure = np.floor(idle / width) + 1
    later = np.exp(-(sure * width - idle) / wait) / -np.expm1(-width / wait)
    return np.where(interval > 0, width * (sure + later), plain)


def next_tick_ms(at_ms: ArrayLike, interval_ms: ArrayLike) -> Floats:
    """The tick that finds what comes ``at_ms`` after the stream opened."""
    at, interval = np.asarray(at_ms, dtype=float), np.asarray(interval_ms, dtype=float)
    if not interval.any():
        return at
    width = np.where(interval > 0, interval, 1.0)
    return np.where(interval > 0, np.ceil(at / width - 1e-9) * width, at)


def seen_tpot_ms(tpot_ms: ArrayLike, ttft_ms: ArrayLike, held_ms: ArrayLike, output_tokens: float) -> Floats:
    """TPOT as a client sees it (``tuner.stats.streamed``) where the first token is ``held_ms``: the engine's own, until
    more than half the answer comes at once."""
    tpot = np.asarray(tpot_ms, dtype=float)
    opening = 1 + np.asarray(held_ms, dtype=float) / np.maximum(tpot, 1e-9)
    whole = (np.asarray(ttft_ms, dtype=float) + tpot * max(output_tokens - 1, 0.0)) / max(output_tokens, 1.0)
    return np.where(opening > max(STREAMED * output_tokens, 1.0), np.maximum(tpot, whole), tpot)


def gap_ms(tpot_ms: ArrayLike, output_tokens: float, interval_ms: ArrayLike) -> Floats:
    """The mean gap between the messages of an answer."""
    tpot, count = np.asarray(tpot_ms, dtype=float), messages(output_tokens, tpot_ms, interval_ms)
    return np.asarray(tpot * max(output_tokens - 1, 0.0) / np.maximum(count - 1, 1.0) if output_tokens > 1 else tpot)
