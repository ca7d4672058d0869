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
from tuner.ask.model import ModelShape
from tuner.ask.request import Engine
from tuner.cost.profiling_run import profiled_bytes, release_memory
from tuner.cost.sequence_memory import SequenceMemory, sequence_memory
from tuner.cost.stored import weight_bytes
from tuner.cost.switches import EngineSwitches

Floats = NDArray[np.float64]

GIB = 2**30
COLLECTIVE_BYTES = 0.4 * GIB  # NCCL channels and the all-reduce kernels' buffers, where tp × pp > 1
GRAPH_BYTES = 0.5 * GIB  # captured CUDA graphs of the default sizes


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes per device of the fullest rank; ``kv_tokens`` is what one replica's cache can hold.

    ``activation_bytes`` is what the engine's profiling run keeps free (``tuner.cost.profiling_run``). ``buffers_bytes``
    holds ``graphs_bytes``, the captured CUDA graphs (None on a CPU, which captures none). ``sequence`` says what one
    sequence takes of the cache.
    Arrays have the broadcast shape of ``max_num_batched_tokens`` and ``max_num_seqs``.
    """

    available_bytes: float
    weights_bytes: float
    activation_bytes: Floats
    buffers_bytes: float
    graphs_bytes: float | None
    sequence: SequenceMemory
    kv_tokens: Floats

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of what ``kv_tokens`` counts (``SequenceMemory.unit_bytes``)."""
        return self.sequence.unit_bytes

    def misfit(self, index: int, needed_tokens: int, block_tokens: int = 1) -> str | None:
        """Why the layout does not fit (one full-length sequence must, in blocks of so many tokens), or None."""
        if self.kv_tokens.flat[index] >= self.sequence.tokens_of(needed_tokens, block_tokens):
            return None
        parts = {
            "weights": self.weights_bytes,
            "activations": float(self.activation_bytes.flat[index]),
            "buffers": self.buffers_bytes,
            f"KV of {needed_tokens} tokens": float(self.sequence.bytes_of(needed_tokens, block_tokens)),
        }
        shown = " + ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if size)
        return f"{shown} GiB exceed the {self.available_bytes / GIB:.2f} GiB that a device has for them"


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
    held = sequence_memory(model, layout, element_bytes)
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
    tokens = np.maximum(left, 0) / held.unit_bytes
    return MemoryEstimate(available, weights, activations, buffers, graphs, held, tokens)
