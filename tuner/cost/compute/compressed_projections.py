"""Time of the matrix products around attention over a compressed cache (DeepSeek-V4), of one layer on one device.

Queries come up from a low rank and outputs go down to one, in groups of heads; the down projection, the compressor and
the indexer are whole on every rank (vLLM 0.29, ``models/deepseek_v4/attention.py``: ``fused_wqa_wkv``, ``wq_b``,
``wo_a``, ``wo_b``, ``compressor.fused_wkv_wgate``, ``indexer.wq_b``, ``indexer.weights_proj``). What is not quantised
is in bf16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.compressed import INDEXED, WINDOW_ONLY
from tuner.cost.compute.gemm import gemm_ms, quantise_ms
from tuner.cost.compute.kinds import Array


def compressed_projections_ms(
    profile: HardwareProfile,
    dtype: str,
    tokens: ArrayLike,
    *,
    hidden: int,
    heads: ArrayLike,
    ratio: int,
    query_rank: int,
    output_rank: int = 1024,
    output_groups: ArrayLike,
    head_dim: int = 512,
    index_heads: int = 64,
    index_dim: int = 128,
    warm: bool = False,
) -> Array:
    """Milliseconds of all products of a layer's attention, quantising included; broadcasts over arrays.

    ``heads`` and ``output_groups`` are those of this device. ``warm``: the same layer ran just before.
    """
    m, h, groups = (np.asarray(x, dtype=float) for x in (tokens, heads, output_groups))

    def product(n: ArrayLike, k: ArrayLike) -> Array:
        return gemm_ms(profile, dtype, m, n, k, warm=warm) + quantise_ms(profile, dtype, m * k)

    def plain(n: float) -> Array:
        return gemm_ms(profile, "bf16", m, n, hidden, warm=warm)

    found = product(query_rank + head_dim, hidden) + product(h * head_dim, query_rank)
    found = found + gemm_ms(profile, dtype, m, groups * output_rank, h * head_dim / groups, warm=warm)
    found = found + product(hidden, groups * output_rank)
    if ratio != WINDOW_ONLY:
        found = found + plain((4.0 if ratio == INDEXED else 2.0) * head_dim)
    if ratio == INDEXED:
        found = found + plain(index_heads) + plain(4.0 * index_dim) + product(index_heads * index_dim, query_rank)
    return np.asarray(found)
