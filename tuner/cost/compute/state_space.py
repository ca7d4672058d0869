"""Time of the mixer of one state-space layer, Mamba-2 or Mamba-1, without its projections.

No table of the scans exists: they are priced by physics, their FLOPs and bytes counted in vLLM 0.29's kernels, at the
shares of the peaks that the delta rule reaches on the device (``gdn_chunk`` and ``recurrent`` of the profile). The
convolution is the measured one of the delta nets.

Mamba-2 over prompts (SSD, Dao and Gu 2405.21060, section 6; five kernels, ``mamba/ops/ssd_combined.py``), with chunks
of q tokens, d channels, g groups and states of n:

    FLOPs = tokens x (2 q g n + q d + 4 d n)
    bytes = tokens x (3 d + 4 g n) x 2 + chunks x (2 x 4 g q^2 + d n x (2 x 4 + 2 x width of a state))
    t = floors + ||FLOPs, bytes||_3 + chunks of a sequence x passing on a state

Mamba-1 (one block per sequence and channel, ``csrc/mamba/mamba_ssm/selective_scan_fwd.cu``): an exponential and as
much again for the recurrence per token, channel and state value, beside the bytes of x, dt, z and the output. Decode
reads and writes every state once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.causal_convolution import convolution_terms, convolution_update_terms
from tuner.cost.compute.delta_rule import CHUNK_FLOPS, recurrent_terms
from tuner.cost.compute.kinds import MS_PER_S, MS_PER_US, Array, Terms, smooth_max, sum_terms
from tuner.cost.compute.linear_attention import WIDTH, Phase, cached_states_terms, floats, small_terms

_SSD_KERNELS = 5
_PASS_US = 0.6  # from one chunk's state to the next: a dependent load, a product and a store; assumed
_TRITON_SHARE = 0.3  # of the bf16 peak, where the delta rule runs in stages that do not tell theirs; assumed
_MOST_SHARE = 0.5  # Triton's products between masks and exponentials; assumed
_EXP_COST = 300.0  # of an exponential, in FLOPs at the bf16 peak, where attention does not tell it
_SCAN_COST = 2.0  # of a step of the selective scan, in exponentials


def mamba2_terms(
    profile: HardwareProfile,
    phase: Phase,
    *,
    new_tokens: ArrayLike = 1,
    sequences: ArrayLike = 1,
    heads: ArrayLike,
    head_dim: ArrayLike = 64,
    groups: ArrayLike = 1,
    state_size: ArrayLike = 128,
    conv_kernel: ArrayLike = 4,
    chunk_size: ArrayLike = 256,
    state_bytes: float = 2.0,
) -> Terms:
    """Terms of a Mamba-2 mixer with ``new_tokens`` per sequence; heads and groups are those of one rank.

    ``state_bytes`` is the width of a value of the cached state (``mamba_ssm_cache_dtype``). Broadcasts over numbers.
    """
    new, b, d, g, n, q = floats(new_tokens, sequences, np.multiply(heads, head_dim), groups, state_size, chunk_size)
    channels = d + 2 * g * n
    norm = small_terms(profile, 3 * b * new * d * WIDTH)
    if phase == "decode":
        moved = b * (d * n * state_bytes * (1 + new) + new * (3 * d + 2 * g * n) * WIDTH)
        return sum_terms(_decode_terms(profile, b, channels, conv_kernel, new, moved), norm)
    convolution = convolution_terms(
        profile, new_tokens=new, sequences=b, channels=channels, conv_kernel=conv_kernel, warm=True
    )
    scan = _ssd_terms(profile, new, b, d, g, n, q, state_bytes)
    return sum_terms(convolution, scan, cached_states_terms(profile, b * d * n, state_bytes), norm)


def mamba1_terms(
    profile: HardwareProfile,
    phase: Phase,
    *,
    new_tokens: ArrayLike = 1,
    sequences: ArrayLike = 1,
    inner: ArrayLike,
    state_size: ArrayLike = 16,
    conv_kernel: ArrayLike = 4,
    state_bytes: float = 2.0,
) -> Terms:
    """Terms of a Mamba-1 mixer (Mamba, Jamba): ``inner`` channels of one rank, each with its own state."""
    new, b, d, n = floats(new_tokens, sequences, inner, state_size)
    states = b * d * n * state_bytes
    if phase == "decode":
        moved = states * (1 + new) + b * new * (4 * d + 2 * n) * WIDTH
        return _decode_terms(profile, b, d, conv_kernel, new, moved)
    attention = profile.attention_prefill.get("bf16")
    exp_cost = (attention.exp_cost if attention is not None else 0.0) or _EXP_COST
    compute = b * new * d * n * _SCAN_COST * exp_cost / profile.peak_flops_per_s["bf16"] * MS_PER_S
    memory = _memory_ms(profile, b * new * (4 * d + 2 * n) * WIDTH + 2 * states)
    overhead = np.asarray(profile.elementwise.floor_us * MS_PER_US)
    scan = Terms(np.asarray(compute), memory, overhead, np.asarray(smooth_max(compute, memory) + overhead))
    convolution = convolution_terms(
        profile, new_tokens=new, sequences=b, channels=d, conv_kernel=conv_kernel, warm=True
    )
    return sum_terms(convolution, scan)


def _ssd_terms(
    profile: HardwareProfile, new: Array, b: Array, d: Array, g: Array, n: Array, q: Array, state_bytes: float
) -> Terms:
    length = np.ceil(new / q)
    chunks, rows = b * length, np.minimum(new, q)
    flops = b * new * (2 * rows * g * n + rows * d + 4 * d * n)
    compute = np.asarray(flops / (profile.peak_flops_per_s["bf16"] * _compute_share(profile)) * MS_PER_S)
    between = chunks * (2 * 4 * g * rows * rows + d * n * (2 * 4 + 2 * state_bytes))
    memory = _memory_ms(profile, b * new * (3 * d + 4 * g * n) * WIDTH + between)
    overhead = np.asarray((_SSD_KERNELS * profile.elementwise.floor_us + _PASS_US * length) * MS_PER_US)
    return Terms(compute, memory, overhead, np.asarray(smooth_max(compute, memory) + overhead))


def _compute_share(profile: HardwareProfile) -> float:
    """Share of the bf16 peak that the delta rule's chunks reach, where one kernel does all of them."""
    fit = profile.linear_attention.gdn_chunk
    if fit.kernel != "flashinfer" or not fit.chunk_us > 0:
        return _TRITON_SHARE
    reached = CHUNK_FLOPS * profile.sm_count / (fit.chunk_us / 1e6)
    return min(reached / profile.peak_flops_per_s["bf16"], _MOST_SHARE)


def _memory_ms(profile: HardwareProfile, moved: Array) -> Array:
    share = profile.linear_attention.gdn_chunk.memory_efficiency
    return np.asarray(moved / (profile.memory_bytes_per_s * share) * MS_PER_S)


def _decode_terms(
    profile: HardwareProfile, b: Array, channels: Array, kernel: ArrayLike, new: Array, moved: Array
) -> Terms:
    """The convolution's update and a recurrence that moves so many bytes."""
    update = convolution_update_terms(profile, sequences=b, channels=channels, conv_kernel=kernel, new_tokens=new)
    return sum_terms(update, recurrent_terms(profile, moved, new))
