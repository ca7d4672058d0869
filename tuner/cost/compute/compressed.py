"""Time of attention over a window and a compressed cache (DeepSeek-V4), of one layer on one device.

    prompt:  t = floor + products + bytes + queries + index + choosing + floor of chunks
    decode:  t = floor + products + bytes + queries + index + choosing

Every query sees a window of 128 tokens and, by the layer's ``ratio``: 0 no more, 4 the best ``chosen`` of one vector
per 4 tokens, told by an indexer (CSA), 128 all of one vector per 128 tokens (HCA). One vector of ``head_dim`` is key
and value of all heads: 4 x head_dim FLOP per head and key; the kernels' heads are padded to 64 or 128. Bytes are those
of queries and outputs (padding, norm, rotation and quantising pass over them), of a prompt's context, which is widened
to bf16 once a step (584 bytes a vector in fp8), and of the compressor's partial sums in float32. The indexer multiplies
``index_heads`` x ``index_dim`` in fp8 per query and vector, and chooses where there are more than ``chosen``.

vLLM runs prompts four sequences at a time (``PREFILL_CHUNK_SIZE``). Source: vLLM 0.29, ``models/deepseek_v4/``:
``attention.py``, ``compressor.py``, ``nvidia/flashmla.py``. The projections: ``compressed_projections_ms``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.compressed_fits import CompressedFit
from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.kinds import MS_PER_NS, MS_PER_S, MS_PER_US, Array, Terms, precision
from tuner.cost.compute.visible import visible_keys

WINDOW_ONLY, INDEXED, WHOLE = 0, 4, 128  # ratios: what there is beside the window
_PADDED_HEADS = 64
_CHUNK = 4  # sequences
_KEY_TILE = 64.0
_CACHED_BYTES = 584 / 512  # per element of a vector of 512 as it is cached, its scales included
_INDEX_BYTES = 132  # of an index key: 128 fp8 and a scale
_HALF_SPLIT = 128.0  # vectors by which the scoring kernel rounds a query's up on average
_PASSES = {"own": 5.0, "padded": 6.0}  # bytes per element of queries and outputs that are read or written around them
_SUM_PASSES = 4 * 4  # bytes: partial sums are written, added, kept and read, in float32
_ASSUMED = {
    "prefill": CompressedFit(12.0, 0.6, 0.6, 10.0, 5.0, 0.7, 0.07, 50.0, 140.0),
    "decode": CompressedFit(9.0, 0.6, 0.5, 10.0, index_efficiency=0.1, choose_ns=5.0),
    "attention": CompressedFit(12.0, 0.6, 0.8, 20.0, 5.0),
    "index": CompressedFit(5.0, index_efficiency=0.4, query_ns=2.0),
}


def compressed_prefill_terms(
    profile: HardwareProfile,
    *,
    new_tokens: ArrayLike,
    context_tokens: ArrayLike = 0,
    batch: ArrayLike = 1,
    heads: ArrayLike,
    ratio: int,
    chosen: int = 512,
    head_dim: int = 512,
    window: int = 128,
    index_heads: int = 64,
    index_dim: int = 128,
) -> Terms:
    """Terms of one layer's attention over new tokens, without projections; broadcasts over all arrays.

    Each of ``batch`` sequences brings ``new_tokens`` queries after ``context_tokens`` cached ones; ``heads`` are those
    of this device. The terms follow each other: their sum is the total.
    """
    fit = _fit(profile, "prefill")
    new, past, b, h = (np.asarray(x, dtype=float) for x in (new_tokens, context_tokens, batch, heads))
    queries = b * new
    keys = b * (visible_keys(past, new, float(window)) + _compressed_keys(past, new, ratio, chosen))
    compute = _products_ms(profile, fit, h, head_dim, keys)
    moved = queries * _around_bytes(h, head_dim, ratio) + _widened_bytes(b, past, new, ratio, head_dim, window)
    overhead = queries * _query_ms(fit, h) + np.ceil(b / _CHUNK) * fit.chunk_us * MS_PER_US
    if ratio == INDEXED:
        scored = b * visible_keys(past, new, np.inf, per=INDEXED)
        compute = compute + _scores_ms(profile, fit, index_heads * index_dim, scored)
        moved = moved + queries * 5 * index_heads * index_dim + 8 * scored
        many = b * np.clip(past + new - INDEXED * chosen, 0.0, new)
        overhead = overhead + _choosing_ms(fit, many) + b * fit.sequence_us * MS_PER_US
    return _in_a_row(profile, fit, compute, moved, overhead)


def compressed_decode_terms(
    profile: HardwareProfile,
    *,
    batch: ArrayLike,
    context_tokens: ArrayLike,
    heads: ArrayLike,
    ratio: int,
    chosen: int = 512,
    head_dim: int = 512,
    window: int = 128,
    index_heads: int = 64,
    index_dim: int = 128,
) -> Terms:
    """Terms of one layer's attention for one new token per sequence, without projections; broadcasts over all arrays.

    ``context_tokens`` are those in the cache, the new one included; ``heads`` are those of this device.
    """
    fit = _fit(profile, "decode")
    b, context, h = (np.asarray(x, dtype=float) for x in (batch, context_tokens, heads))
    tiles, cached = _decode_keys(context, ratio, chosen, window)
    compute = _products_ms(profile, fit, h, head_dim, b * tiles)
    moved = b * (_around_bytes(h, head_dim, ratio) + cached * head_dim * _CACHED_BYTES)
    overhead = b * _query_ms(fit, h)
    if ratio == INDEXED:
        scored = b * context / INDEXED
        compute = compute + _scores_ms(profile, fit, index_heads * index_dim, scored)
        moved = moved + b * 5 * index_heads * index_dim + (_INDEX_BYTES + 8) * scored
        overhead = overhead + _choosing_ms(fit, b + 0 * context)
    return _in_a_row(profile, fit, compute, moved, overhead)


def gathered_attention_terms(
    profile: HardwareProfile,
    *,
    new_tokens: ArrayLike,
    context_tokens: ArrayLike,
    batch: ArrayLike,
    heads: ArrayLike,
    head_dim: int = 512,
    window: int = 128,
) -> Terms:
    """Terms of the attention kernels alone, of a layer that reads all vectors of 128 tokens each: a part of the others.

    ``new_tokens`` of 1 are decoded. Without norm, rotation, caches, compressor and the quantising after it.
    """
    fit = _fit(profile, "attention")
    new, past, b, h = (np.asarray(x, dtype=float) for x in (new_tokens, context_tokens, batch, heads))
    tiles, cached = _decode_keys(past + 1, WHOLE, 0, window)
    keys = b * (visible_keys(past, new, float(window)) + _compressed_keys(past, new, WHOLE, 0))
    decoded, queries = new == 1, b * new
    context = np.where(decoded, b * cached * head_dim * _CACHED_BYTES,
                       _widened_bytes(b, past, new, WHOLE, head_dim, window))  # fmt: skip
    compute = _products_ms(profile, fit, h, head_dim, np.where(decoded, b * tiles, keys))
    prompt = queries * _query_ms(fit, h) + np.ceil(b / _CHUNK) * fit.chunk_us * MS_PER_US
    return _in_a_row(
        profile, fit, compute, 4 * queries * head_dim * _padded(h) + context, np.where(decoded, 0.0, prompt)
    )


def index_scores_terms(
    profile: HardwareProfile, *, rows: ArrayLike, context_tokens: ArrayLike, index_heads: int = 64, index_dim: int = 128
) -> Terms:
    """Terms of the indexer's scores alone: ``rows`` queries that follow each other after ``context_tokens``."""
    fit = _fit(profile, "index")
    m, past = (np.asarray(x, dtype=float) for x in (rows, context_tokens))
    scored = visible_keys(past, m, np.inf, per=INDEXED) + m * _HALF_SPLIT
    moved = m * index_heads * index_dim + (m + past) / INDEXED * _INDEX_BYTES + 4 * scored
    compute = _scores_ms(profile, fit, index_heads * index_dim, scored)
    return _in_a_row(profile, fit, compute, moved, m * fit.query_ns * MS_PER_NS)


