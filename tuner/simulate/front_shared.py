"""The path on cores that its hops share with each other, and with engines: one simulation of all hops together.

Cores are work-conserving, so hops of which one waits for the other do not both need one: no factor by which each takes
longer tells what all do together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuner.cost.front_path import Path
from tuner.simulate.result import SimulationResult
from tuner.simulate.state import NONE

if TYPE_CHECKING:
    from tuner.simulate.front_shared_loops import Hops, Room

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_ROOM = 1 << 16  # things beyond the requests that there is room for at first


@dataclass(frozen=True, slots=True)
class Passed:
    """What becomes of a simulation's traffic behind a path, in ms.

    By request: how much later than on an idle path it reaches its engine (``inbound_ms``), and how much later its first
    message comes through than it left (``first_ms``). What leaves engines are bursts of tokens in the order of time, or
    where streams are sent on at intervals messages by request: how many ``messages`` each place stands for, when it
    leaves and how much later than alone it comes through, and which places are a request's ``first`` (None of bursts)
    and ``last``; ``early_ms`` is when its first message leaves if the request is not late, ``opening`` its tokens.
    """

    inbound_ms: Floats
    first_ms: Floats
    early_ms: Floats
    opening: Ints
    messages: Floats
    at_ms: Floats
    late_ms: Floats
    last: Ints
    request: Ints | None


def passed(path: Path, result: SimulationResult, stages: int = 1) -> Passed:
    """Requests of a simulation, and their answers, through a path; engines of several ``stages`` end a step for each.

    A request and its first message take ``passes`` rounds of each loop, on average over all; whatever else comes takes
    one. Of a burst each loop of a hop has its part: as many loops as it has messages, in turn. Messages of a stream
    that wait for the loop of the last hop, that of the engine, leave as one.
    """
    from tuner.simulate import front_shared_loops as loops

    asked = np.argsort(result.arrival_s, kind="stable")
    arrival_ms, first_ms, end_ms = (1e3 * at[asked] for at in (result.arrival_s, result.first_token_s, result.end_s))
    tokens, count = result.output_tokens[asked], len(asked)
    engine = np.unique(result.replica[asked], return_inverse=True)[1]
    interval_ms = float(path.front.interval_ms)
    step_ms, steps = _steps(first_ms, end_ms, tokens, engine, stages)
    long = np.maximum(np.bincount(engine, steps) // np.bincount(engine), 1).astype(np.int64)
    early_ms = carried = np.zeros(0)
    first = last = np.zeros(0, dtype=np.int64)
    if interval_ms:
        early_ms, carried, first, last = _messages(arrival_ms, first_ms, end_ms, tokens, interval_ms)
    rounds = np.maximum(np.diff(np.floor(np.arange(count + 1) * path.fit.passes)), 1).astype(np.int64)
    given = loops.Asked(arrival_ms, engine.astype(np.int64), rounds, first_ms, steps, tokens / (steps + 1), first, last)
    seen = loops.Seen(np.empty(count), np.empty(count), np.empty(count), np.zeros(count, dtype=np.int64))
    hops, room, bursts, at_intervals = _hops(path), count + len(early_ms) + _ROOM, NONE, bool(interval_ms)
    while bursts == NONE:
        room *= 4
        sent = loops.Sent(early_ms, *(np.empty(room) for _ in range(3)))
        sent.tokens[: len(carried)] = carried
        fresh = _room(hops, count, step_ms, long, room, at_intervals)
        bursts = loops.pass_all(hops, given, sent, seen, fresh, at_intervals)
    kept = np.flatnonzero(sent.tokens[: len(early_ms) if interval_ms else bursts] > 0)
    request_ms, message_ms = float(hops.request_ms.sum()), float(hops.message_ms.sum())
    back = np.empty_like(asked)
    back[asked] = np.arange(count)
    inbound_ms = np.maximum(seen.arrived_ms - arrival_ms - request_ms, 0.0)
    return Passed(
        inbound_ms=inbound_ms[back],
        first_ms=np.maximum(seen.first_left_ms - seen.first_at_ms - message_ms, 0.0)[back],
        early_ms=(early_ms[first] if interval_ms else first_ms)[back],
        opening=carried[first].astype(np.int64)[back] if interval_ms else np.ones(count, dtype=np.int64),
        messages=np.ones(len(kept)) if interval_ms else sent.tokens[kept],
        at_ms=sent.at_ms[kept],
        late_ms=np.maximum(sent.left_ms[kept] - sent.at_ms[kept] - message_ms, 0.0),
        last=np.searchsorted(kept, last if interval_ms else seen.last, side="right")[back] - 1,
        request=np.repeat(asked, last - first + 1)[kept] if interval_ms else None,
    )


def _steps(first_ms: Floats, end_ms: Floats, tokens: Ints, engine: Ints, stages: int) -> tuple[Floats, Ints]:
    """How long a step of each engine takes, and by request how many come from its first token to its last."""
    gaps = np.maximum(np.bincount(engine, tokens - 1), 1.0)
    step_ms = np.maximum(np.bincount(engine, end_ms - first_ms) / gaps, 1e-3) / stages
    begins, ends = (np.ceil(at / step_ms[engine] - 1e-9) for at in (first_ms, end_ms))
    return step_ms, np.maximum(ends - begins, 0).astype(np.int64)


def _messages(
    arrival_ms: Floats, first_ms: Floats, end_ms: Floats, tokens: Ints, interval_ms: float
) -> tuple[Floats, Floats, Ints, Ints]:
    """Tokens that are sent on at intervals as messages by request: when each leaves, its tokens, and by request the
    places of the first and the last."""
    from tuner.simulate.front_loops import messages

    most = np.minimum(tokens, 3 + ((end_ms - first_ms) / interval_ms).astype(np.int64))
    at_ms, carried = np.empty(int(most.sum())), np.empty(int(most.sum()))
    first, last = np.empty(len(tokens), dtype=np.int64), np.empty(len(tokens), dtype=np.int64)
    used = messages(arrival_ms, first_ms, end_ms, tokens, interval_ms, at_ms, carried, first, last)
    return at_ms[:used], carried[:used], first, last


def _hops(path: Path) -> Hops:
    from tuner.simulate.front_shared_loops import Hops

    hops = path.fit.hops
    servers = np.array([path.servers(hop) for hop in hops], dtype=np.int64)
    return Hops(
        request_ms=np.array([hop.request_ms for hop in hops]),
        message_ms=np.array([hop.message_ms for hop in hops]),
        token_ms=np.array([hop.token_ms for hop in hops]),
        base=np.cumsum(servers) - servers,
        loops=servers,
        own=np.array([hop.per == "engine" for hop in hops], dtype=np.int64),
        taken=np.repeat([hop.cores for hop in hops], servers),
        cores=np.inf if path.cores is None else path.cores,
        others=float(path.engine_cores + sum(hop.standing * each for hop, each in zip(hops, servers, strict=True))),
    )


def _room(hops: Hops, requests: int, step_ms: Floats, long: Ints, things: int, at_intervals: bool) -> Room:
    from tuner.simulate.front_shared_loops import GENERATIONS, THING, Room

    loops, engines = int(hops.loops.sum()), len(step_ms)

    def ints(shape: int | tuple[int, int], value: int) -> Ints:
        return np.full(shape, value, dtype=np.int64)

    return Room(
        head=ints(loops, NONE), tail=ints(loops, NONE), round_=ints(loops, NONE), rest_ms=np.zeros(loops),
        step_ms=step_ms, long=long, emits=np.zeros(engines), running=ints(engines, 0), ticking=ints(engines, 0),
        burst=ints(engines, NONE), opens=ints(engines, NONE), following=ints(requests, NONE),
        waits=ints((len(hops.base), requests) if at_intervals else (loops, GENERATIONS * engines), NONE),
        things=np.empty(things, dtype=THING).view(np.recarray), due_ms=np.empty(2 * requests + engines),
        due=ints(2 * requests + engines, 0),
    )  # fmt: skip
