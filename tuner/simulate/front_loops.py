"""Compiled: tokens of many sequences as bursts and messages."""

from __future__ import annotations

import math

from tuner.simulate.compiled import compiled
from tuner.simulate.state import Floats, Ints


@compiled
def bursts(
    order: Ints,
    first_ms: Floats,
    end_ms: Floats,
    tokens: Ints,
    step_ms: float,
    at_ms: Floats,
    count: Floats,
    first_burst: Ints,
    last_burst: Ints,
) -> int:
    """Tokens of one engine as bursts, one a step, of all sequences that run: ``at_ms`` and how many; the number of
    bursts. Requests come in the ``order`` of their first tokens, their own tokens evenly until the last; each ends up
    with its first and last burst. Steps in which nothing runs are left out."""
    used, period, base, until = 0, 0, 0, -1
    for q in order:
        start = math.ceil(first_ms[q] / step_ms - 1e-9)
        stop = max(math.ceil(end_ms[q] / step_ms - 1e-9), start)
        if start > until:  # idle in between
            period, base, until = start, used, start - 1
        while until < stop:
            until += 1
            at_ms[used], count[used] = until * step_ms, 0.0
            used += 1
        first_burst[q], last_burst[q] = base + start - period, base + stop - period
        share = tokens[q] / (stop - start + 1)
        for burst in range(first_burst[q], last_burst[q] + 1):
            count[burst] += share
    return used


@compiled
def messages(
    sent_ms: Floats,
    first_ms: Floats,
    end_ms: Floats,
    tokens: Ints,
    interval_ms: float,
    at_ms: Floats,
    carried: Floats,
    request: Ints,
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
            at_ms[used], carried[used], request[used] = min(tick, end_ms[q]), come - sent, q
            used += 1
            sent = come
        last_message[q] = used - 1
    return used
