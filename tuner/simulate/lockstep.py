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
from tuner.simulate.steps import StepTable


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
    """Compose a step on every replica, unless one is under way; it ends for all when the slowest is done."""
    end = -np.inf
    for r in range(len(state.replicas)):
        if state.replicas[r].batch_count:
            return
    for r in range(len(state.replicas)):
        dispatch(table, limits, req, state, r, known_ms)
        if state.replicas[r].batch_count:
            end = max(end, state.batches[r, 0].end_ms)
    for r in range(len(state.replicas)):
        if state.replicas[r].batch_count:
            state.batches[r, 0].first_end_ms = end
            state.batches[r, 0].end_ms = end
            state.stage_free_ms[r, 0] = end
