"""Compiled: tokens of many sequences as messages."""

from __future__ import annotations

import math

from tuner.simulate.compiled import compiled
from tuner.simulate.state import Floats, Ints


@compiled
def messages(
    sent_ms: Floats,
    first_ms: Floats,
    end_ms: Floats,
    tokens: Ints,
    interval_ms: float,
    at_ms: Floats,
    carried: Floats,
    first_message: Ints,
    last_message: Ints,
) -> int:
    """Tokens of all requests as messages, request after request: those that have come at each multiple of the interval
    after a stream opened, and the rest at its end. ``carried`` are a message's tokens; the number of messages."""
    used = 0
    for q in range(len(tokens)):
        first_message[q] = used
        gap = (end_ms[q] - first_ms[q]) / max(tokens[q] - 1, 1)
        sent = 0
        while sent < tokens[q]:
            due = first_ms[q] + sent * gap  # of the next token
            tick = sent_ms[q] + math.ceil((due - sent_ms[q]) / interval_ms - 1e-9) * interval_ms
            come = tokens[q]
            if tick < end_ms[q]:
                come = min(int((tick - first_ms[q]) / gap + 1e-9) + 1, tokens[q])
                come = max(come, sent + 1)
            at_ms[used], carried[used] = min(tick, end_ms[q]), come - sent
            used += 1
            sent = come
        last_message[q] = used - 1
    return used
