"""What a simulation reads and writes: arrays of records, in named tuples: compiled code takes both as they are."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Records = Any  # an np.recarray: numpy's stubs cannot tell the types of its fields

GAP_BINS = 4096  # of the histogram of inter-token latencies
GAP_FLOOR_MS = 1e-3
GAP_RATIO = 1.006  # from one bin to the next: quantiles are right to 0.3 %; the last bin is beyond 10^7 ms
NONE = -1
# A first value in compiled code: a literal would have all callees compiled for it, too.
ZERO = cast(int, np.int64(0))

# One request. Given: when it was sent and reaches an engine, its lengths, tokens found in the prefix cache or received
# from another engine (lost when preempted), group of a shared prefix and class of urgency (0 first). ``link`` chains
# queues. The rest is its state and its record.
REQUEST = np.dtype(
    [
        *((name, np.float64) for name in ("sent_ms", "ready_ms", "scheduled_ms", "first_ms", "last_ms", "end_ms")),
        *(
            (name, np.int64)
            for name in ("prompt", "output", "cached", "group", "rank", "link", "computed", "generated")
        ),
        *((name, np.int64) for name in ("blocks", "in_flight", "holds_prefix", "preemptions", "replica", "received")),
    ],
    align=True,
)
# One replica. ``view_ms`` is the moment whose arrivals and free places the next schedule may know: with asynchronous
# scheduling a step is composed while the one before it starts. ``busy_*_ms`` and ``used_block_ms`` add up over time.
REPLICA = np.dtype(
    [
        *((name, np.float64) for name in ("clock_ms", "view_ms", "busy_prefill_ms", "busy_decode_ms", "used_block_ms")),
        *((name, np.float64) for name in ("gap_sum_ms",)),
        *((name, np.int64) for name in ("free", "idle_prefix", "running_count", "done_count", "preempting", "ongoing")),
        *((name, np.int64) for name in ("inbox_first", "inbox_last", "batch_first", "batch_count", "peak_blocks")),
        *((name, np.int64) for name in ("steps", "finished")),
    ],
    align=True,
)
# One batch in flight: ``steps`` repetitions of one step; what its prompts and its other tokens count as in one.
BATCH = np.dtype(
    [
        *((name, np.float64) for name in ("first_end_ms", "last_start_ms", "end_ms", "prefill_ms", "decode_ms")),
        *((name, np.int64) for name in ("size", "steps")),
    ],
    align=True,
)
# One shared prefix in one replica's cache.
PREFIX = np.dtype(
    [("used_ms", np.float64), *((name, np.int64) for name in ("blocks", "users", "resident"))], align=True
)


class Limits(NamedTuple):
    """Scheduler limits of one replica, whose KV cache has ``blocks``; flags are 0 or 1. A sequence takes a block for
    every ``block_tokens`` where something ``grows``, in each window [share of a block, tokens] of ``windows`` so many
    up to its length, and ``state_blocks`` once; at most ``block_taken`` more for every ``block_tokens``. ``depth``
    is the most batches in flight (pipeline stages); ``together``: replicas step together."""

    max_batched_tokens: int
    max_seqs: int
    long_prefill_tokens: int
    blocks: int
    block_tokens: int
    grows: int
    windows: Floats
    state_blocks: int
    block_taken: int
    depth: int
    asynchronous: int
    chunked: int
    skip: int
    together: int


class State(NamedTuple):
    """Replicas, first index everywhere but in ``slow_gaps`` [request, limit] and ``gap_counts`` [bin].

    Batches in flight are a ring: ``batches`` [replica, place], their requests and tokens [replica, place, entry].
    ``waiting`` [replica, class, first or last]; ``late_gaps`` [replica, limit] counts those of repeated steps.
    """

    replicas: Records
    running: Ints
    batches: Records
    batch_request: Ints
    batch_tokens: Ints
    waiting: Ints
    stage_free_ms: Floats
    prefixes: Records
    gap_limits_ms: Floats
    slow_gaps: Ints
    late_gaps: Ints
    gap_counts: Ints


def records(kind: np.dtype[Any], *shape: int) -> Records:
    """Records of zeros; fields are attributes."""
    return np.zeros(shape, dtype=kind).view(np.recarray)


def new_requests(**given: Floats | Ints) -> Records:
    """Requests that nobody has seen yet; times that have not come are NaN."""
    req = records(REQUEST, len(given["prompt"]))
    for name in ("scheduled_ms", "first_ms", "last_ms", "end_ms"):
        req[name] = np.nan
    for name in ("link", "replica"):
        req[name] = NONE
    for name, values in given.items():
        req[name] = values
    return req


def new_state(
    replicas: int, limits: Limits, ranks: int, prefix_blocks: Ints, gap_limits_ms: Floats, requests: int
) -> State:
    """Idle replicas with empty caches."""
    state = State(
        replicas=records(REPLICA, replicas),
        running=np.zeros((replicas, limits.max_seqs), dtype=np.int64),
        batches=records(BATCH, replicas, limits.depth),
        batch_request=np.zeros((replicas, limits.depth, limits.max_seqs), dtype=np.int64),
        batch_tokens=np.zeros((replicas, limits.depth, limits.max_seqs), dtype=np.int64),
        waiting=np.full((replicas, ranks, 2), NONE, dtype=np.int64),
        stage_free_ms=np.zeros((replicas, limits.depth)),
        prefixes=records(PREFIX, replicas, len(prefix_blocks)),
        gap_limits_ms=gap_limits_ms,
        slow_gaps=np.zeros((requests, len(gap_limits_ms)), dtype=np.int64),
        late_gaps=np.zeros((replicas, len(gap_limits_ms)), dtype=np.int64),
        gap_counts=np.zeros(GAP_BINS, dtype=np.int64),
    )
    state.replicas["free"] = limits.blocks
    state.replicas["inbox_first"] = state.replicas["inbox_last"] = NONE
    state.prefixes["blocks"] = prefix_blocks
    return state
