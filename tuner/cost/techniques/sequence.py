"""A prompt cut along its tokens: HPipe's slices through a pipeline, and ring attention over context-parallel ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Engine
from tuner.ask.rules import Drop, DropReason, engine_refuses
from tuner.cost.collectives import CommGroup
from tuner.cost.memory import MemoryEstimate
from tuner.cost.rank_placement import context_group
from tuner.cost.step_batch import Floats, StepShape, Terms
from tuner.cost.techniques.base import Hardware, Operations, Technique
from tuner.errors import BadInput

MOST_SLICES = 1024
ELEMENT_BYTES = 2.0  # bf16 activations and KV cache
_SUM_BYTES = 4.0  # fp32 log-sum-exp of a row and head
_PROBE_BYTES = 2.0**30  # a message large enough to show a link's bandwidth


@dataclass(frozen=True, slots=True)
class HPipe(Technique):
    """HPipe: a prompt passes the pipeline in slices of tokens, so that the stages work on it at the same time.

    Slices are cut for equal times (the authors do so by dynamic programming, over unlike devices too), and no stage
    waits for more than its slowest neighbour.
    """

    name: ClassVar[str] = "hpipe"
    setting: ClassVar[str] = f"hpipe=M with M from 1 to {MOST_SLICES} slices of a prompt"
    source: ClassVar[str] = "HPipe, NAACL 2024 industry track, paper 1"
    acts_on: ClassVar[str] = "prefill of layouts with pp > 1"
    priced: ClassVar[str] = "Σ c_s + (M−1)·max c_s, c_s one slice's time in stage s"
    exact: ClassVar[bool] = True
    outputs: ClassVar[str] = "outputs stay the same: a slice attends to those before it"
    missing: ClassVar[str] = (
        "vLLM cuts prompts by max_num_batched_tokens alone, into chunks of equal length; that knob is part of the space"
    )
    count: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_SLICES:
            raise BadInput("--what-if", str(self), self.setting)

    def __str__(self) -> str:
        return f"hpipe={self.count}"

    def slices(self, stages: int) -> int:
        """One stage has no pipeline to fill."""
        return self.count if stages > 1 else 1


def query_bytes(tokens: Floats, heads: int, head_dim: int) -> Floats:
    """Bytes of the queries of ``tokens`` in one layer: T·D·e with D = heads × head size (arXiv 2411.01783)."""
    return np.asarray(tokens * heads * head_dim * ELEMENT_BYTES)


def kv_bytes(tokens: Floats, kv_heads: int, head_dim: int) -> Floats:
    """Bytes of keys and values of ``tokens`` in one layer: 2(T+P)·D·e·N_KV/N_H (arXiv 2411.01783)."""
    return np.asarray(2 * tokens * kv_heads * head_dim * ELEMENT_BYTES)


def kv_message_threshold(heads: int, kv_heads: int) -> float:
    """Share of new tokens T / (T + P) from which KV is the smaller message than Q: 2·N_KV / N_H (arXiv 2411.01783)."""
    return 2 * kv_heads / heads


def hiding_tokens(ranks: int, heads: int, kv_heads: int, flops_per_s: float, bytes_per_s: float) -> float:
    """New tokens T from which attention hides the passing of KV: N·C·N_KV·e / (2·N_H·BW) (arXiv 2411.01783).

    ``flops_per_s`` and ``bytes_per_s`` are those of one context-parallel rank.
    """
    return ranks * flops_per_s * kv_heads * ELEMENT_BYTES / (2 * heads * bytes_per_s)


def passes_kv(
    new_tokens: Floats,
    cached_tokens: Floats,
    ranks: int,
    heads: int,
    kv_heads: int,
    flops_per_s: float,
    bytes_per_s: float,
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Whether a ring of ``ranks`` passes KV (else Q), by the rule of arXiv 2411.01783; arrays of tokens broadcast.

    KV where attention hides it (``hiding_tokens``), or where T / (T + P) reaches ``kv_message_threshold`` less
    4·T·BW / (N·C·e), what pass-Q pays for its all-to-all of partial outputs.
    """
    exchange = 4 * new_tokens * bytes_per_s / (ranks * flops_per_s * ELEMENT_BYTES)
    refined = kv_message_threshold(heads, kv_heads) - exchange
    hidden = new_tokens >= hiding_tokens(ranks, heads, kv_heads, flops_per_s, bytes_per_s)
    return np.asarray(hidden | (new_tokens / (new_tokens + cached_tokens) >= refined))


