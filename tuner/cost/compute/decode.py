"""Time of attention for one new token per sequence: one work unit per sequence and KV head, split over keys.

    t = floor + ||KV bytes, waves x (unit overhead + keys x time per key)||_3 + merge of splits + window + head rows

FlashAttention-2 neither packs the heads of a group nor splits the keys when there is a window, nor when every head has
its own KV head; its packed path copies the output when a batch of several sequences has several KV heads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.kernel_fits import DecodeAttentionFit
from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.kinds import (
    MS_PER_NS,
    MS_PER_S,
    MS_PER_US,
    Array,
    Terms,
    cached_bandwidth,
    fit_for,
    precision,
    smooth_max,
)

_KEY_TILE = 128
_PAGE = 16  # tokens per KV-cache block, vLLM's default
_ROWS_PER_TILE = 64  # heads of one group that a work unit serves at once
_WARM_SHARE = 0.7  # of the L2 cache that a KV cache read again keeps


def decode_attention_terms(
    profile: HardwareProfile,
    *,
    batch: ArrayLike,
    context_tokens: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    value_dim: ArrayLike | None = None,
    window: ArrayLike | None = None,
    kv_dtype: str = "auto",
    warm: bool = False,
) -> Terms:
    """Terms of one layer's decode attention on one device; broadcasts over all numbers.

    ``context_tokens`` are the keys in the cache, the new one included; ``window`` (None or 0: none) caps them.
    A ``value_dim`` below ``head_dim`` means a compressed cache (MLA: 512 of 576 per token, one KV head): the values
    are part of the keys and no bytes of their own. ``warm``: the same cache was read just before.
    """
    kind = precision(profile, kv_dtype)
    fit = fit_for(profile.attention_decode, kind, "attention_decode")
    b, context, h, kv, dim = (np.asarray(x, dtype=float) for x in (batch, context_tokens, heads, kv_heads, head_dim))
    vdim = dim if value_dim is None else np.asarray(value_dim, dtype=float)
    limit = np.inf if window is None else np.where(np.asarray(window) > 0, np.asarray(window, dtype=float), np.inf)
    cut, keys = context > limit, np.minimum(context, limit)
    row_bytes = np.where(vdim < dim, dim, dim + vdim) * kind.weight_bytes
    moved = b * kv * np.ceil(keys / _PAGE) * _PAGE * row_bytes
    bandwidth: float | Array = profile.memory_bytes_per_s * fit.memory_efficiency
    if warm and fit.cache_gain:
        bandwidth = cached_bandwidth(float(bandwidth), moved, profile.l2_bytes, _WARM_SHARE, fit.cache_gain)
    memory = moved / bandwidth * MS_PER_S
    packed = (h > kv) & np.isinf(limit) if fit.kernel == "flash_attn_2" else np.asarray(True)
    compute, split = _units_ms(
        profile, fit, b, h, kv, (dim + vdim) / 256, (np.ceil(keys / _KEY_TILE) + cut) * _KEY_TILE, packed
    )
    overhead = fit.floor_us + fit.merge_us * (split > 1) + fit.window_us * cut
    if fit.kernel == "flash_attn_2":
        overhead = overhead + fit.copy_us * (packed & (b > 1) & (kv > 1))
    overhead = overhead * MS_PER_US + fit.head_ns * MS_PER_NS * b * h * vdim / 128
    total = smooth_max(memory, compute) + overhead
    return Terms(compute, np.asarray(memory), np.asarray(overhead), np.asarray(total))


def decode_attention_ms(
    profile: HardwareProfile,
    *,
    batch: ArrayLike,
    context_tokens: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    value_dim: ArrayLike | None = None,
    window: ArrayLike | None = None,
    kv_dtype: str = "auto",
    warm: bool = False,
) -> Array:
    """Milliseconds of one layer's attention for one new token per sequence; see ``decode_attention_terms``."""
    return decode_attention_terms(
        profile, batch=batch, context_tokens=context_tokens, heads=heads, kv_heads=kv_heads, head_dim=head_dim,
        value_dim=value_dim, window=window, kv_dtype=kv_dtype, warm=warm,
    ).total_ms  # fmt: skip


def _units_ms(
    profile: HardwareProfile,
    fit: DecodeAttentionFit,
    b: Array,
    h: Array,
    kv: Array,
    width: Array,
    keys: Array,
    packed: Array,
) -> tuple[Array, Array]:
    """Milliseconds of the work units over all multiprocessors, and into how many parts the keys are split.

    ``width`` is (key + value) / 256: 1 for heads of 128. A unit serves up to 64 heads of its group at once.
    """
    sms = float(profile.sm_count)
    units = np.where(packed, b * kv * np.ceil(h / kv / _ROWS_PER_TILE), b * h)
    most = np.where(packed, np.maximum(1.0, keys / (2 * _KEY_TILE)), 1.0)
    split = np.clip(sms / units, 1.0, most)
    unit_ms = fit.unit_us * MS_PER_US + fit.key_ns * MS_PER_NS * keys / split * width
    return np.asarray(np.maximum(units * split / sms, 1.0) * unit_ms), split
