"""One replica in time, compiled: price a batch, run it through the pipeline stages, hand out its tokens.

Up to ``depth`` batches are in flight; the engine composes the next one as soon as there is room, else it waits for the
oldest (vLLM's ``step_with_batch_queue``). While a single-stage replica only decodes and nothing can change its batch,
many steps are taken at once: step time is linear in the context between two points of the table, so their sum is exact.
"""

from __future__ import annotations

import math

import numpy as np

from tuner.simulate.compiled import compiled
from tuner.simulate.scheduler import anyone_waiting, blocks_of, give_back, receive, schedule
from tuner.simulate.state import GAP_BINS, GAP_FLOOR_MS, GAP_RATIO, NONE, ZERO, Limits, Records, State
from tuner.simulate.step_tables import (
    CONTEXT_BIN,
    DECODE_FIXED,
    DECODE_LAUNCH,
    EAGER_FIXED,
    EAGER_LAUNCH,
    FIXED,
    GRAPH_LAUNCH,
    LAUNCH,
    LAYERS,
    StepTable,
)

_PER_LOG = 1 / math.log(GAP_RATIO)


@compiled
def decode_attention_ms(table: StepTable, sequences: int, context: float) -> float:
    """One layer's attention for so many sequences of one mean context (tokens)."""
    point = table.context_point[int(context) // CONTEXT_BIN]
    low, high = table.decode_attention_ms[sequences, point], table.decode_attention_ms[sequences, point + 1]
    share = (context - table.context[point]) / (table.context[point + 1] - table.context[point])
    return float(low + (high - low) * share)


@compiled
def decode_stage_ms(table: StepTable, stage: int, sequences: int, context: float) -> float:
    """A decode step on one stage."""
    attention = decode_attention_ms(table, sequences, context) if sequences else 0.0
    gpu = table.decode_ms[stage, sequences] + table.stages[stage, LAYERS] * attention
    eager = sequences > table.graph_sequences
    launch = table.stages[stage, EAGER_LAUNCH if eager else DECODE_LAUNCH] + table.hidden_sequence_ms * sequences
    fixed = table.stages[stage, EAGER_FIXED if eager else DECODE_FIXED]
    return float(max(gpu, launch) + fixed + table.sequence_ms * sequences)


@compiled
def chunk_attention_ms(table: StepTable, new: int, context: float) -> tuple[float, float]:
    """(own, fixed) part of one layer's attention over a prefill chunk of ``new`` tokens after ``context`` others."""
    at, column = table.chunk_at[new], table.context_point[int(context) // CONTEXT_BIN]
    row = int(at)
    down = at - row
    right = (context - table.context[column]) / (table.context[column + 1] - table.context[column])
    upper, lower = table.chunk_ms[row], table.chunk_ms[row + 1]
    own = (1 - down) * (upper[column, 0] + (upper[column + 1, 0] - upper[column, 0]) * right)
    own += down * (lower[column, 0] + (lower[column + 1, 0] - lower[column, 0]) * right)
    fixed = (1 - down) * (upper[column, 1] + (upper[column + 1, 1] - upper[column, 1]) * right)
    fixed += down * (lower[column, 1] + (lower[column + 1, 1] - lower[column, 1]) * right)
    return own, fixed


@compiled
def mixed_stage_ms(
    table: StepTable, stage: int, decodes: int, context: float, chunks: int, chunk_tokens: int, chunk_ms: float
) -> float:
    """A step with prefill chunks on one stage, priced as one batch of tokens; ``chunk_ms`` is the chunks' attention in
    one layer."""
    tokens, stride = decodes + chunk_tokens, table.stride
    at = tokens // stride
    low, high = table.tokens_ms[stage, at], table.tokens_ms[stage, at + 1]
    attention = chunk_ms + (decode_attention_ms(table, decodes, context) if decodes else 0.0)
    gpu = low + (high - low) * (tokens - at * stride) / stride
    gpu += table.rows_ms[stage, decodes + chunks] + table.stages[stage, LAYERS] * attention
    host = table.stages[stage, FIXED] + table.sequence_ms * (decodes + chunks)
    launch = table.stages[stage, GRAPH_LAUNCH if tokens <= table.graph_tokens else LAUNCH]
    launch += table.hidden_sequence_ms * (decodes + chunks)
    return float(max(gpu, launch) + host)


@compiled
def advance(
    table: StepTable, limits: Limits, req: Records, state: State, r: int, until_ms: float, known_ms: float
) -> None:
    """Let a replica live through all that happens to it by ``until_ms``; arrivals are known up to ``known_ms``."""
    while True:
        dispatch(table, limits, req, state, r, known_ms)
        if not next_event_ms(req, state, r) <= until_ms:
            return
        step(limits, req, state, r)


@compiled
def next_event_ms(req: Records, state: State, r: int) -> float:
    """When the oldest batch ends, or, for an idle replica, the next request comes; NaN if never."""
    if state.replicas[r].batch_count:
        return float(state.batches[r, state.replicas[r].batch_first].end_ms)
    if state.replicas[r].inbox_first != NONE:
        return float(max(req[state.replicas[r].inbox_first].ready_ms, state.replicas[r].clock_ms))
    return math.nan


@compiled
def step(limits: Limits, req: Records, state: State, r: int) -> None:
    """Go to the next event: end the oldest batch, or wake up for an arrival."""
    if state.replicas[r].batch_count:
        complete(limits, req, state, r)
    else:
        state.replicas[r].clock_ms = max(req[state.replicas[r].inbox_first].ready_ms, state.replicas[r].clock_ms)
        state.replicas[r].view_ms = state.replicas[r].clock_ms


@compiled
def dispatch(table: StepTable, limits: Limits, req: Records, state: State, r: int, known_ms: float) -> None:
    """Compose and start batches while there is room for them."""
    now, held = state.replicas[r].clock_ms, False
    while state.replicas[r].batch_count < limits.depth:
        view = state.replicas[r].view_ms if limits.asynchronous else now
        receive(req, state, r, view)
        size = schedule(limits, req, state, r)
        held = state.replicas[r].done_count > 0
        if held:
            _leave(req, state, r)
        if size:
            _start(table, limits, req, state, r, known_ms, held)
            if state.batches[r, state.replicas[r].batch_first].end_ms <= now:
                return
        elif held or view < now or state.replicas[r].preempting:
            state.replicas[
                r
            ].view_ms = now  # looked a step ago, or the least urgent, first in line, gave way: look again
        else:
            return


@compiled
def _start(table: StepTable, limits: Limits, req: Records, state: State, r: int, known_ms: float, held: bool) -> None:
    """Price the composed batch and send it through the stages."""
    place = (state.replicas[r].batch_first + state.replicas[r].batch_count) % limits.depth
    size, now = state.batches[r, place].size, state.replicas[r].clock_ms
    decodes, chunks, tokens, total, own, fixed = ZERO, ZERO, ZERO, 0.0, 0.0, 0.0
    for entry in range(size):
        q, new = state.batch_request[r, place, entry], state.batch_tokens[r, place, entry]
        q = q if q >= 0 else ~q
        past = req[q].computed - new
        if new == 1 and past > 0:
            decodes += 1
            total += req[q].computed
        else:
            part, floor = chunk_attention_ms(table, new, past)
            chunks, tokens, own, fixed = chunks + 1, tokens + new, own + part, max(fixed, floor)
    mean = total / max(decodes, 1)
    end, begin = now, now
    state.batches[r, place].decode_ms = state.batches[r, place].prefill_ms = 0.0
    for stage in range(limits.depth):
        decode_ms = decode_stage_ms(table, stage, decodes, mean) if decodes else 0.0
        ms = mixed_stage_ms(table, stage, decodes, mean, chunks, tokens, own + fixed) if chunks else decode_ms
        begin = max(end, state.stage_free_ms[r, stage])
        end = begin + ms
        state.stage_free_ms[r, stage] = end
        state.batches[r, place].decode_ms += min(decode_ms, ms) / limits.depth
        state.batches[r, place].prefill_ms += max(ms - decode_ms, 0.0) / limits.depth
    state.replicas[r].busy_decode_ms += state.batches[r, place].decode_ms
    state.replicas[r].busy_prefill_ms += state.batches[r, place].prefill_ms
    state.batches[r, place].steps = 1
    state.batches[r, place].first_end_ms = end
    state.batches[r, place].last_start_ms = begin
    state.batches[r, place].end_ms = end
    state.replicas[r].batch_count += 1
    state.replicas[r].steps += 1
    state.replicas[r].peak_blocks = max(state.replicas[r].peak_blocks, limits.blocks - state.replicas[r].free)
    if limits.skip and limits.depth == 1 and chunks == 0 and size == state.replicas[r].running_count:
        _extend(table, limits, req, state, r, mean, known_ms, held)


@compiled
def _extend(
    table: StepTable, limits: Limits, req: Records, state: State, r: int, mean: float, known_ms: float, held: bool
) -> None:
    """Repeat a decode step for as long as nothing can change its batch: no end, no arrival, no lack of blocks."""
    size, waiting = state.batches[r, 0].size, anyone_waiting(state, r)
    if waiting and (held or state.replicas[r].preempting or state.waiting.shape[1] > 1):
        return  # the next step may admit what this one could not
    free = state.replicas[r].free - state.replicas[r].idle_prefix
    most = limits.block_tokens * (free // (size * limits.block_taken))
    for entry in range(size):
        q = state.batch_request[r, 0, entry]
        group = req[q].group
        if group != NONE and not req[q].holds_prefix and not state.prefixes[r, group].resident:
            return  # its copy of a prefix that this step evicted becomes the shared one in the next
        most = min(most, req[q].output - req[q].generated - 1)
    until = np.inf  # a queue whose head cannot enter holds back all who come later
    if not waiting:
        until = min(
            known_ms, req[state.replicas[r].inbox_first].ready_ms if state.replicas[r].inbox_first != NONE else np.inf
        )
    state.late_gaps[r, :] = 0
    steps, end, start = _repeat(table, limits, state, r, size, mean, most, until)
    if steps == 0:
        return
    before = state.replicas[r].free
    for entry in range(size):
        q = state.batch_request[r, 0, entry]
        req[q].computed += steps
        wanted = blocks_of(limits, req[q].computed) - req[q].blocks
        req[q].blocks += wanted
        state.replicas[r].free -= wanted
    duration = end - state.batches[r, 0].end_ms
    state.replicas[r].peak_blocks = max(state.replicas[r].peak_blocks, limits.blocks - state.replicas[r].free)
    state.replicas[r].used_block_ms -= (
        (before - state.replicas[r].free) / 2 * duration
    )  # it grew evenly up to what is counted at the end
    state.replicas[r].busy_decode_ms += duration
    state.stage_free_ms[r, 0] = end
    state.batches[r, 0].steps += steps
    state.batches[r, 0].last_start_ms = start
    state.batches[r, 0].end_ms = end
    state.replicas[r].steps += steps


@compiled
def _repeat(
    table: StepTable, limits: Limits, state: State, r: int, size: int, mean: float, most: int, until: float
) -> tuple[int, float, float]:
    """(further steps, end of the last, its start): up to ``most``, and none that is composed after ``until``.

    A step is composed when the one before it ends; with asynchronous scheduling, when that one starts.
    """
    steps, end, start = ZERO, state.batches[r, 0].end_ms, state.batches[r, 0].last_start_ms
    while steps < most and (start if limits.asynchronous else end) < until:
        context = mean + steps + 1
        point = table.context_point[int(context) // CONTEXT_BIN]
        first = decode_stage_ms(table, ZERO, size, context)
        room = int(table.context[point + 1] - context) + 1  # steps in this part of the table
        segment = max(1, min(room, most - steps))
        slope = 0.0
        if segment > 1:
            slope = (decode_stage_ms(table, ZERO, size, context + segment - 1) - first) / (segment - 1)
        if until <= end:
            segment = 1
        elif until < np.inf:
            segment = min(segment, _steps_until(first, slope, until - end, segment) + limits.asynchronous)
        _record_segment(limits, state, r, size, first, slope, segment)
        sum_ms = segment * first + slope * segment * (segment - 1) / 2
        last = first + slope * (segment - 1)
        end += sum_ms
        start = end - last
        steps += segment
    return steps, end, start


@compiled
def _steps_until(first: float, slope: float, duration: float, most: int) -> int:
    """The fewest steps, at least one, that last ``duration`` or more, if ``most`` do."""
    steps = 1
    if duration > first:
        steps = int(duration / (first + slope * most)) - 1 if slope > 0 else int(duration / first) - 1
        steps = max(1, steps)
        while steps < most and steps * first + slope * steps * (steps - 1) / 2 < duration:
            steps += 1
    return steps


@compiled
def _record_segment(limits: Limits, state: State, r: int, size: int, first: float, slope: float, steps: int) -> None:
    """Count the inter-token gaps of ``steps`` steps whose length changes linearly, ``size`` of them in each."""
    last = first + slope * (steps - 1)
    low, high = gap_bin(min(first, last)), gap_bin(max(first, last))
    bins, count = high - low + 1, size * steps
    for offset in range(bins):
        state.gap_counts[low + offset] += count * (offset + 1) // bins - count * offset // bins
    state.replicas[r].gap_sum_ms += size * (steps * first + slope * steps * (steps - 1) / 2)
    for index in range(len(state.gap_limits_ms)):
        limit = state.gap_limits_ms[index]
        if slope == 0.0 or min(first, last) > limit or max(first, last) <= limit:
            state.late_gaps[r, index] += steps if last > limit else 0
        elif slope > 0:
            state.late_gaps[r, index] += steps - 1 - int((limit - first) / slope)
        else:
            state.late_gaps[r, index] += math.ceil((limit - first) / slope)


@compiled
def gap_bin(gap_ms: float) -> int:
    """Bin of the histogram of inter-token gaps."""
    if gap_ms <= GAP_FLOOR_MS:
        return 0
    return min(int(math.log(gap_ms / GAP_FLOOR_MS) * _PER_LOG), GAP_BINS - 1)


@compiled
def complete(limits: Limits, req: Records, state: State, r: int) -> None:
    """End the oldest batch: its requests get their tokens, those that are finished leave (or are held one step)."""
    place = state.replicas[r].batch_first
    end, steps = state.batches[r, place].end_ms, state.batches[r, place].steps
    first_end = state.batches[r, place].first_end_ms
    known_gap, known_bin = -1.0, 0
    for entry in range(state.batches[r, place].size):
        q = state.batch_request[r, place, entry]
        req[q if q >= 0 else ~q].in_flight -= 1
        if q < 0:
            continue
        if req[q].generated == 0:
            req[q].first_ms = first_end
        else:
            gap = first_end - req[q].last_ms
            if gap != known_gap:
                known_gap, known_bin = gap, gap_bin(gap)
            state.gap_counts[known_bin] += 1
            state.replicas[r].gap_sum_ms += gap
            for index in range(len(state.gap_limits_ms)):
                state.slow_gaps[q, index] += 1 if gap > state.gap_limits_ms[index] else 0
        if steps > 1:
            for index in range(len(state.gap_limits_ms)):
                state.slow_gaps[q, index] += state.late_gaps[r, index]
        req[q].generated += steps
        req[q].last_ms = end
        if req[q].generated >= req[q].output:
            req[q].end_ms = end
            state.replicas[r].done_count += 1
            state.replicas[r].ongoing -= 1
            state.replicas[r].finished += 1
    state.replicas[r].used_block_ms += (limits.blocks - state.replicas[r].free) * (end - state.replicas[r].clock_ms)
    state.replicas[r].clock_ms = end
    state.replicas[r].view_ms = state.batches[r, place].last_start_ms
    state.replicas[r].batch_first = (place + 1) % limits.depth
    state.replicas[r].batch_count -= 1
    if state.replicas[r].done_count and not limits.asynchronous:
        _leave(req, state, r)


@compiled
def _leave(req: Records, state: State, r: int) -> None:
    """Finished requests give back their blocks and places."""
    kept = 0
    for index in range(state.replicas[r].running_count):
        q = state.running[r, index]
        if req[q].generated >= req[q].output:
            give_back(req, state, r, q)
        else:
            state.running[r, kept] = q
            kept += 1
    state.replicas[r].running_count = kept
    state.replicas[r].done_count = 0