@dataclass(frozen=True, slots=True)
class RingAttention(Technique):
    """Ring attention: prompts and KV cache are cut over pcp ranks, which pass KV or queries around while they attend.

    In prefill the rule of the source decides which; decode passes queries, and each hop runs one small attention, so
    that it can take longer than without. The ranks exchange partial outputs at the end where queries went around.
    """

    name: ClassVar[str] = "ring-attention"
    source: ClassVar[str] = "arXiv 2411.01783"
    acts_on: ClassVar[str] = "layouts with pcp > 1 and dcp = 1, which it makes legal for models with KV heads"
    priced: ClassVar[str] = (
        "(c−1)·max(0, hop − attention/c) per layer, a hop of KV 2(T+P)/c·d·N_KV/t·e or of Q T/c·d·N_H/t·e bytes; with "
        "Q an all-to-all of partial outputs. KV iff T ≥ N·C·N_KV·e/(2·N_H·BW) or "
        "T/(T+P) ≥ 2·N_KV/N_H − 4·T·BW/(N·C·e)"
    )
    exact: ClassVar[bool] = True
    outputs: ClassVar[str] = "outputs stay the same: partial softmax sums are merged exactly"
    missing: ClassVar[str] = "vLLM's prefill context parallelism gathers a latent cache (MLA) and refuses KV heads"

    def check(self, model: ModelShape, cluster: Cluster) -> None:
        """Models with KV heads whose layers attend to everything."""
        if model.latent or model.windowed or model.recurrent:
            allowed = "a model with KV heads and full attention in every layer"
            raise BadInput("--what-if", str(self), f"{allowed}; not {model.name}")

    def _rings(self, layout: ParallelLayout) -> bool:
        return layout.pcp > 1 and layout.dcp == 1

    def verdict(self, model: ModelShape, layout: ParallelLayout, drop: Drop) -> Drop | None:
        """Prefill context parallelism needs no latent attention any more; all other rules stay."""
        if drop.reason is not DropReason.CONTEXT_PARALLEL or not self._rings(layout):
            return drop
        return engine_refuses(model, replace(layout, pcp=1))

    def operations(self, model: ModelShape, layout: ParallelLayout, operations: Operations) -> Operations:
        """No gathering of KV; what the ring sends is priced with the attention that hides it."""
        return tuple(op for op in operations if op.where != "KV of new tokens") if self._rings(layout) else operations

    def attention_step(self, layout: ParallelLayout, step: StepShape) -> tuple[StepShape, int]:
        """Decode: a rank meets each rank's share of the queries once, with its own share of the cache."""
        if not self._rings(layout) or step.phase == "prefill":
            return step, 1
        c = layout.pcp
        hop = StepShape("decode", step.new_tokens, step.context_tokens / c, np.maximum(step.sequences / c, 1.0))
        return hop, c

    def layer_terms(
        self, hardware: Hardware, layout: ParallelLayout, step: StepShape, terms: Terms, has_experts: bool
    ) -> Terms:
        """The hops that attention does not hide, and the exchange of partial outputs."""
        if not self._rings(layout):
            return terms
        model, c = hardware.model, layout.pcp
        group = context_group(hardware.cluster, layout)
        heads, kv_heads = max(1, model.heads // layout.tp), max(1, model.kv_heads // layout.tp)
        rows = np.maximum(step.tokens, c)  # queries are cut over the ranks, one at least each
        passed_bytes = query_bytes(rows / c, heads, model.head_dim)
        by_query = self._exposed_ms(hardware, group, passed_bytes, terms["attention"])
        merged_bytes = query_bytes(rows, heads, model.head_dim) + rows * heads * _SUM_BYTES
        merge = hardware.collective_ms("alltoall", merged_bytes, group)
        if step.phase == "prefill":
            cached = (step.new_tokens + step.context_tokens) / c * step.sequences
            passed_bytes = kv_bytes(cached, kv_heads, model.head_dim)
            passes = self._passes_kv(hardware, group, step)
            by_query = np.where(passes, self._exposed_ms(hardware, group, passed_bytes, terms["attention"]), by_query)
            merge = np.where(passes, 0.0, merge)
        where = "prefill context " + ("between nodes" if group.nodes > 1 else "in node")
        return terms | {f"ring {where}": by_query, f"alltoall {where}": np.asarray(merge)}

    @staticmethod
    def _exposed_ms(hardware: Hardware, group: CommGroup, hop_bytes: Floats, attention_ms: Floats) -> Floats:
        """What c − 1 hops, each beside one c-th of the attention, add to it; the slowest link counts."""
        hop_ms = hardware.collective_ms("sendrecv", hop_bytes, CommGroup(2, min(2, group.nodes)))
        return np.asarray((group.ranks - 1) * np.maximum(0.0, hop_ms - attention_ms / group.ranks))

    @staticmethod
    def _passes_kv(
        hardware: Hardware, group: CommGroup, step: StepShape
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """The rule with this GPU's peak and this link's bandwidth (both grow alike with tensor parallelism)."""
        model = hardware.model
        probe_ms = hardware.collective_ms("sendrecv", np.full(1, _PROBE_BYTES), CommGroup(2, min(2, group.nodes)))
        flops_per_s = hardware.cluster.profile.peak_flops_per_s["bf16"]
        bytes_per_s = _PROBE_BYTES / float(probe_ms[0]) * 1e3
        return passes_kv(
            step.new_tokens, step.context_tokens, group.ranks, model.heads, model.kv_heads, flops_per_s, bytes_per_s
        )

    def memory(
        self, model: ModelShape, layout: ParallelLayout, engine: Engine, estimate: MemoryEstimate
    ) -> MemoryEstimate:
        """Each rank keeps its share of every sequence."""
        if not self._rings(layout):
            return estimate
        sequence = replace(estimate.sequence, unit_bytes=estimate.kv_bytes_per_token / layout.pcp)
        return replace(estimate, sequence=sequence, kv_tokens=estimate.kv_tokens * layout.pcp)
