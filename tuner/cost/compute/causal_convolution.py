"""Time of a short depth-wise causal convolution: over prompts, and its update for the next tokens.

Over prompts (vLLM's Triton kernel, ``model_executor/layers/mamba/ops/causal_conv1d.py``: 8 tokens of 256 channels a
program):

    t = calls x (floor + tokens of a program x time per token + ||programs x time / multiprocessors, bytes||_3 + host)

The next tokens read and write the state, ``(kernel - 1) x channels``: bytes above a floor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.kinds import MS_PER_S, MS_PER_US, Array, Terms, cached_bandwidth, smooth_max

_TOKENS, _CHANNELS = 8, 256  # of one program
_BLOCK_TOKENS, _VECTOR = 512, 8  # of one block's step, and of one load
_WIDTH = 2.0  # bytes of an activation
_TOKEN_US = 0.22  # of one program's tokens, one after the other
_IDLE_US = 0.18  # of a multiprocessor, to start and end a program
_IDLE_LAUNCH_US = 0.9  # where all programs return at once, in a CUDA graph
_HOST_SEQUENCE_US, _HOST_CHUNK_NS = 0.9, 43.0  # the host's loops over sequences and their programs
_STEP, _RAGGED = 0.6, 1.3  # of a block's first step: a further one, and one with single loads
_WARM_SHARE = 0.7  # of the L2 cache that a tensor read again keeps


def convolution_terms(
    profile: HardwareProfile,
    *,
    new_tokens: ArrayLike,
    sequences: ArrayLike = 1,
    channels: ArrayLike,
    conv_kernel: ArrayLike = 4,
    calls: int = 1,
    prepared: bool = True,
    idle_sequences: ArrayLike = 0,
    warm: bool = False,
) -> Terms:
    """Terms of the convolution of ``sequences`` prompts of ``new_tokens`` each; broadcasts over all numbers.

    ``channels`` are those of one of ``calls`` launches. ``prepared``: the step's layout lies on the device already, as
    in serving; a call by itself builds it on the host. ``idle_sequences`` have no state to write and are skipped;
    ``warm``: the same tensors were read just before.
    """
    fit = profile.linear_attention.convolution
    new, b, width, kernel, idle = (
        np.asarray(x, dtype=float) for x in (new_tokens, sequences, channels, conv_kernel, idle_sequences)
    )
    chunks = np.ceil(new / _TOKENS)
    spent = _IDLE_US * b * chunks + fit.program_us * (b - idle) * new / _TOKENS
    compute = spent * np.ceil(width / _CHANNELS) / profile.sm_count * MS_PER_US
    moved = (b - idle) * width * _WIDTH * (2 * new + 2 * (kernel - 1))
    memory = stream_ms(profile, moved, fit.memory_efficiency, fit.cache_gain if warm else 0.0)
    overhead = np.where(b > idle, fit.floor_us + _TOKEN_US * np.minimum(new, _TOKENS), _IDLE_LAUNCH_US)
    if not prepared:
        overhead = overhead + fit.host_us + _HOST_SEQUENCE_US * b + _HOST_CHUNK_NS * b * chunks / 1e3
    overhead = np.asarray(overhead * MS_PER_US)
    return _terms(calls * compute, calls * memory, calls * overhead)


def convolution_update_terms(
    profile: HardwareProfile,
    *,
    sequences: ArrayLike,
    channels: ArrayLike,
    conv_kernel: ArrayLike = 4,
    new_tokens: ArrayLike = 1,
    warm: bool = False,
    alone: bool = False,
) -> Terms:
    """Terms of the convolution of the next ``new_tokens`` (1 without speculation) of every sequence.

    ``alone``: launched by itself, not in a CUDA graph.
    """
    fit = profile.linear_attention.convolution_update
    b, width, kernel, new = (np.asarray(x, dtype=float) for x in (sequences, channels, conv_kernel, new_tokens))
    moved = b * width * _WIDTH * (2 * new + 2 * (kernel - 1))
    memory = stream_ms(profile, moved, fit.memory_efficiency, fit.cache_gain if warm else 0.0, moved / 2)
    overhead = np.asarray((fit.floor_us + fit.alone_us * alone) * MS_PER_US)
    return _terms(np.zeros_like(memory), memory, overhead)


def channel_convolution_terms(
    profile: HardwareProfile,
    *,
    new_tokens: ArrayLike,
    sequences: ArrayLike = 1,
    channels: ArrayLike,
    warm: bool = False,
) -> Terms:
    """The same over prompts with a block per sequence and channel (Dao's ``causal-conv1d``, as in TensorRT-LLM)."""
    fit = profile.linear_attention.channel_convolution
    new, b, width = (np.asarray(x, dtype=float) for x in (new_tokens, sequences, channels))
    block_us = fit.block_us * (1 + _STEP * (np.ceil(new / _BLOCK_TOKENS) - 1))
    block_us = block_us * np.where(new % _VECTOR == 0, 1.0, _RAGGED)
    compute = b * width * block_us / profile.sm_count * MS_PER_US
    moved = b * width * new * 2 * _WIDTH
    memory = stream_ms(profile, moved, fit.memory_efficiency, fit.cache_gain if warm else 0.0, moved / 2)  # in place
    return _terms(compute, memory, np.asarray(fit.floor_us * MS_PER_US))


def stream_ms(
    profile: HardwareProfile, moved: Array, efficiency: float, gain: float, kept: Array | None = None
) -> Array:
    """Milliseconds to move bytes at a share of the bandwidth, up to 1 + ``gain`` times faster where ``kept`` bytes of
    them (all, where None) find room in the L2 cache."""
    bandwidth: float | Array = profile.memory_bytes_per_s * efficiency
    if gain:
        bandwidth = cached_bandwidth(
            float(bandwidth), moved if kept is None else kept, profile.l2_bytes, _WARM_SHARE, gain
        )
    return np.asarray(moved / bandwidth * MS_PER_S)


def _terms(compute: Array, memory: Array, overhead: Array) -> Terms:
    compute, memory, overhead = (np.asarray(x) for x in (compute, memory, overhead))
    return Terms(compute, memory, overhead, np.asarray(smooth_max(compute, memory) + overhead))
