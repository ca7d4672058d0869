"""What a layout sends, operation by operation: which collective, on which stage, how often, how many bytes.

The unit is one TP rank of each pipeline stage. A forward pass over ``n`` tokens that samples ``r`` rows sends messages
that are linear in n and r, so a pass is described once by ``PassOperation``s and then made concrete for a phase, priced
by ``tuner.cost.latency`` or summed over a request. Sources: Xu et al. (arXiv 2507.14392, Tables III–VI) for counts and
shapes; vLLM 0.29 for what is sent today (communication_op.py, parallel_state.py, all2all.py, logits_processor.py).

``message_bytes`` follows NCCL's convention: the buffer that is reduced (all-reduce), the gathered result (all-gather),
the input before scattering (reduce-scatter), one rank's contribution (gather), what one rank sends (send, all-to-all).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import comb
from typing import Literal

from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block
from tuner.ask.models.factorized import FactorizedAttention
from tuner.ask.models.latent import LatentAttention
from tuner.ask.models.recurrent import Mamba2
from tuner.cost.stages import Stage, moe_layers_of, stage_blocks

Engine = Literal["v0", "v1"]
Phase = Literal["prefill", "decode"]
_Attending = Attention | FactorizedAttention | LatentAttention
_DEEPEP = ("deepep_high_throughput", "flashinfer_all2allv")


@dataclass(frozen=True, slots=True)
class PassOperation:
    """One kind of message of one TP rank in one forward pass.

    A message holds ``columns`` elements of ``element_bytes`` for every token of the pass (or for every sampled row
    where ``per_row``). ``phase`` is None where the operation is part of both. ``sliced`` marks stage links that send
    1/t of the tensor when its size allows.
    """

    stage: int
    operation: str
    group: str
    ranks: int
    calls: int
    columns: float
    element_bytes: float
    where: str
    per_row: bool = False
    phase: Phase | None = None

    def message_bytes(self, tokens: float, rows: float) -> float:
        """Bytes of one call for a pass over ``tokens`` tokens that samples ``rows`` rows."""
        return (rows if self.per_row else tokens) * self.columns * self.element_bytes


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of message of one request, as ``parlay volume`` lists it: ``calls`` of ``message_bytes`` each."""

    phase: Phase
    stage: int
    operation: str
    group: str
    ranks: int
    calls: int
    shape: tuple[int, ...]
    message_bytes: int
    where: str

    @property
    def sent_bytes_per_rank(self) -> float:
        """Bytes that this rank puts on a link over all calls, with ring algorithms; summed over the ranks of the group
        it is what they receive (see ``_SENT_SHARE``)."""
        return self.calls * self.message_bytes * _sent_share(self.operation, self.ranks)


def _sent_share(operation: str, ranks: int) -> float:
    """Sent bytes of an average rank of the group, in units of the message."""
    around = (ranks - 1) / ranks
    shares = {"allreduce": 2 * around, "allgather": around, "reducescatter": around, "gather": around}
    return {**shares, "send": 1.0, "recv": 0.0, "alltoall": 1.0}[operation]


def pass_operations(
    model: ModelShape, layout: ParallelLayout, engine: Engine = "v1", element_bytes: int | None = None
) -> tuple[PassOperation, ...]:
    """Every message of one forward pass, for one TP rank of each stage; empty where nothing is sent. Elements are those
    that the model computes in unless ``element_bytes`` says otherwise."""
    element_bytes = model.element_bytes if element_bytes is None else element_bytes
    found: list[PassOperation] = []
    for stage, blocks in enumerate(stage_blocks(model, layout.pp)):
        found += _tensor_parallel(model, layout, stage, blocks, element_bytes)
        found += _experts(model, layout, stage, moe_layers_of(blocks), element_bytes)
        found += _context_parallel(layout, stage, blocks, element_bytes)
        found += _stage_links(model, layout, stage, element_bytes)
    last = layout.pp - 1
    if layout.tp > 1:
        if engine == "v0":
            shard, collective = model.vocab / layout.tp, "gather"
        else:
            shard, collective = model.padded_vocab, "allgather"
        found.append(PassOperation(last, collective, "tp", layout.tp, 1, shard, element_bytes, "logits", per_row=True))
    return tuple(op for op in found if op.calls)