def _fit(profile: HardwareProfile, step: str) -> CompressedFit:
    return profile.compressed.get(step, _ASSUMED[step])


def _padded(heads: Array) -> Array:
    return np.asarray(np.ceil(heads / _PADDED_HEADS) * _PADDED_HEADS)


def _compressed_keys(past: Array, new: Array, ratio: int, chosen: int) -> Array:
    """Vectors of the compressed cache that the queries of one sequence see in all."""
    if ratio == WINDOW_ONLY:
        return np.zeros(np.broadcast_shapes(past.shape, new.shape))
    return visible_keys(past, new, float(chosen) if ratio == INDEXED else np.inf, per=ratio)


def _decode_keys(context: Array, ratio: int, chosen: int, window: int) -> tuple[Array, Array]:
    """Keys that one new token visits: in whole tiles, and as they are."""
    near = np.minimum(context, window)
    vectors = context / ratio if ratio else np.zeros(context.shape)
    far = np.minimum(vectors, chosen) if ratio == INDEXED else np.floor(vectors)
    return np.asarray((np.ceil(near / _KEY_TILE) + np.ceil(far / _KEY_TILE)) * _KEY_TILE), np.asarray(near + far)


def _products_ms(profile: HardwareProfile, fit: CompressedFit, heads: Array, head_dim: int, keys: Array) -> Array:
    peak = profile.peak_flops_per_s["bf16"] * fit.compute_efficiency
    return np.asarray(4 * _padded(heads) * head_dim * keys / peak * MS_PER_S)


