"""What fits: bytes per device for weights, activations and buffers, and how many tokens of KV cache remain.

Scope: the fullest rank of one replica. The last word has the engine's own profiling run at start; this estimate follows
its parts (vLLM 0.29 ``gpu_worker.determine_available_memory``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.ask.cluster import Cluster
from tuner.ask.formats.projections import Layer, Projection, attention, head, mlp
from tuner.ask.formats.weights import Storage
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Engine
from tuner.cost.profiling_run import profiled_bytes, release_memory
from tuner.cost.switches import EngineSwitches
from tuner.cost.volume import stage_layers, stage_moe_layers

Floats = NDArray[np.float64]

GIB = 2**30
COLLECTIVE_BYTES = 0.4 * GIB  # NCCL channels and the all-reduce kernels' buffers, where tp × pp > 1
GRAPH_BYTES = 0.5 * GIB  # captured CUDA graphs of the default sizes


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes per device of the fullest rank; ``kv_tokens`` is what one replica's cache can hold.

    ``activation_bytes`` is what the engine's profiling run keeps free (``tuner.cost.profiling_run``). ``buffers_bytes``
    holds ``graphs_bytes``, the captured CUDA graphs (None on a CPU, which captures none).
    Arrays have the broadcast shape of ``max_num_batched_tokens`` and ``max_num_seqs``.
    """

    available_bytes: float
    weights_bytes: float
    activation_bytes: Floats
    buffers_bytes: float
    graphs_bytes: float | None
    kv_bytes_per_token: float
    kv_tokens: Floats

    def misfit(self, index: int, needed_tokens: int) -> str | None:
        """Why the layout does not fit (one full-length sequence must), or None."""
        if self.kv_tokens.flat[index] >= needed_tokens:
            return None
        parts = {
            "weights": self.weights_bytes,
            "activations": float(self.activation_bytes.flat[index]),
            "buffers": self.buffers_bytes,
            f"KV of {needed_tokens} tokens": needed_tokens * self.kv_bytes_per_token,
        }
        shown = " + ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if size)
        return f"{shown} GiB exceed the {self.available_bytes / GIB:.2f} GiB that a device has for them"


def weight_bytes(model: ModelShape, layout: ParallelLayout, stage: int) -> float:
    """Weights of one rank of a stage, as the checkpoint stores them: projections and MLPs by TP shard (KV heads
    replicated when tp exceeds them), experts by shard or whole by expert-parallel rank, embedding on the first stage,
    LM head on the last. Layers that are stored otherwise than most of their kind are taken as spread evenly."""
    t, layers, weights = layout.tp, stage_layers(model.layers, layout.pp)[stage], model.weights
    moe, plain = stage_moe_layers(model, layout.pp)[stage], model.element_bytes
    total = layers * (_shard_bytes(weights.attention, attention(model), t) + 2 * model.hidden * plain)
    total += (layers - moe) * _shard_bytes(weights.dense, mlp(Layer.DENSE, model.hidden, model.inter), t)
    if model.experts and moe:
        ranks = t * layout.pcp * layout.dp if layout.ep else t
        held = -(-model.experts.count // ranks) if layout.ep else model.experts.count / t
        shared = mlp(Layer.SHARED, model.hidden, model.experts.shared_inter)
        router = model.experts.count * model.hidden * plain
        total += moe * (held * expert_bytes(model) + _shard_bytes(weights.shared, shared, t) + router)
    table, first, last = head(model), stage == 0, stage == layout.pp - 1
    total += _shard_bytes(weights.embedding, (table,), t) * int(first)
    return total + _shard_bytes(weights.head, (table,), t) * int(last and not (first and model.tied_embeddings))


def expert_bytes(model: ModelShape) -> float:
    """One routed expert of one layer, whole."""
    assert model.experts is not None
    return _shard_bytes(model.weights.experts, mlp(Layer.EXPERTS, model.hidden, model.experts.inter), 1)


def _shard_bytes(storage: Storage, projections: Iterable[Projection], ranks: int) -> float:
    return sum(storage.bytes(one.outputs, one.inputs) / one.parts(ranks) for one in projections)


def kv_bytes_per_token(model: ModelShape, layout: ParallelLayout, stage: int, kv_element_bytes: float = 2) -> float:
    """KV-cache bytes that one token of context adds on one rank of a stage (full-attention layers only, where a model
    has both kinds; a windowed layer's share is bounded and left out)."""
    layers = stage_layers(model.layers, layout.pp)[stage]
    full = layers * (1 - model.window_layers / model.layers) if model.window_layers < model.layers else layers
    if model.latent:
        elements = float(model.kv_elements_per_token_layer)
    else:
        elements = 2 * max(1.0, model.kv_heads / layout.tp) * model.head_dim
    return full * elements * kv_element_bytes / layout.dcp


def estimate_memory(
    model: ModelShape,
    layout: ParallelLayout,
    cluster: Cluster,
    engine: Engine,
    max_num_batched_tokens: Floats,
    max_num_seqs: Floats,
    switches: EngineSwitches | None = None,
    vllm_version: str | None = None,
) -> MemoryEstimate:
    """Memory of a structure for each pair of scheduler limits (arrays that broadcast); ``switches`` as in ``StepCosts``
    (None: those that ``engine`` asks for), ``vllm_version`` as ``0.26`` (None: the cluster's)."""
    switches = EngineSwitches.asked(engine) if switches is None else switches
    batched, seqs = np.broadcast_arrays(max_num_batched_tokens, max_num_seqs)
    stages = range(layout.pp)
    weights = max(weight_bytes(model, layout, stage) for stage in stages)
    element_bytes = switches.on(layout, model).kv_element_bytes
    kv = max(kv_bytes_per_token(model, layout, stage, element_bytes) for stage in stages)
    release, kind = release_memory(vllm_version or str(cluster.vllm)), cluster.profile.kind
    activations = profiled_bytes(model, layout, batched, seqs, release)
    buffers, graphs = 0.0, None
    if kind.own_memory:
        graphs = GRAPH_BYTES if release.counts_graphs and switches.cuda_graphs else 0.0
        buffers = release.runtime_bytes + graphs + (COLLECTIVE_BYTES if layout.devices_per_replica > 1 else 0)
    available = cluster.profile.memory_bytes * kind.memory_share(engine.gpu_memory_utilization)
    left = available - weights - activations - buffers
    if kv_cache_gib := engine.kv_cache_gib or kind.default_kv_cache_gib:
        left = np.minimum(left, kv_cache_gib * GIB)
    return MemoryEstimate(available, weights, activations, buffers, graphs, kv, np.maximum(left, 0) / kv)
