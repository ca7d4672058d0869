"""The time per token of a streamed answer, as a client sees it: one definition, for what is measured and simulated.

TPOT is (E2E - TTFT) / (n - 1): tokens that come one by one, of which the first ends TTFT. Where the first message
brings k tokens, n - k come after it, and share the time after it: dividing by n - 1 would have TPOT fall the later that
message comes. An answer of which more than half comes at once is not streamed: its tokens take E2E / n each. So no way
of batching makes TPOT shorter than the engine's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
STREAMED = 0.5  # the share of its tokens that the first message of a stream brings at most


def time_per_token(after: float, whole: float, tokens: int, first_tokens: int = 1) -> float | None:
    """TPOT of one answer, from the time ``after`` its first message and the ``whole`` E2E, in their unit; None of fewer
    than two tokens."""
    if tokens < 2:
        return None
    if first_tokens <= 1 or first_tokens <= STREAMED * tokens:
        return after / (tokens - max(first_tokens, 1))
    return whole / tokens


def per_token(after: ArrayLike, whole: ArrayLike, tokens: ArrayLike, first_tokens: ArrayLike = 1) -> Floats:
    """``time_per_token`` of arrays, which broadcast; NaN of an answer of fewer than two tokens."""
    count, opening = np.asarray(tokens, dtype=float), np.maximum(np.asarray(first_tokens, dtype=float), 1.0)
    streamed = (opening <= 1) | (opening <= STREAMED * count)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(streamed, np.asarray(after, dtype=float) / (count - opening), np.asarray(whole) / count)
    return np.where(count > 1, each, np.nan)