def _scores_ms(profile: HardwareProfile, fit: CompressedFit, width: int, scored: Array) -> Array:
    peak = profile.peak_flops_per_s[precision(profile, "fp8").math] * fit.index_efficiency
    return np.asarray(2 * width * scored / peak * MS_PER_S)


def _around_bytes(heads: Array, head_dim: int, ratio: int) -> Array:
    """Of one query: what norm, rotation, padding, attention and quantising move, and the compressor's sums."""
    sums = {WINDOW_ONLY: 0, INDEXED: 4 * head_dim + 4 * 128, WHOLE: 2 * head_dim}[ratio]
    return np.asarray(head_dim * (_PASSES["own"] * heads + _PASSES["padded"] * _padded(heads)) + sums * _SUM_PASSES)


def _widened_bytes(b: Array, past: Array, new: Array, ratio: int, head_dim: int, window: int) -> Array:
    """Of a prompt's context, which is read in fp8 and written in bf16: the window, and all compressed vectors."""
    vectors = np.minimum(past, window) + new + ((past + new) / ratio if ratio else 0.0)
    return np.asarray(b * vectors * head_dim * (_CACHED_BYTES + 2))


def _query_ms(fit: CompressedFit, heads: Array) -> Array:
    return np.asarray(fit.query_ns * MS_PER_NS * _padded(heads) / _PADDED_HEADS)


def _choosing_ms(fit: CompressedFit, queries: Array) -> Array:
    """Selecting the best vectors of each query: the time of one, and what each adds."""
    return np.asarray((queries > 0) * fit.choose_us * MS_PER_US + queries * fit.choose_ns * MS_PER_NS)


def _in_a_row(profile: HardwareProfile, fit: CompressedFit, compute: Array, moved: Array, overhead: Array) -> Terms:
    memory = np.asarray(moved / (profile.memory_bytes_per_s * fit.memory_efficiency) * MS_PER_S)
    overhead = np.asarray(overhead + fit.floor_us * MS_PER_US)
    return Terms(compute, memory, overhead, np.asarray(compute + memory + overhead))
