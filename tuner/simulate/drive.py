"""All replicas together, compiled: requests come, a router picks a replica for each, and the replicas live on.

Open loads drive each replica no further than the router must know. In a closed loop the end of one request sends the
next, so replicas go event by event, in the order of time, and none looks beyond the next event of the others. Replicas
that share experts step together.
"""

from __future__ import annotations

import math

import numpy as np

from tuner.simulate.compiled import compiled
from tuner.simulate.lockstep import advance_together, finished_together, next_event_together_ms, step_together
from tuner.simulate.replica import advance, next_event_ms, step
from tuner.simulate.scheduler import send
from tuner.simulate.state import NONE, ZERO, Floats, Ints, Limits, Records, State
from tuner.simulate.step_tables import StepTable

ROUND_ROBIN, POWER_OF_TWO, LEAST_LOADED, PREFIX_AWARE = range(4)
_AFFINITY_LIMIT = 10  # requests by which the fullest replica may lead before prefix affinity gives way to balance


@compiled
def run(
    table: StepTable,
    limits: Limits,
    req: Records,
    state: State,
    router: int,
    draws: Ints,
    homes: Ints,
    users: int,
    delays_ms: Floats,
) -> None:
    """Serve all requests. ``draws`` [request, 2] are replicas drawn at random, ``homes`` [group] the replica that holds
    a prefix (-1: none yet). With 0 ``users`` requests come at their ``ready_ms``, in ascending order.

    Else so many are sent at 0, each later one when some request ends; ``delays_ms`` holds the pause before it, the
    front end's time per request (one after the other), the time to the engine (side by side) and the front end's time
    per token of a prompt.
    """
    replicas, count, others, now, front_end = len(state.replicas), len(req), np.inf, 0.0, 0.0
    sent, first = ZERO, ZERO
    due = min(users, count)
    while users:
        while sent < due:
            front_end = max(front_end, now) + delays_ms[1] + delays_ms[3] * req[sent].prompt
            req[sent].sent_ms, req[sent].ready_ms = now, front_end + delays_ms[2]
            send(req, state, _route(req, state, router, sent, draws, homes), sent)
            others = min(others, req[sent].ready_ms)
            sent += 1
        if limits.together:
            advance_together(table, limits, req, state, -np.inf, np.inf)
            if math.isnan(next_event_together_ms(req, state)):
                return
            ended = finished_together(state)
            step_together(limits, req, state)
            due = min(due + finished_together(state) - ended, count)
            now = state.replicas[0].clock_ms + delays_ms[0]
            continue
        advance(table, limits, req, state, first, -np.inf, others)
        first, others = _next_two(req, state)
        if first == NONE:
            return
        ended = state.replicas[first].finished
        step(limits, req, state, first)
        now = state.replicas[first].clock_ms + delays_ms[0]
        due = min(due + state.replicas[first].finished - ended, count)
    blind = replicas == 1 or router == ROUND_ROBIN
    for q in range(count + 1):
        until = req[q].ready_ms if q < count else np.inf
        if limits.together and (q == count or not blind):
            advance_together(table, limits, req, state, until, until)
        for r in range(0 if limits.together else replicas):
            drawn = router != POWER_OF_TWO or q == count or r == draws[q, 0] or r == draws[q, 1]
            if drawn and (q == count or not blind):
                advance(table, limits, req, state, r, until, until)
        if q < count:
            send(req, state, _route(req, state, router, q, draws, homes), q)


@compiled
def _next_two(req: Records, state: State) -> tuple[int, float]:
    """The replica whose event comes first, and when the next of any other comes."""
    first, at, others = NONE, np.inf, np.inf
    for r in range(len(state.replicas)):
        event = next_event_ms(req, state, r)
        if event < at:
            first, at, others = r, event, at
        else:
            others = min(others, event)
    return first, others


@compiled
def _route(req: Records, state: State, router: int, q: int, draws: Ints, homes: Ints) -> int:
    """The replica for a request, by what each has in hand now. Power of two choices: the shorter of two queues drawn at
    random (Mitzenmacher 2001), Ray Serve's default."""
    replicas = len(state.replicas)
    if router == ROUND_ROBIN or replicas == 1:
        return q % replicas
    if router == LEAST_LOADED:
        return _least_loaded(state)
    group = req[q].group
    if router == PREFIX_AWARE and group != NONE:
        least, most = _least_loaded(state), 0
        for r in range(replicas):
            most = max(most, state.replicas[r].ongoing)
        if most - state.replicas[least].ongoing <= _AFFINITY_LIMIT:
            if homes[group] == NONE:
                homes[group] = least
            return int(homes[group])
    a, b = draws[q, 0], draws[q, 1]
    return int(a if state.replicas[a].ongoing <= state.replicas[b].ongoing else b)


@compiled
def _least_loaded(state: State) -> int:
    least = 0
    for r in range(1, len(state.replicas)):
        if state.replicas[r].ongoing < state.replicas[least].ongoing:
            least = r
    return least
