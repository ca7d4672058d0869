"""Compiled: tokens of many sequences as bursts and messages, and event loops that work on them in rounds."""

from __future__ import annotations

import math

from tuner.simulate.compiled import compiled
from tuner.simulate.state import NONE, Floats, Ints


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


@compiled
def rounds(
    at_ms: Floats,
    server: Ints,
    work_ms: Floats,
    asked_ms: Floats,
    asked_server: Ints,
    asked_work_ms: float,
    link: Ints,
    loops: Floats,
    pending: Ints,
    left_ms: Floats,
    waited_ms: Floats,
) -> None:
    """One hop: event loops that take up all that is ready, work on it, and hand it on together (a round of asyncio's
    ``_run_once``). ``left_ms`` is when each thing that came ``at_ms`` (ascending) leaves; requests that are
    ``asked_ms`` (ascending) are work as well, and find the work in hand that they ``waited_ms`` for.

    By server, ``loops`` has the end of the round, the work that waits for the next and when all would be done,
    ``pending`` the first of what waits; all of it begins empty.
    """
    come, asked = 0, 0
    while come < len(at_ms) or asked < len(asked_ms):
        request = come == len(at_ms) or (asked < len(asked_ms) and asked_ms[asked] < at_ms[come])
        now, s, work = asked_ms[asked], asked_server[asked], asked_work_ms
        if not request:
            now, s, work = at_ms[come], server[come], work_ms[come]
        while loops[s, 1] > 0 and now > loops[s, 0]:
            _close(s, link, loops, pending, left_ms)
        loops[s, 0] = max(loops[s, 0], now)
        if request:
            waited_ms[asked] += max(loops[s, 2] - now, 0.0)
            asked += 1
        else:
            link[come] = pending[s]
            pending[s] = come
            come += 1
        loops[s, 1] += max(work, 1e-12)
        loops[s, 2] = max(loops[s, 2], now) + work
    for s in range(len(pending)):
        if loops[s, 1] > 0:
            _close(s, link, loops, pending, left_ms)


@compiled
def _close(s: int, link: Ints, loops: Floats, pending: Ints, left_ms: Floats) -> None:
    """The next round of a loop: what waits for it leaves at its end."""
    loops[s, 0] += loops[s, 1]
    loops[s, 1] = 0.0
    while pending[s] != NONE:
        left_ms[pending[s]] = loops[s, 0]
        pending[s] = link[pending[s]]
