"""vLLM V1's scheduler, compiled: which requests the next step of a replica computes, and with how many tokens each.

Follows ``vllm/v1/core/sched/scheduler.py`` and ``kv_cache_manager.py`` of vLLM 0.29: running requests first, in the
order of their admission, then waiting ones while nothing was preempted; a prompt is cut to what is left of the step's
tokens; a waiting request is admitted when the blocks of its whole prompt are free; where a running request finds no
block, the last one (by priority: the least urgent) loses all of its own and is computed again later. Blocks are
counted, not known by content: a preempted request finds nothing of itself in the prefix cache when it comes back.
"""

from __future__ import annotations

import numpy as np

from tuner.simulate.compiled import compiled
from tuner.simulate.state import NONE, ZERO, Limits, Records, State


@compiled
def schedule(limits: Limits, req: Records, state: State, r: int) -> int:
    """Compose the next batch of replica ``r`` in its next free place of the ring; the number of requests in it."""
    place = (state.replicas[r].batch_first + state.replicas[r].batch_count) % limits.depth
    size, budget, preempted = _continue_running(limits, req, state, r, place)
    state.replicas[r].preempting = preempted
    if not preempted:
        size = _admit_waiting(limits, req, state, r, place, size, budget)
    state.batches[r, place].size = size
    return size


@compiled
def _continue_running(limits: Limits, req: Records, state: State, r: int, place: int) -> tuple[int, int, bool]:
    budget, size, index, preempted = limits.max_batched_tokens, ZERO, ZERO, False
    while index < state.replicas[r].running_count and budget > 0:
        q = state.running[r, index]
        need = req[q].prompt + req[q].generated - req[q].computed
        if need <= 0 or req[q].generated >= req[q].output:  # its last token is still in flight
            index += 1
            continue
        new = _chunk(limits, need, budget)
        wanted = blocks_of(limits, req[q].computed + new) - req[q].blocks
        while wanted > state.replicas[r].free:
            preempted = True
            at = _victim(req, state, r)
            victim = state.running[r, at]
            size, returned = _unschedule(state, r, place, size, victim)
            if returned:
                req[victim].in_flight -= 1
            budget += returned
            _preempt(req, state, r, at)
            if victim == q:
                return size, budget, preempted
            if at < index:
                index -= 1
        take_blocks(state, r, wanted)
        req[q].blocks += wanted
        size = _add(limits, req, state, r, place, size, q, new)
        budget -= new
        index += 1
    return size, budget, preempted


@compiled
def _admit_waiting(limits: Limits, req: Records, state: State, r: int, place: int, size: int, budget: int) -> int:
    ranks = state.waiting.shape[1]
    rank = ZERO
    while rank < ranks and budget > 0 and state.replicas[r].running_count < limits.max_seqs:
        q = state.waiting[r, rank, 0]
        if q == NONE:
            rank += 1
            continue
        if req[q].generated >= req[q].output:  # it was preempted with its last token in flight
            _pop(req, state, r, rank)
            continue
        if req[q].in_flight > 0:
            break
        group, hit, shared = req[q].group, req[q].cached, 0
        if group != NONE and state.prefixes[r, group].resident:
            shared = state.prefixes[r, group].blocks
            hit = max(hit, shared * limits.block_tokens)
        if req[q].preemptions == 0:
            hit = max(hit, req[q].received)
        known = req[q].prompt + req[q].generated
        free_now = state.replicas[r].free + (shared if shared and state.prefixes[r, group].users else 0)
        new = _chunk(limits, known - hit, budget)
        if blocks_of(limits, known) > free_now or (not limits.chunked and new < known - hit):
            break
        _pop(req, state, r, rank)
        if shared:
            _share_prefix(req, state, r, q, group, shared)
        wanted = blocks_of(limits, hit + new) - req[q].blocks
        take_blocks(state, r, wanted)
        req[q].blocks += wanted
        req[q].computed = hit
        state.running[r, state.replicas[r].running_count] = q
        state.replicas[r].running_count += 1
        if req[q].preemptions == 0:
            req[q].scheduled_ms = state.replicas[r].clock_ms
        size = _add(limits, req, state, r, place, size, q, new)
        budget -= new
    return size


