"""Fewer bytes to the experts, or fewer experts in memory: Sem-MoE, dynamic gating and expert buffering."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Engine
from tuner.cost.memory import GIB, MemoryEstimate
from tuner.cost.rank_placement import expert_group
from tuner.cost.stages import moe_layers_of, stage_blocks
from tuner.cost.step_batch import StepShape, Terms
from tuner.cost.stored import expert_bytes, weight_bytes
from tuner.cost.techniques.base import Hardware, Operations, Technique
from tuner.errors import BadInput

_COUNT_BYTES = 4  # how many tokens an expert gets: one int32


def _need_experts(technique: Technique, model: ModelShape) -> None:
    if model.experts is None:
        raise BadInput("--what-if", str(technique), f"a mixture-of-experts model; {model.name} is dense")


@dataclass(frozen=True, slots=True)
class SpeculativePlacement(Technique):
    """Sem-MoE (s-MoE): tokens are sent where their experts are expected, before the router has spoken.

    The local activation rate is the share of a token's experts that its own rank holds. Of g ranks with experts at
    random it is 1/g, and a lower setting is taken as that.
    """

    name: ClassVar[str] = "s-moe"
    setting: ClassVar[str] = "s-moe=A with A from 0 to 1, the local activation rate"
    source: ClassVar[str] = "arXiv 2503.04398"
    acts_on: ClassVar[str] = "expert parallelism with a routed all-to-all (DeepEP, FlashInfer)"
    priced: ClassVar[str] = "dispatch and combine bytes × (1 − A)/(1 − 1/g); shuffling, about 1 %, left out"
    exact: ClassVar[bool] = True
    outputs: ClassVar[str] = "outputs stay the same: only the rank that works on a token changes"
    missing: ClassVar[str] = "vLLM assigns tokens to ranks before it knows their experts and has no predictor of them"
    local_rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.local_rate <= 1:
            raise BadInput("--what-if", str(self), self.setting)

    def __str__(self) -> str:
        return f"s-moe={self.local_rate:g}"

    def check(self, model: ModelShape, cluster: Cluster) -> None:
        """Models with experts."""
        _need_experts(self, model)

    def operations(self, model: ModelShape, layout: ParallelLayout, operations: Operations) -> Operations:
        """Remote bytes shrink with what is local beyond chance."""
        found = []
        for op in operations:
            if op.group == "ep" and op.operation == "alltoall":
                uniform = 1 / op.ranks
                op = replace(op, columns=op.columns * (1 - max(self.local_rate, uniform)) / (1 - uniform))
            found.append(op)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class DynamicGating(Technique):
    """Dynamic gating: ranks first tell each other how many tokens each expert gets, then send just those.

    vLLM gathers all tokens everywhere by default, which needs no counts; its DeepEP backends send what is routed
    already, so they stay as they are.
    """

    name: ClassVar[str] = "dynamic-gating"
    source: ClassVar[str] = "arXiv 2303.06182 (NeurIPS 2024)"
    acts_on: ClassVar[str] = "expert parallelism by all-gather and reduce-scatter"
    priced: ClassVar[str] = "per MoE layer an all-to-all of E int32 counts, and two of k·h elements per token"
    exact: ClassVar[bool] = False
    outputs: ClassVar[str] = (
        "outputs change against gating with a fixed expert capacity, which drops what overflows (the source's baseline "
        "and its gain); against vLLM, which has no capacity, they do not"
    )
    missing: ClassVar[str] = "vLLM's default backend exchanges no counts; DeepEP, which does, is an axis of the space"

    def check(self, model: ModelShape, cluster: Cluster) -> None:
        """Models with experts."""
        _need_experts(self, model)

    def operations(self, model: ModelShape, layout: ParallelLayout, operations: Operations) -> Operations:
        """One copy of a token per chosen expert, there and back, instead of every token to every rank."""
        if model.experts is None or layout.all2all != "allgather_reducescatter":
            return operations
        routed = model.experts.topk * model.hidden / layout.tp
        return tuple(replace(op, operation="alltoall", columns=routed) if op.group == "ep" else op for op in operations)

    def layer_terms(
        self, hardware: Hardware, layout: ParallelLayout, step: StepShape, terms: Terms, has_experts: bool
    ) -> Terms:
        """The exchange of counts."""
        experts = hardware.model.experts
        spans = layout.ep and layout.dp * layout.pcp > 1 and layout.all2all == "allgather_reducescatter"
        if experts is None or not has_experts or not spans:
            return terms
        group = expert_group(hardware.cluster, layout)
        counts_ms = hardware.collective_ms("alltoall", np.full(1, float(_COUNT_BYTES * experts.count)), group)
        return terms | {"expert counts": counts_ms}


@dataclass(frozen=True, slots=True)
class ExpertBuffering(Technique):
    """Expert buffering: a share of a rank's experts stays on the GPU, the others are fetched from the host when hit.

    Hits are taken as uniform over experts, which is the worst case: the source keeps those that are hot.
    """

    name: ClassVar[str] = "expert-buffering"
    setting: ClassVar[str] = "expert-buffering=B with B above 0 and up to 1, the share of experts kept on the GPU"
    source: ClassVar[str] = "arXiv 2303.06182 (NeurIPS 2024)"
    acts_on: ClassVar[str] = "memory and time of every layer with experts"
    priced: ClassVar[str] = (
        "(1 − B) of a rank's expert weights leave the GPU; per layer (1 − B) × the expected distinct experts of the "
        "step are read over PCIe, which nothing hides"
    )
    exact: ClassVar[bool] = True
    outputs: ClassVar[str] = "outputs stay the same"
    missing: ClassVar[str] = "vLLM offloads whole layers to the host, not experts by use"
    kept: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.kept <= 1:
            raise BadInput("--what-if", str(self), self.setting)

    def __str__(self) -> str:
        return f"expert-buffering={self.kept:g}"

    def check(self, model: ModelShape, cluster: Cluster) -> None:
        """Models with experts, on GPUs."""
        _need_experts(self, model)
        if not cluster.profile.kind.own_memory:
            raise BadInput("--what-if", str(self), "a cluster of GPUs, whose memory is not the host's")

    def layer_terms(
        self, hardware: Hardware, layout: ParallelLayout, step: StepShape, terms: Terms, has_experts: bool
    ) -> Terms:
        """The reads over PCIe."""
        experts = hardware.model.experts
        if experts is None or not has_experts or self.kept == 1:
            return terms
        tokens = np.maximum(step.tokens, 1.0) * (layout.dp if layout.ep else 1)
        touched = experts.count * -np.expm1(tokens * np.log1p(-min(experts.topk / experts.count, 0.999999)))
        touched_here = touched / (layout.tp * layout.pcp * layout.dp if layout.ep else 1)
        fetched_bytes = (1 - self.kept) * touched_here * _expert_bytes(hardware.model, layout)
        return terms | {"expert fetch": fetched_bytes / hardware.cluster.profile.pcie_bytes_per_s * 1e3}

    def memory(
        self, model: ModelShape, layout: ParallelLayout, engine: Engine, estimate: MemoryEstimate
    ) -> MemoryEstimate:
        """The fullest stage without the experts that it does not keep; what is freed holds KV cache."""
        if model.experts is None:
            return estimate
        ranks = layout.tp * layout.pcp * layout.dp if layout.ep else 1
        away = (1 - self.kept) * -(-model.experts.count // ranks) * _expert_bytes(model, layout)
        moe = [moe_layers_of(blocks) for blocks in stage_blocks(model, layout.pp)]
        weights = max(weight_bytes(model, layout, stage) - moe[stage] * away for stage in range(layout.pp))
        left = estimate.available_bytes - weights - estimate.activation_bytes - estimate.buffers_bytes
        if engine.kv_cache_gib:
            left = np.minimum(left, engine.kv_cache_gib * GIB)
        kv_tokens = np.maximum(left, 0.0) / estimate.kv_bytes_per_token
        return replace(estimate, weights_bytes=weights, kv_tokens=kv_tokens)


def _expert_bytes(model: ModelShape, layout: ParallelLayout) -> float:
    """One expert of one layer, as a rank holds it: whole where experts are spread, else its tensor-parallel shard."""
    whole = expert_bytes(model)
    return whole if layout.ep else whole / layout.tp
