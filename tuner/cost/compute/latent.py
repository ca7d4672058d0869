"""Time of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): everything but its projections.

A prompt is expanded to full heads and runs an ordinary kernel for them,

    t = attention over keys of qk_nope + qk_rope and values of v_head + tokens x (token + heads x head)

and a new token reads the compressed cache itself, one vector of kv_rank + qk_rope per token that all heads share,

    t = floor + ||cache bytes, waves x (unit + keys x time per key)||_3 + merge + tokens x (token + heads x head)

where a unit serves some of the queries of one sequence. On that way the up-projection goes into queries and outputs:
two products per head, batched over the heads (``latent_products_ms``), in place of one projection of all tokens. Some
kernels take short prompts that way, too (``absorbs``; vLLM 0.29, ``reorder_batch_threshold`` of its MLA backends).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.ask.kernel_fits import PrefillAttentionFit
from tuner.ask.latent_fits import LatentDecodeFit, LatentPrefillFit
from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.attention import prefill_attention_terms
from tuner.cost.compute.decode import decode_attention_terms
from tuner.cost.compute.gemm import gemm_ms
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

_TILE = 128  # rows and columns of a tile of the products per head
_KEYS_AT_ONCE = 128  # keys of a step of a work unit; a split takes at least two
_ACTIVATIONS_EFFICIENCY = 0.8  # of the bandwidth, for queries, keys, values and outputs: compute hides them
_WARM_SHARE = 0.7  # of the L2 cache that operands of a repeated product keep


def absorbs(profile: HardwareProfile, new_tokens: ArrayLike, kv_dtype: str = "auto") -> NDArray[np.bool_]:
    """True where attention runs on the compressed cache: for a new token, and for prompts so short that it pays."""
    fit = _decode_fit(profile, kv_dtype)
    return np.asarray(np.asarray(new_tokens, dtype=float) <= (fit.absorb_tokens if fit else 1.0))


def latent_prefill_terms(
    profile: HardwareProfile,
    *,
    new_tokens: ArrayLike,
    context_tokens: ArrayLike = 0,
    batch: ArrayLike = 1,
    heads: ArrayLike,
    qk_nope: ArrayLike,
    qk_rope: ArrayLike,
    v_head: ArrayLike,
    dtype: str = "auto",
) -> Terms:
    """Terms of one layer's attention over new tokens, expanded to ``heads`` (of this device) full heads.

    ``dtype`` is what is multiplied in, whatever the cache is stored in. Broadcasts over all numbers.
    """
    dim = np.asarray(qk_nope, dtype=float) + np.asarray(qk_rope, dtype=float)
    kind = precision(profile, dtype)
    fit = fit_for(profile.latent_prefill, kind, "latent_prefill") if profile.latent_prefill else None
    value_dim = np.maximum(dim, v_head) if fit and fit.pads_values else np.asarray(v_head, dtype=float)
    found = prefill_attention_terms(
        profile, new_tokens=new_tokens, context_tokens=context_tokens, batch=batch, heads=heads, kv_heads=heads,
        head_dim=dim, value_dim=value_dim, kv_dtype=dtype, fit=None if fit is None else _as_ordinary(fit),
    )  # fmt: skip
    if fit is None:
        return found
    tokens = np.asarray(batch, dtype=float) * np.asarray(new_tokens, dtype=float)
    more = fit.token_ns * MS_PER_NS * tokens
    return Terms(found.compute_ms, found.memory_ms, found.overhead_ms + more, found.total_ms + more)


def latent_decode_terms(
    profile: HardwareProfile,
    *,
    batch: ArrayLike,
    context_tokens: ArrayLike,
    new_tokens: ArrayLike = 1,
    heads: ArrayLike,
    kv_rank: ArrayLike,
    qk_rope: ArrayLike,
    kv_dtype: str = "auto",
) -> Terms:
    """Terms of one layer's attention on the compressed cache of one device; broadcasts over all numbers.

    ``context_tokens`` are the keys in the cache, the ``new_tokens`` of each of ``batch`` sequences included.
    """
    kind, fit = precision(profile, kv_dtype), _decode_fit(profile, kv_dtype)
    b, context, new, h, rank, rope = (
        np.asarray(x, dtype=float) for x in (batch, context_tokens, new_tokens, heads, kv_rank, qk_rope)
    )
    seen = context - (new - 1) / 2  # a query of the new ones sees those before it
    if fit is None:
        return decode_attention_terms(
            profile, batch=b, context_tokens=seen, heads=h * new, kv_heads=1, head_dim=rank + rope, value_dim=rank,
            kv_dtype=kv_dtype,
        )  # fmt: skip
    memory = b * context * (rank + rope) * kind.weight_bytes
    memory = memory / (profile.memory_bytes_per_s * fit.memory_efficiency) * MS_PER_S
    units = b * np.ceil(h * new / fit.head_rows)
    width = (2 * rank + rope) / 1088  # of a key's two products, against those of the fit
    compute, split = units_ms(profile.sm_count, units, seen, fit.unit_us, fit.key_ns * width)
    overhead = (fit.floor_us + fit.merge_us * (split > 1)) * MS_PER_US
    overhead = overhead + b * new * (fit.token_ns + h * fit.head_ns) * MS_PER_NS
    return Terms(compute, np.asarray(memory), np.asarray(overhead), np.asarray(smooth_max(memory, compute) + overhead))


def units_ms(sms: float, units: Array, keys: Array, unit_us: float, key_ns: ArrayLike) -> tuple[Array, Array]:
    """Milliseconds of work units of so many keys over all multiprocessors, and into how many parts the keys are split.

    Keys are split where there are fewer units than multiprocessors.
    """
    steps = np.ceil(keys / _KEYS_AT_ONCE)
    split = np.clip(sms / units, 1.0, np.maximum(1.0, steps / 2))
    unit_ms = unit_us * MS_PER_US + np.asarray(key_ns) * MS_PER_NS * steps * _KEYS_AT_ONCE / split
    return np.asarray(np.maximum(units * split / sms, 1.0) * unit_ms), np.asarray(split)


def latent_products_ms(
    profile: HardwareProfile,
    tokens: ArrayLike,
    *,
    heads: ArrayLike,
    kv_rank: ArrayLike,
    qk_nope: ArrayLike,
    v_head: ArrayLike,
    warm: bool = False,
) -> Array:
    """Milliseconds of both products per head where the up-projection is absorbed: queries into the space of the cache,
    and outputs out of it. In 16 bits, whatever the weights are stored in. ``warm``: the same products ran just before.
    """
    query = head_product_ms(profile, tokens, heads, qk_nope, kv_rank, warm=warm)
    return np.asarray(query + head_product_ms(profile, tokens, heads, kv_rank, v_head, warm=warm))


def head_product_ms(
    profile: HardwareProfile, tokens: ArrayLike, heads: ArrayLike, k: ArrayLike, n: ArrayLike, *, warm: bool = False
) -> Array:
    """Milliseconds of ``heads`` products [tokens, k] x [k, n] in one kernel."""
    rows, h, depth, cols = (np.asarray(x, dtype=float) for x in (tokens, heads, k, n))
    fit = profile.latent_products.get("bf16")
    if fit is None:  # as one product of the same bytes
        return gemm_ms(profile, "bf16", rows, h * cols, depth, warm=warm)
    moved = 2 * h * (rows * (depth + cols) + depth * cols)
    bandwidth: float | Array = profile.memory_bytes_per_s * fit.memory_efficiency
    if warm and fit.cache_gain:
        bandwidth = cached_bandwidth(float(bandwidth), moved, profile.l2_bytes, _WARM_SHARE, fit.cache_gain)
    waves = np.maximum(h * np.ceil(rows / _TILE) * np.ceil(cols / _TILE) / profile.sm_count, 1.0)
    peak = profile.peak_flops_per_s["bf16"] * fit.compute_efficiency / profile.sm_count
    compute = waves * 2 * depth * _TILE * _TILE / peak * MS_PER_S
    return np.asarray(smooth_max(moved / bandwidth * MS_PER_S, compute) + fit.floor_us * MS_PER_US)


def apart_ms(
    profile: HardwareProfile, tokens: ArrayLike, *, kv_dtype: str = "auto", prompt: ArrayLike = False
) -> Array:
    """Milliseconds that norms and rotary embedding take more where each of their steps is a kernel, uncompiled.

    ``prompt``: where keys and values are expanded. 0 where it was not measured.
    """
    n, decode = np.asarray(tokens, dtype=float), _decode_fit(profile, kv_dtype)
    expanded = fit_for(profile.latent_prefill, precision(profile, "auto"), "") if profile.latent_prefill else None
    on_cache = decode.apart_us * MS_PER_US if decode else 0.0
    of_prompt = expanded.apart_us * MS_PER_US + expanded.apart_token_ns * MS_PER_NS * n if expanded else 0.0
    return np.where(prompt, of_prompt, on_cache) + np.zeros(n.shape)


def _decode_fit(profile: HardwareProfile, kv_dtype: str) -> LatentDecodeFit | None:
    if not profile.latent_decode:
        return None
    return fit_for(profile.latent_decode, precision(profile, kv_dtype), "latent_decode")


def _as_ordinary(fit: LatentPrefillFit) -> PrefillAttentionFit:
    return PrefillAttentionFit(
        fit.kernel, fit.floor_us, fit.compute_efficiency, _ACTIVATIONS_EFFICIENCY, exp_cost=fit.exp_cost,
        wave_us=fit.wave_us, cache_write_ns=fit.head_ns, tail=fit.tail,
    )  # fmt: skip
