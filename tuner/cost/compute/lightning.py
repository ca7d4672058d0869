"""Time of lightning attention of one layer (arXiv 2401.04658), without its projections: a matrix per head that decays.

No table of its kernels exists: priced by physics, FLOPs and bytes counted in vLLM 0.29's Triton kernels
(``layers/lightning_attn.py``: within blocks of 256 tokens, a matrix of each block, sums of those, what they add).
With heads of d and blocks of q tokens:

    FLOPs = tokens x heads x (2 q d + 4 d^2)
    bytes = tokens x heads x 8 d x 2 + blocks x heads x 4 d^2 x 4
    t = floors + ||FLOPs, bytes||_3

Decode reads and writes every head's matrix once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.delta_rule import recurrent_terms
from tuner.cost.compute.kinds import MS_PER_S, MS_PER_US, Terms, smooth_max, sum_terms
from tuner.cost.compute.linear_attention import WIDTH, Phase, cached_states_terms, floats, small_terms

_BLOCK = 256  # tokens
_KERNELS = 4
_ROWS_MOVED = 8  # queries, keys and values in, keys and values again, queries again, outputs in and out
_MATRICES_MOVED = 4  # of a block: out, in and out as they are added up, in
_FLOAT32 = 4.0
_TRITON_SHARE = 0.3  # of the bf16 peak: assumed, as of the scans (``state_space``)


def lightning_terms(
    profile: HardwareProfile,
    phase: Phase,
    *,
    new_tokens: ArrayLike = 1,
    sequences: ArrayLike = 1,
    heads: ArrayLike,
    head_dim: ArrayLike,
    state_bytes: float = 2.0,
) -> Terms:
    """Terms of ``new_tokens`` per sequence, of one rank's heads; ``state_bytes`` is the width of a cached value."""
    new, b, h, d = floats(new_tokens, sequences, heads, head_dim)
    rows, matrix = b * new * h * d, b * h * d * d
    norm = small_terms(profile, 3 * rows * WIDTH)
    if phase == "decode":
        return sum_terms(recurrent_terms(profile, matrix * state_bytes * (1 + new) + 4 * rows * WIDTH, new), norm)
    flops = rows * (2 * np.minimum(new, _BLOCK) + 4 * d)
    compute = np.asarray(flops / (profile.peak_flops_per_s["bf16"] * _TRITON_SHARE) * MS_PER_S)
    moved = _ROWS_MOVED * rows * WIDTH + np.ceil(new / _BLOCK) * matrix * _MATRICES_MOVED * _FLOAT32
    share = profile.linear_attention.gdn_chunk.memory_efficiency
    memory = np.asarray(moved / (profile.memory_bytes_per_s * share) * MS_PER_S)
    overhead = np.asarray(_KERNELS * profile.elementwise.floor_us * MS_PER_US)
    scan = Terms(compute, memory, overhead, np.asarray(smooth_max(compute, memory) + overhead))
    return sum_terms(scan, cached_states_terms(profile, matrix, state_bytes), norm)
