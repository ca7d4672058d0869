"""Time of attention that reads whole blocks of keys which an indexer chose (MiniMax-M3, "MSA").

    prompt:  t = floor + index + ||chosen keys' bytes, products||_3 + norm and caches + queries x choosing
    decode:  t = floor + index keys' bytes + chosen keys' bytes + sequences x choosing

The index scores every visible key: 2 x index_dim FLOP per pair and index head, of which there are as many as KV heads;
in decode it reads one index key per token, in bf16. Of ``blocks`` blocks per query and KV head all keys are read, by
each query anew: vLLM's Triton kernel (``_gqa_sparse_fwd_kernel``) gives a program one query and the heads of one group,
so keys come from the L2 cache; the kernel on Blackwell (``fmha_sm100``) turns the choice round, and its products count.
Sources: vLLM 0.29, ``models/minimax_m3/nvidia/model.py``, ``models/minimax_m3/common/ops/``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.compressed_fits import BlockSparseFit
from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.elementwise import elementwise_ms
from tuner.cost.compute.kinds import (
    MS_PER_NS,
    MS_PER_S,
    MS_PER_US,
    Array,
    Precision,
    Terms,
    cached_bandwidth,
    fit_for,
    precision,
    smooth_max,
)
from tuner.cost.compute.visible import visible_keys

_INDEX_BYTES = 2  # of an index key's element, whatever the precision of the cache
_ASSUMED = BlockSparseFit()  # of devices on which nothing was measured
_WARM_SHARE = 0.7  # of the L2 cache that a KV cache read again keeps


def block_sparse_prefill_terms(
    profile: HardwareProfile,
    *,
    new_tokens: ArrayLike,
    context_tokens: ArrayLike = 0,
    batch: ArrayLike = 1,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    index_dim: ArrayLike = 128,
    block_tokens: int = 128,
    blocks: int = 16,
    kv_dtype: str = "auto",
) -> Terms:
    """Terms of one layer's attention over new tokens on one device, without projections; broadcasts over all numbers.

    Each of ``batch`` sequences brings ``new_tokens`` queries after ``context_tokens`` cached ones. ``heads`` and
    ``kv_heads`` are those of this device. The norms of queries and keys, rotation, the writes into both caches and the
    indexer are inside.
    """
    kind = precision(profile, kv_dtype)
    fit = _fit(profile, kind)
    new, past, b, h, kv, dim, index = (
        np.asarray(x, dtype=float) for x in (new_tokens, context_tokens, batch, heads, kv_heads, head_dim, index_dim)
    )
    peak = profile.peak_flops_per_s["bf16"]
    seen = b * visible_keys(past, new, np.inf)
    chosen = b * visible_keys(past, new, float(blocks * block_tokens), more=block_tokens / 2)
    indexed = 2 * index * kv * seen / (peak * fit.index_efficiency) * MS_PER_S
    products = 4 * dim * h * chosen / (peak * fit.compute_efficiency) * MS_PER_S
    gathered = 2 * dim * kind.weight_bytes * kv * chosen
    rate = profile.memory_bytes_per_s * fit.gather_efficiency if fit.gather_efficiency else np.inf
    memory = gathered / rate * MS_PER_S
    moved = 4 * b * new * ((h + 2 * kv) * dim + (kv + 1) * index)
    small = elementwise_ms(profile, moved, kernels=0) + b * new * kv * fit.query_ns * MS_PER_NS
    overhead = indexed + small + fit.prefill_floor_us * MS_PER_US
    return Terms(np.asarray(products), np.asarray(memory), overhead, smooth_max(memory, products) + overhead)


def block_sparse_decode_terms(
    profile: HardwareProfile,
    *,
    batch: ArrayLike,
    context_tokens: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    index_dim: ArrayLike = 128,
    block_tokens: int = 128,
    blocks: int = 16,
    kv_dtype: str = "auto",
    warm: bool = False,
) -> Terms:
    """Terms of one layer's attention for one new token per sequence, without projections; broadcasts over all numbers.

    ``context_tokens`` are the keys in the cache, the new one included. ``heads`` are those of this device: the heads of
    a group cost what one does. ``warm``: the same cache was read just before.
    """
    kind = precision(profile, kv_dtype)
    fit = _fit(profile, kind)
    b, context, h, kv, dim, index = (
        np.asarray(x, dtype=float) for x in (batch, context_tokens, heads, kv_heads, head_dim, index_dim)
    )
    used = np.ceil(context / block_tokens)
    scanned = b * used * block_tokens * index * _INDEX_BYTES
    chosen = b * kv * np.minimum(used, blocks) * block_tokens * 2 * dim * kind.weight_bytes
    bandwidth: float | Array = profile.memory_bytes_per_s
    if warm and fit.cache_gain:
        bandwidth = cached_bandwidth(float(bandwidth), scanned + chosen, profile.l2_bytes, _WARM_SHARE, fit.cache_gain)
    memory = (scanned / fit.scan_efficiency + chosen / fit.decode_efficiency) / bandwidth * MS_PER_S
    moved = 4 * b * ((h + 2 * kv) * dim + (kv + 1) * index)
    small = elementwise_ms(profile, moved, kernels=0) + b * kv * fit.decode_query_ns * MS_PER_NS
    overhead = np.asarray(small + fit.decode_floor_us * MS_PER_US)
    return Terms(np.zeros_like(memory), np.asarray(memory), overhead, np.asarray(memory + overhead))


def _fit(profile: HardwareProfile, kind: Precision) -> BlockSparseFit:
    return fit_for(profile.block_sparse, kind, "block_sparse") if profile.block_sparse else _ASSUMED