def _tensor_parallel(
    model: ModelShape, layout: ParallelLayout, stage: int, blocks: Stage, b: int
) -> Iterable[PassOperation]:
    t = layout.tp
    if t == 1:
        return
    if stage == 0:
        yield PassOperation(0, "allreduce", "tp", t, 1, model.hidden, b, "embedding")
    parts = [(part, n) for block, n in blocks if block.mixer is not None for part in block.mixer.parts]
    spanning = sum(n for one, n in parts if isinstance(one, Attention) and one.norm_spans_heads)
    if spanning:  # a variance each of queries and keys, in fp32 (MiniMaxText01RMSNormTP.forward_qk)
        yield PassOperation(stage, "allreduce", "tp", t, spanning, 2, 4, "query and key norm")
    for one, n in parts:
        if isinstance(one, Attention) and one.norm_gathers_heads:
            yield from _gathered_heads(one, t, n, stage, b)
    gated = sum(n for one, n in parts if isinstance(one, Mamba2) and one.norms_over(t))
    if gated:  # the variance of the gated norm, whose group is spread (Mixer2RMSNormGated.forward_native)
        yield PassOperation(stage, "allreduce", "tp", t, gated, 1, 4, "state space norm")
    exchange = _experts_exchange(model, layout)
    mixers = sum(n * _mixer_reductions(block, exchange) for block, n in blocks)
    yield PassOperation(stage, "allreduce", "tp", t, mixers, model.hidden, b, "attention output")
    mlps = sum(n * _mlp_reductions(block, exchange) for block, n in blocks)
    yield PassOperation(stage, "allreduce", "tp", t, mlps, model.hidden, b, "MLP output")
    width = model.experts.width if model.experts is not None else None
    if width is not None and not exchange:  # summed before they widen (_maybe_reduce_routed_output_before_transform)
        yield PassOperation(stage, "allreduce", "tp", t, moe_layers_of(blocks), width, b, "latent experts")


def _gathered_heads(one: Attention, t: int, layers: int, stage: int, b: int) -> Iterable[PassOperation]:
    """Queries and keys whose norm is over all heads (``OlmoeAttention._apply_qk_norm``); of plans of Transformers
    values as well, and no head twice (``colwise_gather_output``)."""
    keys = (one.kv_heads if one.apart else max(one.kv_heads, t)) * one.head_dim
    for columns, where in ((one.heads * one.head_dim, "queries to norm"), (keys, "keys to norm"), (keys, "values")):
        if where != "values" or one.apart:
            yield PassOperation(stage, "allgather", "tp", t, layers, columns, b, where)


def _mixer_reductions(block: Block, exchange: bool) -> int:
    """All-reduces after a mixer; tokens that travel to experts leave nothing that both halves could share."""
    joins_experts = block.joined and exchange and block.experts is not None and block.mlp is None
    return block.mixer.reductions if joins_experts and block.mixer is not None else block.mixes


def _mlp_reductions(block: Block, exchange: bool) -> int:
    """All-reduces of a hidden row after MLP and experts; of experts of another width shared ones alone have one."""
    own = block.experts
    if own is None:
        return block.transforms
    elsewhere = exchange or (own.width is not None and not own.shared_inter)
    return block.transforms - int(elsewhere)


def _experts_exchange(model: ModelShape, layout: ParallelLayout) -> bool:
    """Do tokens travel to their experts? Only where expert parallelism spans data-parallel ranks."""
    return model.experts is not None and layout.ep and layout.dp * layout.pcp > 1


def _experts(model: ModelShape, layout: ParallelLayout, stage: int, moe_layers: int, b: int) -> Iterable[PassOperation]:
    experts = model.experts
    if experts is None or not moe_layers or not _experts_exchange(model, layout):
        return
    ranks, share = layout.dp * layout.pcp * layout.tp, 1 / layout.tp  # with t > 1 tokens are first cut by TP rank
    h = model.hidden if experts.width is None else experts.width
    if layout.all2all == "allgather_reducescatter":
        routing = 8 * experts.topk / b  # fp32 weights and int32 ids, 4 bytes each per chosen expert
        dispatch, combine = ranks * share * (h + routing), ranks * share * h
        yield PassOperation(stage, "allgather", "ep", ranks, moe_layers, dispatch, b, "expert dispatch")
        yield PassOperation(stage, "reducescatter", "ep", ranks, moe_layers, combine, b, "expert combine")
    else:
        high_throughput = layout.all2all in _DEEPEP
        copies = share * (
            expected_destinations(experts.count, experts.topk, ranks) if high_throughput else experts.topk
        )
        packed = 1 + 4 / 128 if not high_throughput else float(b)  # fp8 with one fp32 scale per 128 elements
        yield PassOperation(stage, "alltoall", "ep", ranks, moe_layers, copies * h, packed, "expert dispatch")
        yield PassOperation(stage, "alltoall", "ep", ranks, moe_layers, copies * h, b, "expert combine")
    if layout.tp > 1:
        yield PassOperation(stage, "allgather", "tp", layout.tp, moe_layers, model.hidden, b, "MoE sequence gather")


def expected_destinations(experts: int, topk: int, ranks: int) -> float:
    """Expected distinct ranks that hold a token's ``topk`` of ``experts`` experts, spread evenly, routing uniform.

    E[d] = g·(1 − C(E − E/g, k)/C(E, k)), g = ranks.
    """
    held = experts // ranks if ranks <= experts else 1
    spread = min(ranks, experts)
    return spread * (1 - comb(experts - held, topk) / comb(experts, topk))


