"""What fits: bytes per device for weights, activations and buffers, and how many tokens of KV cache remain.

Scope: the fullest rank of one replica. The last word has the engine's own profiling run at start; this estimate follows
its parts (vLLM 0.29 ``gpu_worker.determine_available_memory``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape, bytes_per_weight
from tuner.ask.request import Engine
from tuner.cost.switches import AS_SHIPPED, EngineSwitches
from tuner.cost.volume import stage_layers, stage_moe_layers

Floats = NDArray[np.float64]

GIB = 2**30
CONTEXT_BYTES = 0.6 * GIB  # CUDA context and loaded kernels; what nvidia-smi shows for an idle PyTorch process
COLLECTIVE_BYTES = 0.4 * GIB  # NCCL channels and the custom all-reduce's buffers, where tp × pp > 1
GRAPH_BYTES = 0.5 * GIB  # captured CUDA graphs of the default sizes
LOGIT_BYTES = 10  # per logit while sampling: bf16 value, fp32 copy, fp32 probabilities


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes per device of the fullest rank; ``kv_tokens`` is what one replica's cache can hold.

    ``buffers_bytes`` holds ``graphs_bytes``, the captured CUDA graphs (None on a CPU, which captures none).
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
    """Weights of one rank of a stage: projections and MLPs by TP shard (KV heads replicated when tp exceeds them),
    experts by shard or whole by expert-parallel rank, embedding on the first stage, LM head on the last."""
    t, layers = layout.tp, stage_layers(model.layers, layout.pp)[stage]
    moe = stage_moe_layers(model, layout.pp)[stage]
    per_layer = _attention_weights(model, t) * bytes_per_weight(model.attention_dtype) + 2 * model.hidden * 2
    total = layers * per_layer
    total += (layers - moe) * 3 * model.hidden * model.inter / t * bytes_per_weight(model.linear_dtype)
    if model.experts and moe:
        ranks = t * layout.pcp * layout.dp if layout.ep else t
        held = -(-model.experts.count // ranks) if layout.ep else model.experts.count / t
        expert = 3 * model.hidden * model.experts.inter * bytes_per_weight(model.expert_dtype)
        shared = 3 * model.hidden * model.experts.shared_inter / t * bytes_per_weight(model.linear_dtype)
        total += moe * (held * expert + shared + model.experts.count * model.hidden * 2)
    table = model.padded_vocab * model.hidden / t * 2
    first, last = stage == 0, stage == layout.pp - 1
    return total + table * (int(first) + int(last and not (first and model.tied_embeddings)))


def _attention_weights(model: ModelShape, t: int) -> float:
    if model.latent:
        lat = model.latent
        replicated = model.hidden * (lat.kv_rank + lat.qk_rope) + (model.hidden * lat.q_rank if lat.q_rank else 0)
        return replicated + (model.attention_weights - replicated) / t
    kv_heads = max(1.0, model.kv_heads / t)
    return model.hidden * model.head_dim * (2 * model.heads / t + 2 * kv_heads)


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
    switches: EngineSwitches = AS_SHIPPED,
) -> MemoryEstimate:
    """Memory of a structure for each pair of scheduler limits (arrays that broadcast); ``switches`` as in
    ``StepCosts``."""
    batched, seqs = np.broadcast_arrays(max_num_batched_tokens, max_num_seqs)
    stages = range(layout.pp)
    weights = max(weight_bytes(model, layout, stage) for stage in stages)
    element_bytes = switches.on(layout).kv_element_bytes
    kv = max(kv_bytes_per_token(model, layout, stage, element_bytes) for stage in stages)
    width = 4 * model.hidden + 3 * max(model.inter, model.heads * model.head_dim) / layout.tp
    activations = batched * width * 2.0 + seqs * model.padded_vocab * LOGIT_BYTES
    kind = cluster.profile.kind
    buffers, graphs = 0.0, GRAPH_BYTES if kind.own_memory else None
    if graphs is not None:
        buffers = CONTEXT_BYTES + graphs + (COLLECTIVE_BYTES if layout.devices_per_replica > 1 else 0)
    available = cluster.profile.memory_bytes * kind.memory_share(engine.gpu_memory_utilization)
    left = available - weights - activations - buffers
    if kv_cache_gib := engine.kv_cache_gib or kind.default_kv_cache_gib:
        left = np.minimum(left, kv_cache_gib * GIB)
    return MemoryEstimate(available, weights, activations, buffers, graphs, kv, np.maximum(left, 0) / kv)
