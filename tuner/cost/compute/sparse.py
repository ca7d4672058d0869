"""Time of DeepSeek sparse attention (DeepSeek-V3.2): an indexer, a choice of keys, attention over the chosen.

    t = floor + scores of all queries with all their keys + choice + attention over at most top_k latents
        + tokens x (token + heads x head)

It runs on the compressed cache of latent attention, in prompts as well. The indexer multiplies in fp8 and grows with
the context; its scores are float32, written once and read twice by the choice. Layers that share the choice of another
one (GLM-5.2: ``index_topk_freq``) have no indexer: ``index_heads`` 0. Kernels of vLLM take fewer than 32 heads of a
device another way (vLLM 0.29, ``flashmla_sparse.py``, ``MIN_HEADS_FOR_BF16_PREFILL``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.latent_fits import SparseDecodeFit, SparsePrefillFit
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
from tuner.cost.compute.latent import units_ms

INDEX_SCALE_BYTES = 4  # of an index key: 8-bit values and one float32
_FEW_HEADS = 32
_SCORE_BYTES = 12  # float32, written once and read twice
_ROWS_PER_UNIT = 64  # heads that a work unit of decode serves at once
# What no table of this device tells: rounded figures of those that have one.
_UNMEASURED_PREFILL = SparsePrefillFit(100.0, 0.5, 0.4, 0.3, filler=0.3, few_filler=0.3, token_ns=100.0, head_ns=1.0)
_UNMEASURED_DECODE = SparseDecodeFit(
    100.0, 0.8, 1.0, 6.0, 6.0, 0.7, 0.1, filler=0.3, few_filler=0.3, long_us=10.0, token_ns=200.0, head_ns=1.0
)


def sparse_prefill_terms(
    profile: HardwareProfile,
    *,
    new_tokens: ArrayLike,
    context_tokens: ArrayLike = 0,
    batch: ArrayLike = 1,
    heads: ArrayLike,
    kv_rank: ArrayLike,
    qk_rope: ArrayLike,
    index_heads: ArrayLike,
    index_dim: ArrayLike = 128,
    top_k: ArrayLike = 2048,
    kv_dtype: str = "auto",
) -> Terms:
    """Terms of one layer's sparse attention over new tokens on one device; broadcasts over all numbers.

    Each of ``batch`` sequences brings ``new_tokens`` queries after ``context_tokens`` cached ones. ``index_heads`` 0:
    the layer takes over another one's choice.
    """
    fit = _prefill_fit(profile, kv_dtype)
    new, past, b, h, rank, rope, ih, idim, top = (
        np.asarray(x, dtype=float)
        for x in (new_tokens, context_tokens, batch, heads, kv_rank, qk_rope, index_heads, index_dim, top_k)
    )
    tokens, few = b * new, h < _FEW_HEADS
    filler = np.where(few, fit.few_filler, fit.filler)
    keys = filler * top + (1 - filler) * _chosen(new, past, top)
    rows = np.where(few, np.ceil(h / _ROWS_PER_UNIT) * _ROWS_PER_UNIT, np.ceil(h / fit.head_rows) * fit.head_rows)
    peak = profile.peak_flops_per_s["bf16"] * np.where(few, fit.few_efficiency, fit.compute_efficiency)
    attention = tokens * rows * keys * 2 * (2 * rank + rope) / peak * MS_PER_S
    pairs = tokens * (past + (new + 1) / 2)
    scores = 2 * pairs * ih * idim / (_index_peak(profile) * fit.index_efficiency) * MS_PER_S
    memory = pairs * (ih > 0) * _SCORE_BYTES / profile.memory_bytes_per_s * MS_PER_S
    overhead = fit.floor_us * MS_PER_US + tokens * (fit.token_ns + h * fit.head_ns) * MS_PER_NS
    compute = attention + scores  # kernels of their own, one after the other
    return Terms(np.asarray(compute), np.asarray(memory), np.asarray(overhead), np.asarray(compute + memory + overhead))


def sparse_decode_terms(
    profile: HardwareProfile,
    *,
    batch: ArrayLike,
    context_tokens: ArrayLike,
    heads: ArrayLike,
    kv_rank: ArrayLike,
    qk_rope: ArrayLike,
    index_heads: ArrayLike,
    index_dim: ArrayLike = 128,
    top_k: ArrayLike = 2048,
    kv_dtype: str = "auto",
) -> Terms:
    """Terms of one layer's sparse attention for one new token per sequence; broadcasts over all numbers.

    ``context_tokens`` are the keys in the cache, the new one included; ``index_heads`` as in ``sparse_prefill_terms``.
    """
    kind = precision(profile, kv_dtype)
    fit = fit_for(profile.sparse_decode, kind, "sparse_decode") if profile.sparse_decode else _UNMEASURED_DECODE
    b, context, h, rank, rope, ih, idim, top = (
        np.asarray(x, dtype=float)
        for x in (batch, context_tokens, heads, kv_rank, qk_rope, index_heads, index_dim, top_k)
    )
    few, chosen, indexed = h < _FEW_HEADS, np.minimum(context, top), ih > 0
    filler = np.where(few, fit.few_filler, fit.filler)
    slots = filler * top + (1 - filler) * chosen
    key_ns = np.where(few, fit.few_key_ns, fit.key_ns) * (2 * rank + rope) / 1088
    units, _ = units_ms(profile.sm_count, b * np.ceil(h / _ROWS_PER_UNIT), slots, fit.unit_us, key_ns)
    bandwidth = profile.memory_bytes_per_s / MS_PER_S
    read = b * chosen * (rank + rope) * kind.weight_bytes / (bandwidth * fit.memory_efficiency)
    index = b * context * (idim + INDEX_SCALE_BYTES) / (bandwidth * fit.index_efficiency)
    choice = np.maximum(b / profile.sm_count, 1.0) * context * fit.choose_ns * MS_PER_NS
    long = fit.long_us * MS_PER_US * (context > top)
    overhead = fit.floor_us * MS_PER_US + b * (fit.token_ns + h * fit.head_ns) * MS_PER_NS + indexed * long
    compute, memory = units + indexed * choice, read + indexed * index
    total = smooth_max(read, units) + indexed * (index + choice) + overhead
    return Terms(np.asarray(compute), np.asarray(memory), np.asarray(overhead), np.asarray(total))


def sparse_launch_ms(profile: HardwareProfile, kv_dtype: str = "auto", quantised: bool = False) -> float:
    """Host milliseconds to launch one layer's attention with its projections over a prompt, outside CUDA graphs: it
    runs beside the device, the slower of both counts. 0 where none was measured."""
    fit = _prefill_fit(profile, kv_dtype)
    return (fit.host_us + fit.host_quantised_us * quantised) * MS_PER_US


def _prefill_fit(profile: HardwareProfile, kv_dtype: str) -> SparsePrefillFit:
    if not profile.sparse_prefill:
        return _UNMEASURED_PREFILL
    return fit_for(profile.sparse_prefill, precision(profile, kv_dtype), "sparse_prefill")


def _index_peak(profile: HardwareProfile) -> float:
    return profile.peak_flops_per_s.get("fp8", profile.peak_flops_per_s["bf16"])


def _chosen(new: Array, past: Array, top: Array) -> Array:
    """Mean number of keys that a new token chooses: all it sees, up to ``top``."""
    growing = np.clip(top - past, 0.0, new)
    return np.asarray((growing * past + growing * (growing + 1) / 2 + (new - growing) * top) / new)
