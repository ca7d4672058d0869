"""The path on cores that its hops share with each other, and with engines: one simulation of all hops together.

Cores are work-conserving, so hops of which one waits for the other do not both need one: no factor by which each takes
longer tells what all do together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuner.cost.front_path import Path
from tuner.simulate.state import NONE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def shared(
    path: Path, cores: float, at_ms: Floats, messages: Floats, tokens: Floats, engine: Ints, request: Ints | None,
    asked_ms: Floats, asked_engine: Ints,
) -> tuple[Floats, Floats]:  # fmt: skip
    """(When what leaves the engines has passed the path, how much longer than the work itself the requests take on
    their way in), in ms, on so many ``cores``.

    What leaves comes ``at_ms``, ascending: ``messages`` with ``tokens`` of an ``engine``, of one ``request`` each or
    bursts of many (None), of which each loop of a hop has its part: as many loops as a burst has messages, in turn.
    Requests come ``asked_ms``, ascending.
    """
    from tuner.simulate.front_shared_loops import shared_rounds

    hops = path.fit.hops
    servers = [path.servers(hop) for hop in hops]
    parts = 1
    if request is None and len(at_ms):
        most = max((n for n, hop in zip(servers, hops, strict=True) if hop.per != "engine"), default=1)
        parts = min(most, max(round(float(messages.mean())), 1))
    count, asks = len(at_ms) * parts, len(asked_ms)
    dealt = np.arange(count) if request is None else request
    behind = np.repeat(engine, parts)
    base = np.cumsum([0, *servers])
    loop = np.empty((count + asks, len(hops)), dtype=np.int64)
    work_ms = np.empty((count + asks, len(hops)))
    share, more = np.repeat(messages, parts) / parts, np.repeat(tokens - messages, parts) / parts
    for place, (hop, loops) in enumerate(zip(hops, servers, strict=True)):
        of_engine = hop.per == "engine"
        loop[:count, place] = base[place] + (behind if of_engine else dealt) % loops
        loop[count:, place] = base[place] + (asked_engine if of_engine else np.arange(asks)) % loops
        work_ms[:count, place] = share * hop.message_ms + more * hop.token_ms
        work_ms[count:, place] = hop.request_ms
    come_ms = np.concatenate([np.repeat(at_ms, parts), asked_ms])
    order = np.argsort(come_ms, kind="stable")
    inbound = np.concatenate([np.zeros(count, dtype=np.int64), np.ones(asks, dtype=np.int64)])
    taken = np.repeat([hop.cores for hop in hops], servers)
    others = path.engine_cores + sum(hop.standing * loops for hop, loops in zip(hops, servers, strict=True))
    none = np.full((3, base[-1]), NONE, dtype=np.int64)
    scratch, left_ms = np.zeros((2, count + asks), dtype=np.int64), np.empty(count + asks)
    shared_rounds(
        come_ms[order], inbound[order], np.ascontiguousarray(loop[order]), np.ascontiguousarray(work_ms[order]), taken,
        cores, others, none[0], none[1], none[2], np.zeros(base[-1]), scratch[0], scratch[1], left_ms,
    )  # fmt: skip
    passed = np.empty_like(left_ms)
    passed[order] = left_ms
    out = passed[:count].reshape(-1, parts).max(axis=1)
    alone_ms = float(sum(hop.message_ms for hop in hops))  # which is idle_ms's part
    out = np.maximum(out - alone_ms, at_ms)
    return out, passed[count:] - asked_ms - float(sum(hop.request_ms for hop in hops))
