"""What becomes of a stream of tokens that is sent on at intervals: messages, when the first comes, how gaps look.

The path looks at what has come at multiples of the interval after a stream opened, and at its end
(``ray.llm._internal.serve.utils.batcher`` of Ray 2.60).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def messages(output_tokens: ArrayLike, tpot_ms: ArrayLike, interval_ms: float) -> Floats:
    """Mean messages of an answer: one for each token without an interval; else one for each tick that finds a token,
    and one for the end."""
    tokens = np.asarray(output_tokens, dtype=float)
    if not interval_ms:
        return np.asarray(tokens + 0.0 * np.asarray(tpot_ms, dtype=float))
    ticks = np.maximum(tokens - 1, 0.0) * np.asarray(tpot_ms, dtype=float) / interval_ms
    return np.asarray(np.minimum(tokens, 1 + ticks))


def first_ms(idle_ms: ArrayLike, wait_ms: ArrayLike, interval_ms: float) -> Floats:
    """When the tick comes that finds the first token, on average: of a time that is ``idle_ms`` at least, and longer by
    an exponential one of mean ``wait_ms``. The sum over all ticks of the probability that it is later than each."""
    idle, wait = np.asarray(idle_ms, dtype=float), np.maximum(np.asarray(wait_ms, dtype=float), 1e-9)
    if not interval_ms:
        return np.asarray(idle + np.asarray(wait_ms, dtype=float))
    sure = np.floor(idle / interval_ms) + 1
    later = np.exp(-(sure * interval_ms - idle) / wait) / -np.expm1(-interval_ms / wait)
    return np.asarray(interval_ms * (sure + later))


def next_tick_ms(at_ms: ArrayLike, interval_ms: float) -> Floats:
    """The tick that finds what comes ``at_ms`` after the stream opened."""
    at = np.asarray(at_ms, dtype=float)
    return np.asarray(np.ceil(at / interval_ms - 1e-9) * interval_ms) if interval_ms else at