def _context_parallel(layout: ParallelLayout, stage: int, blocks: Stage, b: int) -> Iterable[PassOperation]:
    """Decode context parallelism (gather queries, attend locally, combine) and prefill context parallelism (MLA)."""
    d, c = layout.dcp, layout.pcp
    if d == c == 1:
        return
    attending = Counter[_Attending]()
    for block, layers in blocks:
        for part in block.mixer.parts if block.mixer is not None else ():
            if isinstance(part, _Attending):
                attending[part] += layers
    for mixer, layers in attending.items():
        if d > 1:
            heads = mixer.heads / layout.tp
            width, values = _attended(mixer)
            query, out = d * heads * width, d * heads * values
            yield PassOperation(stage, "allgather", "dcp", d, layers, query, b, "query heads", phase="decode")
            yield PassOperation(stage, "allgather", "dcp", d, layers, d * heads, 4, "softmax sums", phase="decode")
            yield PassOperation(stage, "reducescatter", "dcp", d, layers, out, b, "attention partials", phase="decode")
        if c > 1:
            kept = sum(cache.width for cache in mixer.caches)  # of latent attention: one vector
            yield PassOperation(stage, "allgather", "pcp", c, layers, c * kept, b, "KV of new tokens", phase="prefill")


def _attended(mixer: _Attending) -> tuple[int, int]:
    """Widths of what a query meets in the cache, and of what it takes from there."""
    if isinstance(mixer, LatentAttention):
        return mixer.kv_rank + mixer.qk_rope, mixer.kv_rank
    return mixer.head_dim, mixer.values if isinstance(mixer, Attention) else mixer.head_dim


def _stage_links(model: ModelShape, layout: ParallelLayout, stage: int, b: int) -> Iterable[PassOperation]:
    """Hidden states (and residual) between stages: each TP rank sends its slice, the receivers gather."""
    t, tensors = layout.tp, model.pipeline_tensors
    sliced = model.hidden % t == 0
    columns = model.hidden / t if sliced else float(model.hidden)
    if stage > 0:
        yield PassOperation(stage, "recv", "pp", 2, tensors, columns, b, "stage link")
        if sliced and t > 1:
            yield PassOperation(stage, "allgather", "tp", t, tensors, model.hidden, b, "stage link")
    if stage < layout.pp - 1:
        yield PassOperation(stage, "send", "pp", 2, tensors, columns, b, "stage link")


def request_operations(
    model: ModelShape,
    layout: ParallelLayout,
    prompt_tokens: int,
    output_tokens: int,
    engine: Engine = "v1",
    element_bytes: int | None = None,
) -> tuple[Operation, ...]:
    """Every message of one request (batch 1, prompt in one pass), for one TP rank of each stage.

    The prefill pass yields the first token; ``output_tokens`` − 1 decode passes of one token follow.
    """
    found = []
    phases: tuple[tuple[Phase, int, int], ...] = (("prefill", 1, prompt_tokens), ("decode", output_tokens - 1, 1))
    for phase, passes, tokens in phases:
        for op in pass_operations(model, layout, engine, element_bytes):
            if passes and op.phase in (None, phase):
                found.append(_concrete(op, phase, passes, tokens))
    return tuple(_merged(found))


def _concrete(op: PassOperation, phase: Phase, passes: int, tokens: int) -> Operation:
    rows = 1 if op.per_row else tokens
    columns = int(op.columns) if op.columns == int(op.columns) else -(-op.columns // 1)
    shape = (int(columns),) if op.operation == "gather" else (rows, int(columns))
    size = round(op.message_bytes(tokens, 1))
    return Operation(phase, op.stage, op.operation, op.group, op.ranks, op.calls * passes, shape, size, op.where)


def _merged(operations: Iterable[Operation]) -> Iterable[Operation]:
    """Operations of one phase, stage, kind and size as one row: an all-reduce is an all-reduce."""
    rows: dict[tuple[object, ...], list[Operation]] = defaultdict(list)
    for op in operations:
        rows[(op.phase, op.stage, op.operation, op.group, op.shape, op.message_bytes)].append(op)
    for same in rows.values():
        first = same[0]
        where = ", ".join(dict.fromkeys(op.where for op in same))
        calls = sum(op.calls for op in same)
        yield Operation(
            first.phase, first.stage, first.operation, first.group, first.ranks, calls, first.shape,
            first.message_bytes, where,
        )  # fmt: skip


def system_totals(layout: ParallelLayout, operations: Iterable[Operation]) -> tuple[dict[str, dict[str, int]], int]:
    """(calls by phase and operation, bytes sent) over all ranks of one replica, one request.

    Every stage has tp × pcp ranks that do the same; a ring sends as many bytes as it receives.
    """
    calls: dict[str, dict[str, int]] = {"prefill": {}, "decode": {}}
    sent = 0.0
    for op in operations:
        ranks = layout.tp * layout.pcp
        counted = calls[op.phase]
        counted[op.operation] = counted.get(op.operation, 0) + op.calls * ranks
        sent += op.sent_bytes_per_rank * ranks
    return calls, round(sent)
