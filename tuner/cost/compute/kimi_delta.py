"""Time of the mixer of one layer of Kimi delta attention (KDA), without its projections.

The gated delta net of ``tuner.cost.compute.linear_attention`` with a decay per channel: queries, keys and values are of
one size, each has its own convolution over prompts, and states are float32. Kernels as vLLM 0.29 chooses them
(``models/kimi_k3/nvidia/kda.py``, ``model_executor/layers/mamba/gdn/kimi_gdn_linear_attn.py``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.linear_fits import LinearAttentionFits
from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.causal_convolution import convolution_terms, convolution_update_terms
from tuner.cost.compute.delta_rule import chunk_rule_terms, recurrent_rule_terms
from tuner.cost.compute.kinds import Array, Terms, sum_terms
from tuner.cost.compute.linear_attention import (
    RULE_STATE_BYTES,
    WIDTH,
    Phase,
    cached_states_terms,
    floats,
    small_terms,
)

_FUSED_HEADS = (12, 24, 48, 96)  # per rank: those that vLLM's fused decode of Kimi-K3 was built for, heads of 128
_FUSED_SINCE = 9.0  # compute capability


def kimi_delta_terms(
    profile: HardwareProfile,
    phase: Phase,
    *,
    new_tokens: ArrayLike = 1,
    sequences: ArrayLike = 1,
    heads: ArrayLike,
    head_dim: ArrayLike = 128,
    conv_kernel: ArrayLike = 4,
    bounded_gate: bool = True,
    speculative: bool = False,
) -> Terms:
    """Terms of a mixer with ``new_tokens`` per sequence; heads are those of one rank. Broadcasts over all numbers.

    ``bounded_gate`` (``gate_lower_bound`` in the configuration, as in Kimi-K3) lets FlashKDA and the fused decode run;
    without it Triton's kernels do. ``speculative``: drafts are asked for, which rules the fused decode out.
    """
    new, b, h, dim, kernel = floats(new_tokens, sequences, heads, head_dim, conv_kernel)
    norm = small_terms(profile, 3 * b * new * h * dim * WIDTH)
    if phase == "prefill":
        return sum_terms(_prompt_terms(profile, new, b, h, dim, kernel, bounded_gate), norm)
    apart = sum_terms(_decode_terms(profile, new, b, h, dim, kernel), norm)
    built = bounded_gate and not speculative and (profile.compute_capability or 0.0) >= _FUSED_SINCE
    fused = built & (new == 1) & np.isin(h, _FUSED_HEADS) & (dim == 128) & (kernel == 4)
    if not np.any(fused):
        return apart
    whole = recurrent_rule_terms(
        profile, sequences=b, key_heads=h, value_heads=h, key_dim=dim, value_dim=dim, fused=True
    )
    return _choose(fused, whole, apart)


def _prompt_terms(
    profile: HardwareProfile, new: Array, b: Array, h: Array, dim: Array, kernel: Array, bounded_gate: bool
) -> Terms:
    """Convolutions of queries, keys and values, the rule, and the copies of its states."""
    fit = profile.linear_attention.kda_chunk if bounded_gate else LinearAttentionFits().kda_chunk
    convolutions = convolution_terms(
        profile, new_tokens=new, sequences=b, channels=h * dim, conv_kernel=kernel, calls=3, warm=True
    )
    rule = chunk_rule_terms(
        profile, fit, new_tokens=new, sequences=b, key_heads=h, value_heads=h, key_dim=dim, value_dim=dim,
        channel_gate=True,
    )  # fmt: skip
    return sum_terms(convolutions, rule, cached_states_terms(profile, b * h * dim * dim, RULE_STATE_BYTES))


def _decode_terms(profile: HardwareProfile, new: Array, b: Array, h: Array, dim: Array, kernel: Array) -> Terms:
    """The convolution and the rule as kernels of their own."""
    convolution = convolution_update_terms(
        profile, sequences=b, channels=3 * h * dim, conv_kernel=kernel, new_tokens=new
    )
    rule = recurrent_rule_terms(
        profile, sequences=b, key_heads=h, value_heads=h, key_dim=dim, value_dim=dim, new_tokens=new
    )
    return sum_terms(convolution, rule)


def _choose(where: Array, yes: Terms, no: Terms) -> Terms:
    return Terms(
        np.where(where, yes.compute_ms, no.compute_ms),
        np.where(where, yes.memory_ms, no.memory_ms),
        np.where(where, yes.overhead_ms, no.overhead_ms),
        np.where(where, yes.total_ms, no.total_ms),
    )
