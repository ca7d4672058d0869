"""Time of attention over a prompt: tiles of queries against tiles of keys, exponentials, and the cache write.

    t = floor + ||q, k, v, o bytes, pairs x time per pair||_3 + longest tile + waves x tile overhead + cache write

Time per pair is the 2-norm of its multiplications (4 x head_dim) and its exponential: with heads of 64 the
exponential units are the bottleneck (FlashAttention-3, Shah et al. 2407.08608, section 3.2). FlashAttention-3 packs
the queries that share a KV head into one tile, FlashAttention-2 and the TensorRT-LLM kernels do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.kernel_fits import PrefillAttentionFit
from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.kinds import (
    MS_PER_NS,
    MS_PER_S,
    MS_PER_US,
    Array,
    Terms,
    fit_for,
    precision,
    smooth_max,
)

_RECTANGLE_TAIL = 0.5  # of the longest tile: with a long context all tiles are alike and the last wave is half full


@dataclass(frozen=True, slots=True)
class _Kernel:
    """Query rows and keys per tile, and whether the heads of a group share a query tile."""

    query_rows: int
    keys: int
    packs_group: bool


_KERNELS = {
    "flash_attn_2": _Kernel(64, 64, False),
    "flash_attn_2_ada": _Kernel(64, 32, False),
    "flash_attn_3": _Kernel(128, 64, True),
    "trtllm": _Kernel(128, 128, False),
    "flashinfer": _Kernel(64, 64, False),
    "untiled": _Kernel(1, 1, False),
}


def prefill_attention_terms(
    profile: HardwareProfile,
    *,
    new_tokens: ArrayLike,
    context_tokens: ArrayLike = 0,
    batch: ArrayLike = 1,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    value_dim: ArrayLike | None = None,
    window: ArrayLike | None = None,
    kv_dtype: str = "auto",
    fit: PrefillAttentionFit | None = None,
) -> Terms:
    """Terms of one layer's causal attention on one device; broadcasts over all numbers.

    Each of ``batch`` sequences brings ``new_tokens`` queries, which see ``context_tokens`` keys of the cache and each
    other; ``window`` (keys per query, None or 0: all) caps that. ``heads`` and ``kv_heads`` are those of this device,
    ``value_dim`` is the width of a value where it differs from ``head_dim`` (MLA: 128 against 192).
    """
    kind = precision(profile, kv_dtype)
    fit = fit or fit_for(profile.attention_prefill, kind, "attention_prefill")
    new, past, b, h, kv, dim = (
        np.asarray(x, dtype=float) for x in (new_tokens, context_tokens, batch, heads, kv_heads, head_dim)
    )
    vdim = dim if value_dim is None else np.asarray(value_dim, dtype=float)
    reach = _reach(window, past + new)
    kernel = _KERNELS[fit.kernel]
    group = h / kv
    packed = group if kernel.packs_group else np.where(new == 1, group, 1.0)
    keys, longest, tiles = _keys_per_row(kernel, new, past, reach, packed)
    sms = float(profile.sm_count)
    pair_ms = _pair_ms(profile, fit, dim, vdim)
    rows = kernel.query_rows
    # Of the longest tile's keys, those of the cache are shared evenly among the SMs, the others are a triangle's.
    cache = np.minimum(past, longest)
    tail = fit.tail * (longest - cache) + _RECTANGLE_TAIL * cache
    compute = b * h / packed * rows * keys * pair_ms + tail * rows * pair_ms * sms
    q_and_o = b * new * h * (dim + vdim) * 2
    cached = b * np.minimum(past + new, reach + new) * kv * (dim + vdim) * kind.weight_bytes
    memory = (q_and_o + cached) / (profile.memory_bytes_per_s * fit.memory_efficiency) * MS_PER_S
    waves = np.maximum(b * h / packed * tiles / sms, 1.0)
    scale = 1 + fit.wide_head_penalty * (dim > 128)
    small = waves * fit.wave_us * MS_PER_US + fit.cache_write_ns * MS_PER_NS * b * new * kv
    overhead = fit.floor_us * MS_PER_US + small * scale
    total = smooth_max(memory * scale, compute * scale) + overhead
    return Terms(np.asarray(compute * scale), np.asarray(memory * scale), np.asarray(overhead), np.asarray(total))


def prefill_attention_ms(
    profile: HardwareProfile,
    *,
    new_tokens: ArrayLike,
    context_tokens: ArrayLike = 0,
    batch: ArrayLike = 1,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    value_dim: ArrayLike | None = None,
    window: ArrayLike | None = None,
    kv_dtype: str = "auto",
) -> Array:
    """Milliseconds of one layer's attention over new tokens; see ``prefill_attention_terms``."""
    return prefill_attention_terms(
        profile, new_tokens=new_tokens, context_tokens=context_tokens, batch=batch, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, value_dim=value_dim, window=window, kv_dtype=kv_dtype,
    ).total_ms  # fmt: skip


def quantises_output(profile: HardwareProfile) -> bool:
    """True where attention over an fp8 cache can write its output in the precision of the projection after it.

    Of the kernels on NVIDIA GPUs those of trtllm alone do (vLLM 0.29, ``fused_output_quant_supported`` in
    ``v1/attention/backends/flashinfer.py``).
    """
    fit = profile.attention_prefill.get("fp8")
    return fit is not None and fit.kernel == "trtllm"


def _reach(window: ArrayLike | None, available: Array) -> Array:
    """Keys that a query can see: the window, or all that there are."""
    if window is None:
        return available
    limit = np.asarray(window, dtype=float)
    return np.asarray(np.minimum(np.where(limit > 0, limit, np.inf), available))


def _keys_per_row(kernel: _Kernel, new: Array, past: Array, reach: Array, packed: Array) -> tuple[Array, Array, Array]:
    """Keys that the query tiles of one (packed) head visit in all, keys of the longest tile, and number of tiles.

    Tile j ends at token (j + 1) x q of the new ones and visits min(past + (j + 1) q, reach + q) keys, rounded up by
    half a key tile on average, by a whole one where a window cuts both ends.
    """
    q = kernel.query_rows / packed
    tiles = np.ceil(new / q)
    growing = np.clip(np.ceil((reach - past) / q), 0.0, tiles)
    visited = growing * past + q * growing * (growing + 1) / 2 + (tiles - growing) * (reach + q)
    visited = visited + tiles * kernel.keys * np.where(reach < past + new, 1.0, 0.5)
    visited = np.minimum(visited, tiles * np.ceil((past + new) / kernel.keys) * kernel.keys)
    return visited, np.minimum(reach + q, past + new + kernel.keys), tiles


def _pair_ms(profile: HardwareProfile, fit: PrefillAttentionFit, dim: Array, vdim: Array) -> Array:
    """Milliseconds per query-key pair on the whole device."""
    peak = profile.peak_flops_per_s["bf16"]
    products = 2 * (dim + vdim) / (peak * fit.compute_efficiency)
    return np.asarray(np.hypot(products, fit.exp_cost / peak) * MS_PER_S)