@compiled
def blocks_of(limits: Limits, tokens: int) -> int:
    """KV blocks that hold so many tokens of a sequence."""
    found = limits.grows * ((tokens + limits.block_tokens - 1) // limits.block_tokens) + limits.state_blocks
    for index in range(limits.windows.shape[0]):
        kept = min(float(tokens), limits.windows[index, 1])
        found += int(np.ceil(limits.windows[index, 0] * kept / limits.block_tokens))
    return found


@compiled
def _chunk(limits: Limits, need: int, budget: int) -> int:
    if 0 < limits.long_prefill_tokens < need:
        need = limits.long_prefill_tokens
    return min(need, budget)


@compiled
def _add(limits: Limits, req: Records, state: State, r: int, place: int, size: int, q: int, new: int) -> int:
    """Put a request's new tokens into the batch; one that ends at its last known token will yield another (others are
    entered as their complement)."""
    req[q].computed += new
    req[q].in_flight += 1
    yields = req[q].computed == req[q].prompt + req[q].generated
    state.batch_request[r, place, size] = q if yields else ~q
    state.batch_tokens[r, place, size] = new
    group = req[q].group
    if group != NONE and not req[q].holds_prefix and not state.prefixes[r, group].resident:
        blocks = state.prefixes[r, group].blocks
        if blocks and req[q].computed >= blocks * limits.block_tokens:  # the first to compute a prefix shares it
            state.prefixes[r, group].resident = 1
            state.prefixes[r, group].users = 1
            req[q].holds_prefix = 1
    return size + 1


@compiled
def _share_prefix(req: Records, state: State, r: int, q: int, group: int, shared: int) -> None:
    if state.prefixes[r, group].users == 0:
        state.replicas[r].idle_prefix -= shared
        state.replicas[r].free -= shared
    state.prefixes[r, group].users += 1
    req[q].holds_prefix = 1
    req[q].blocks = shared


@compiled
def take_blocks(state: State, r: int, wanted: int) -> None:
    """Allocate free blocks; prefixes that nobody uses are forgotten, longest unused first, when the others run out."""
    state.replicas[r].free -= wanted
    while state.replicas[r].free < state.replicas[r].idle_prefix:
        oldest = NONE
        for group in range(state.prefixes.shape[1]):
            idle = state.prefixes[r, group].resident and state.prefixes[r, group].users == 0
            if idle and (oldest == NONE or state.prefixes[r, group].used_ms < state.prefixes[r, oldest].used_ms):
                oldest = group
        state.prefixes[r, oldest].resident = 0
        state.replicas[r].idle_prefix -= state.prefixes[r, oldest].blocks


@compiled
def give_back(req: Records, state: State, r: int, q: int) -> None:
    """Free the blocks of a request; a shared prefix stays cached when its last user leaves."""
    blocks = req[q].blocks
    if req[q].holds_prefix:
        group = req[q].group
        shared = state.prefixes[r, group].blocks
        blocks -= shared
        state.prefixes[r, group].users -= 1
        if state.prefixes[r, group].users == 0:
            state.replicas[r].idle_prefix += shared
            state.replicas[r].free += shared
            state.prefixes[r, group].used_ms = state.replicas[r].clock_ms
        req[q].holds_prefix = 0
    state.replicas[r].free += blocks
    req[q].blocks = 0


@compiled
def _victim(req: Records, state: State, r: int) -> int:
    """Place in the running list of the least urgent request: the last where all are of one class."""
    last = state.replicas[r].running_count - 1
    if state.waiting.shape[1] == 1:
        return int(last)
    worst = 0
    for index in range(1, last + 1):
        q, w = state.running[r, index], state.running[r, worst]
        if req[q].rank > req[w].rank or (req[q].rank == req[w].rank and req[q].ready_ms >= req[w].ready_ms):
            worst = index
    return worst


@compiled
def _unschedule(state: State, r: int, place: int, size: int, victim: int) -> tuple[int, int]:
    """Take a request out of the batch in the making; the new size and the tokens that it had in it."""
    for entry in range(size):
        q = state.batch_request[r, place, entry]
        if victim == q or victim == ~q:
            tokens = state.batch_tokens[r, place, entry]
            for later in range(entry, size - 1):
                state.batch_request[r, place, later] = state.batch_request[r, place, later + 1]
                state.batch_tokens[r, place, later] = state.batch_tokens[r, place, later + 1]
            return size - 1, tokens
    return size, 0


@compiled
def _preempt(req: Records, state: State, r: int, at: int) -> None:
    q = state.running[r, at]
    for index in range(at, state.replicas[r].running_count - 1):
        state.running[r, index] = state.running[r, index + 1]
    state.replicas[r].running_count -= 1
    give_back(req, state, r, q)
    req[q].computed = 0
    req[q].preemptions += 1
    rank = req[q].rank
    req[q].link = state.waiting[r, rank, 0]
    state.waiting[r, rank, 0] = q
    if state.waiting[r, rank, 1] == NONE:
        state.waiting[r, rank, 1] = q


@compiled
def _pop(req: Records, state: State, r: int, rank: int) -> None:
    q = state.waiting[r, rank, 0]
    state.waiting[r, rank, 0] = req[q].link
    if req[q].link == NONE:
        state.waiting[r, rank, 1] = NONE
    req[q].link = NONE


@compiled
def receive(req: Records, state: State, r: int, until_ms: float) -> None:
    """Move what reached the replica by ``until_ms`` into the waiting queue of its class."""
    q = state.replicas[r].inbox_first
    while q != NONE and req[q].ready_ms <= until_ms:
        following, rank = req[q].link, req[q].rank
        req[q].link = NONE
        if state.waiting[r, rank, 1] == NONE:
            state.waiting[r, rank, 0] = q
        else:
            req[state.waiting[r, rank, 1]].link = q
        state.waiting[r, rank, 1] = q
        q = following
    state.replicas[r].inbox_first = q
    if q == NONE:
        state.replicas[r].inbox_last = NONE


@compiled
def send(req: Records, state: State, r: int, q: int) -> None:
    """Hand a request to a replica; requests come in the order of ``ready_ms``."""
    req[q].replica = r
    state.replicas[r].ongoing += 1
    if state.replicas[r].inbox_last == NONE:
        state.replicas[r].inbox_first = q
    else:
        req[state.replicas[r].inbox_last].link = q
    state.replicas[r].inbox_last = q


@compiled
def anyone_waiting(state: State, r: int) -> bool:
    """True when a waiting queue of the replica holds a request."""
    found = False
    for rank in range(state.waiting.shape[1]):
        found |= state.waiting[r, rank, 0] != NONE
    return found
