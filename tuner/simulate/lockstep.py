"""Replicas that share experts, compiled: every layer exchanges tokens between all of them, so they step together.

As vLLM's ``DPEngineCoreProc`` runs data-parallel ranks of a mixture-of-experts model: each rank composes its own batch,
ranks without one run a dummy, and all wait for the slowest (``vllm/v1/worker/dp_utils.py`` pads their batches to the
largest). A request that comes to an idle rank waits for the step that the others are in. Time spent waiting for others
is not counted as busy. Steps are taken one by one.
"""

from __future__ import annotations

import math

import numpy as np

from tuner.simulate.compiled import compiled
from tuner.simulate.replica import complete, dispatch
from tuner.simulate.state import NONE, ZERO, Limits, Records, State
from tuner.simulate.step_tables import StepTable


@compiled
def advance_together(
    table: StepTable, limits: Limits, req: Records, state: State, until_ms: float, known_ms: float
) -> None:
    """Let all replicas live through what happens to them by ``until_ms``; arrivals are known up to ``known_ms``."""
    while True:
        _begin(table, limits, req, state, known_ms)
        if not next_event_together_ms(req, state) <= until_ms:
            return
        step_together(limits, req, state)


@compiled
def next_event_together_ms(req: Records, state: State) -> float:
    """When the present step ends, or, if all are idle, the next request comes; NaN if never."""
    event = math.nan
    for r in range(len(state.replicas)):
        if state.replicas[r].batch_count:
            return float(state.batches[r, 0].end_ms)
        if state.replicas[r].inbox_first != NONE:
            at = max(req[state.replicas[r].inbox_first].ready_ms, state.replicas[r].clock_ms)
            event = at if math.isnan(event) else min(event, at)
    return event


@compiled
def step_together(limits: Limits, req: Records, state: State) -> None:
    """Go to the next event: end the step of all, or wake all up for an arrival."""
    event = next_event_together_ms(req, state)
    for r in range(len(state.replicas)):
        if state.replicas[r].batch_count:
            complete(limits, req, state, r)
        else:
            state.replicas[r].clock_ms = event
            state.replicas[r].view_ms = event


@compiled
def finished_together(state: State) -> int:
    """Requests that have ended on any replica."""
    finished = ZERO
    for r in range(len(state.replicas)):
        finished += state.replicas[r].finished
    return finished


@compiled
def _begin(table: StepTable, limits: Limits, req: Records, state: State, known_ms: float) -> None:
    """Compose a step on every replica, unless one is under way; it ends for all when the slowest is done.

    A batch is priced as if all replicas had one like it; the experts serve the tokens that all of them really bring.
    """
    for r in range(len(state.replicas)):
        if state.replicas[r].batch_count:
            return
    replicas = len(state.replicas)
    tokens, end = ZERO, -np.inf
    for r in range(replicas):
        dispatch(table, limits, req, state, r, known_ms)
        tokens += _tokens(state, r)
    of_all_ms = _shared_ms(table, tokens / replicas)
    for r in range(replicas):
        if state.replicas[r].batch_count:
            now = state.replicas[r].clock_ms
            priced_ms = state.batches[r, 0].end_ms - now
            took_ms = priced_ms - _shared_ms(table, float(_tokens(state, r))) + of_all_ms
            more = took_ms / priced_ms - 1
            state.replicas[r].busy_decode_ms += more * state.batches[r, 0].decode_ms
            state.replicas[r].busy_prefill_ms += more * state.batches[r, 0].prefill_ms
            end = max(end, now + took_ms)
    for r in range(replicas):
        if state.replicas[r].batch_count:
            state.batches[r, 0].first_end_ms = end
            state.batches[r, 0].end_ms = end
            state.stage_free_ms[r, 0] = end


@compiled
def _tokens(state: State, r: int) -> int:
    """New tokens of a replica's batch."""
    tokens = ZERO
    if state.replicas[r].batch_count:
        for entry in range(state.batches[r, 0].size):
            tokens += state.batch_tokens[r, 0, entry]
    return tokens


@compiled
def _shared_ms(table: StepTable, tokens: float) -> float:
    """What the experts take in a step where each replica has so many tokens for them."""
    at = int(tokens) // table.stride
    low, high = table.shared_ms[0, at], table.shared_ms[0, at + 1]
    return float(low + (high - low) * (tokens - at * table.stride) / table.stride)
