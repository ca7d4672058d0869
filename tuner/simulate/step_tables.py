"""Step times of one layout as small tables, taken from the analytical core and cheap enough to look up per step.

A step of one stage costs, in ms (``StepCosts`` is the source of every number):

    max(gpu, launch + hidden per sequence) + step + per sequence, where gpu =
    decode only    decode[sequences] + layers x attention(sequences, mean context)
    otherwise      tokens[all new tokens] + rows[sequences] + layers x attention of decodes and of chunks

Attention of several prefill chunks is one kernel: each chunk adds its own work, the kernel's fixed part counts once
(that of the dearest chunk).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuner.ask.layout import ParallelLayout
from tuner.cost.latency import StepCosts, StepShape, Terms, total
from tuner.cost.stages import Stage, launched_layers, moe_layers_of, stage_blocks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Columns of ``StepTable.stages``.
LAYERS, FIXED, LAUNCH, DECODE_FIXED, DECODE_LAUNCH, GRAPH_LAUNCH, EAGER_FIXED, EAGER_LAUNCH = range(8)
CONTEXT_BIN = 64  # tokens; the context grid lies on its multiples
_EVEN_STEPS = 16  # context grid: steps of 128 tokens at first, geometric after that
_CONTEXT_RATIO = 1.06
_TOKEN_RATIO = 1.08  # chunk sizes and batches at which attention is priced
_FINEST_TOKENS = 8192  # token counts priced one by one; larger limits are priced at this many points
_CHUNKS = 5  # sequences of the second price of a chunk, from which its fixed part follows
_HEAD_TOKENS = 4096.0  # new tokens of a step in which only the number of sequences changes


class StepTable(NamedTuple):
    """Tables of one layout; a named tuple because compiled code takes it as it is.

    ``tokens_ms`` [stage, new tokens // ``stride``], of which replicas that share experts spend ``shared_ms`` on them,
    ``rows_ms`` [stage, sequences], ``decode_ms`` [stage, sequences];
    attention per layer: ``decode_attention_ms`` [sequences, context point], ``chunk_ms`` [chunk point, context point,
    own or fixed part]. ``context_point`` maps context // 64 to the grid point at or below it, ``chunk_at`` a chunk's
    tokens to its place between points. ``stages`` [stage, LAYERS ... EAGER_LAUNCH]: layers of such attention, host
    times in ms, GRAPH_LAUNCH for mixed steps of up to ``graph_tokens``, which replay graphs, the last two for decode
    steps of more than ``graph_sequences``, which do not.
    """

    tokens_ms: Floats
    shared_ms: Floats
    rows_ms: Floats
    decode_ms: Floats
    decode_attention_ms: Floats
    chunk_ms: Floats
    chunk_at: Floats
    context: Floats
    context_point: Ints
    stages: Floats
    stride: int
    sequence_ms: float
    hidden_sequence_ms: float
    graph_tokens: int
    graph_sequences: float


def step_table(costs: StepCosts, layout: ParallelLayout, longest_tokens: int) -> StepTable:
    """Price the steps of ``layout`` up to its scheduler limits and contexts of ``longest_tokens``."""
    stride = -(-layout.max_num_batched_tokens // _FINEST_TOKENS)
    rows = np.arange(1, layout.max_num_seqs + 1, dtype=np.float64)
    one, none = np.ones(1), np.zeros(1)
    tokens = np.maximum(np.arange(0.0, layout.max_num_batched_tokens + 2 * stride, stride), 1.0)
    context = _context_grid(longest_tokens)
    prompts = StepShape("prefill", tokens, none, one)
    prefill, shared = _without_attention(costs, layout, prompts), _of_experts(costs, layout, prompts)
    heads = _without_attention(costs, layout, StepShape("prefill", _HEAD_TOKENS / rows, none, rows))
    decode = _without_attention(costs, layout, StepShape("decode", one, one, rows))
    chunk_at, chunk_ms = _chunk_attention(costs, layout, context)
    blocks = stage_blocks(costs.model, layout.pp)
    return StepTable(
        tokens_ms=prefill,
        shared_ms=shared,
        rows_ms=_from_zero(heads - heads[:, :1]),
        decode_ms=_from_zero(decode),
        decode_attention_ms=_decode_attention(costs, layout, context),
        chunk_ms=chunk_ms,
        chunk_at=chunk_at,
        context=context,
        context_point=_points_below(context),
        stages=np.array([_stage_row(costs, *one) for one in zip(costs.attention_layers(layout), blocks, strict=True)]),
        stride=stride,
        sequence_ms=costs.sequence_ms,
        hidden_sequence_ms=costs.hidden_sequence_ms if layout.pp == 1 else 0.0,
        graph_tokens=costs.graph_tokens,
        graph_sequences=costs.graph_sequences,
    )


def _stage_row(costs: StepCosts, attending: float, blocks: Stage) -> tuple[float, ...]:
    layers, moe_layers = launched_layers(blocks), moe_layers_of(blocks)
    in_graph = costs.host_parts("prefill", layers, moe_layers, in_graph=True)[1]
    prefill, decode = (costs.host_parts(phase, layers, moe_layers) for phase in ("prefill", "decode"))
    eager = costs.host_parts("decode", layers, moe_layers, beyond_graphs=True)
    return (attending, *prefill, *decode, in_graph, *eager)


def _without_attention(costs: StepCosts, layout: ParallelLayout, step: StepShape) -> Floats:
    """[stage, entry]: GPU milliseconds of a step but for its attention."""

    return _sums(costs, layout, step, lambda name: name not in ("attention", "host"))


def _of_experts(costs: StepCosts, layout: ParallelLayout, step: StepShape) -> Floats:
    """[stage, entry]: GPU milliseconds of a step's routed experts and of sending tokens to them."""
    return _sums(costs, layout, step, lambda name: name == "experts" or " expert " in name)


def _sums(costs: StepCosts, layout: ParallelLayout, step: StepShape, kept: Callable[[str], bool]) -> Floats:
    def chosen(terms: Terms) -> Floats:
        return np.broadcast_to(total({name: ms for name, ms in terms.items() if kept(name)}), step.tokens.shape)

    return np.array([chosen(terms) for terms in costs.stages(layout, step)])


def _from_zero(table: Floats) -> Floats:
    """The table with a first column for no sequences, which nothing looks up."""
    return np.concatenate([table[:, :1], table], axis=1)


def _context_grid(longest_tokens: int) -> Floats:
    """Contexts in tokens at which attention is priced: 0, then in the middle of its tiles of 128 keys."""
    points, last = [0.0], 64.0
    while last < longest_tokens + 2 * CONTEXT_BIN:
        points.append(last)
        wider = 128 * max(1, round(last * (_CONTEXT_RATIO - 1) / 128))
        last += 128 if len(points) <= _EVEN_STEPS else wider
    return np.array([*points, last])


def _points_below(grid: Floats) -> Ints:
    bins = np.arange(0.0, grid[-1] + CONTEXT_BIN, CONTEXT_BIN)
    return np.clip(np.searchsorted(grid, bins, side="right") - 1, 0, grid.size - 2).astype(np.int64)


def _geometric(limit: int) -> Floats:
    """1 to ``limit``, whole numbers about ``_TOKEN_RATIO`` apart."""
    count = int(np.ceil(np.log(max(limit, 2)) / np.log(_TOKEN_RATIO))) + 1
    return np.unique(np.round(np.geomspace(1, max(limit, 2), count)))


def _decode_attention(costs: StepCosts, layout: ParallelLayout, context: Floats) -> Floats:
    """[sequences, context point], from prices at some batch sizes."""
    priced = _geometric(layout.max_num_seqs)
    step = StepShape("decode", np.ones(1), np.maximum(context, 1.0)[None, :], priced[:, None])
    found = np.broadcast_to(costs.attention_ms(layout, step), (priced.size, context.size))
    wanted = np.arange(layout.max_num_seqs + 1.0)
    return np.ascontiguousarray(np.array([np.interp(wanted, priced, column) for column in found.T]).T)


def _chunk_attention(costs: StepCosts, layout: ParallelLayout, context: Floats) -> tuple[Floats, Floats]:
    """Place between points per chunk size, and [chunk point, context point, own or fixed part]."""
    sizes = _geometric(layout.max_num_batched_tokens + 1)

    def price(sequences: float) -> Floats:
        step = StepShape("prefill", sizes[:, None], context[None, :], np.full(1, sequences))
        return np.broadcast_to(costs.attention_ms(layout, step), (sizes.size, context.size))

    alone = price(1.0)
    own = (price(float(_CHUNKS)) - alone) / (_CHUNKS - 1)
    at = np.interp(np.arange(layout.max_num_batched_tokens + 1.0), sizes, np.arange(float(sizes.size)))
    return at, np.ascontiguousarray(np.stack([own, alone - own], axis=-1))
