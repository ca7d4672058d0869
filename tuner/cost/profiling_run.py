"""What vLLM's profiling run finds beside weights: buffers that stay, and the peak of a step of dummy tokens.

Before the cache is laid out the engine computes one step of ``max_num_batched_tokens`` tokens and samples for
``max_num_seqs`` of them; what it held at the peak is kept free for ever (vLLM 0.29 ``gpu_worker.py``,
``determine_available_memory``; ``utils/mem_utils.py``, ``memory_profiling``). Layers come one after the other and the
sampler after them, so the peak is that of the largest of them, not their sum. Scope: one rank; bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Mixer
from tuner.ask.models.latent import LatentAttention
from tuner.ask.models.matrices import Cut, Matrix

Floats = NDArray[np.float64]
Release = tuple[int, int]

GIB = 2**30
_CONTEXT_TOKENS = 65536  # of latent context that a prefill chunk projects up at once, at most


@dataclass(frozen=True, slots=True)
class ReleaseMemory:
    """What changed between releases: bytes per logit (sequence times vocabulary) that stay and that the sampler holds
    at its peak beside bf16 ones, whether the experts' workspaces stay, bytes of the process outside PyTorch that count
    against its share, and whether captured CUDA graphs do."""

    logit_kept: float
    logit_peak: float
    keeps_workspace: bool
    runtime_bytes: float
    counts_graphs: bool


# Since 0.26 the second model runner counts every token of every sequence for the penalties (int32, and a bit per token
# of the prompt) and samples from bf16 logits (``v1/worker/gpu/sample``). The first one took float32 logits, their
# probabilities and random numbers; before 0.18 it sorted them too: values, int64 indices, and in PyTorch's segmented
# sort another set of indices and radix sort's double buffers. The CUDA context and NCCL's buffers are there before the
# first snapshot since 0.11; what kernels load later was 0.11 GiB on an A100. CUDA graphs are reserved since 0.21.
_RELEASES: tuple[tuple[Release, ReleaseMemory], ...] = (
    ((0, 26), ReleaseMemory(4.125, 0.0, True, 0.11 * GIB, True)),
    ((0, 21), ReleaseMemory(0.0, 16.0, True, 0.11 * GIB, True)),
    ((0, 18), ReleaseMemory(0.0, 16.0, True, 0.11 * GIB, False)),
    ((0, 14), ReleaseMemory(0.0, 36.0, True, 0.11 * GIB, False)),
    ((0, 11), ReleaseMemory(0.0, 36.0, False, 0.11 * GIB, False)),
    ((0, 0), ReleaseMemory(0.0, 36.0, False, 0.6 * GIB, False)),
)


def release_memory(vllm_version: str | None) -> ReleaseMemory:
    """The entry of a release such as ``0.19``; the newest where none is given."""
    if vllm_version is None:
        return _RELEASES[0][1]
    major, minor = (int(part) for part in vllm_version.split(".")[:2])
    return next(found for since, found in _RELEASES if (major, minor) >= since)


def profiled_bytes(
    model: ModelShape, layout: ParallelLayout, batched_tokens: Floats, seqs: Floats, release: ReleaseMemory
) -> Floats:
    """Bytes of one rank that neither weights nor cache can have: what stays, and the peak of the profiled step."""
    tokens = batched_tokens / layout.pcp
    logits = np.minimum(seqs, batched_tokens) * model.padded_vocab
    workspace = _expert_workspace(model, layout, tokens)
    kept = seqs * model.padded_vocab * release.logit_kept + release.keeps_workspace * workspace
    layer = _layer_peak(model, layout, tokens) + (not release.keeps_workspace) * workspace
    bf16 = model.element_bytes * (1 + 1 / layout.tp if layout.tp > 1 else 1)  # its own share, and all gathered
    sampler = logits * (bf16 + release.logit_peak) + tokens * model.hidden * model.element_bytes
    return np.asarray(kept + np.maximum(layer, sampler))


def _layer_peak(model: ModelShape, layout: ParallelLayout, tokens: Floats) -> Floats:
    """The widest moment of a layer: residual and input beside what its kernels read and write."""
    peak: Floats = np.zeros(1)
    for block in model.kinds:
        row = 2 * model.hidden * model.element_bytes * block.streams
        widths, context = _mixer_width(block.mixer, model, layout.tp)
        mixer = tokens * (row + widths * model.element_bytes) + context
        mlp = tokens * (row + _mlp_width(block, model, layout.tp) * model.element_bytes)
        peak = np.maximum(peak, np.maximum(mixer, mlp))
    return np.asarray(peak)


def _mixer_width(mixer: Mixer | None, model: ModelShape, t: int) -> tuple[float, float]:
    """Elements per token, and bytes beside them, of the projections on both sides of what mixes tokens."""
    if isinstance(mixer, LatentAttention) and not mixer.expanded:
        heads = mixer.heads / t
        width = heads * (2 * mixer.qk_nope + mixer.qk_rope + 2 * mixer.v_head) + mixer.kv_rank
        return width, _CONTEXT_TOKENS * heads * (mixer.qk_nope + mixer.v_head) * model.element_bytes
    if isinstance(mixer, Attention):
        heads, kv_heads = mixer.heads / t, max(1.0, mixer.kv_heads / t)
        return (2 * heads + 2 * kv_heads) * mixer.head_dim + mixer.gated * heads * mixer.head_dim, 0.0
    if mixer is None:
        return 0.0, 0.0
    return sum(side for matrix in mixer.matrices(model.hidden) for side in _own_sides(matrix, t)), 0.0


def _own_sides(matrix: Matrix, t: int) -> tuple[int, ...]:
    """Rows that a projection of a mixer writes or reads beside the residual."""
    outputs, inputs = matrix.shard(t)
    return (inputs,) if matrix.cut is Cut.INPUTS else (outputs,)


def _mlp_width(block: Block, model: ModelShape, t: int) -> float:
    """Elements per token of gate and up, and their product; of experts the input in bytes, float32 router logits, and
    the shared expert."""
    widths = [0.0]
    if block.mlp is not None:
        widths.append(3 * block.mlp.inter / (1 if block.mlp.whole else t))
    if block.experts is not None:
        widths.append(model.hidden / 2 + 2 * block.experts.count + 3 * block.experts.shared_inter / t)
    return max(widths)


def _expert_workspace(model: ModelShape, layout: ParallelLayout, tokens: Floats) -> Floats:
    """Two workspaces of a row per routed token, shared by all layers: the first for the input or output of an expert,
    the second for gate and up or the output (``workspace_shapes`` of ``fused_moe/experts/triton_moe.py`` and
    ``marlin_moe.py``). Replicas that share experts gather the tokens of all, unless kernels send them where they go."""
    experts = model.experts
    if experts is None:
        return np.zeros(1)
    shard = experts.inter if layout.ep else experts.padded(layout.tp) / layout.tp
    gathered = tokens * (layout.dp if layout.ep and layout.all2all == "allgather_reducescatter" else 1)
    width = experts.width or model.hidden
    row = max(shard, width) + max(2 * shard, width)
    return np.asarray(gathered * experts.topk * row * model.element_bytes)
