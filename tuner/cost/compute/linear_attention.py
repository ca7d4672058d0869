"""Time of the mixer of one linear-attention layer, without its projections: gated delta net, short convolution.

A mixer is the causal convolution, the delta rule and the small kernels around them; its time is the sum of theirs. It
is linear in the new tokens and knows no context. The phase is ``prefill`` (prompts or chunks of them) or ``decode``
(one new token per sequence; more where drafted tokens are checked). Heads and channels are those of one rank. As vLLM
0.29 does it: ``model_executor/layers/mamba/gdn/`` and ``short_conv.py`` there.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.causal_convolution import convolution_terms, convolution_update_terms
from tuner.cost.compute.delta_rule import chunk_rule_terms, recurrent_rule_terms
from tuner.cost.compute.kinds import MS_PER_S, MS_PER_US, Array, Terms, sum_terms

Phase = Literal["prefill", "decode"]
WIDTH = 2.0  # bytes of an activation
RULE_STATE_BYTES = 4.0  # the chunked rule keeps states in float32, whatever the cache holds


def gated_delta_terms(
    profile: HardwareProfile,
    phase: Phase,
    *,
    new_tokens: ArrayLike = 1,
    sequences: ArrayLike = 1,
    key_heads: ArrayLike,
    value_heads: ArrayLike,
    key_dim: ArrayLike = 128,
    value_dim: ArrayLike = 128,
    conv_kernel: ArrayLike = 4,
    state_bytes: float = 4.0,
) -> Terms:
    """Terms of a gated delta net (Qwen3-Next, Qwen3.5) with ``new_tokens`` per sequence; broadcasts over all numbers.

    ``state_bytes`` is the width of a value of the cached state (``mamba_ssm_dtype``).
    """
    new, b, k, v, dk, dv = floats(new_tokens, sequences, key_heads, value_heads, key_dim, value_dim)
    channels = 2 * k * dk + v * dv
    norm = small_terms(profile, 3 * b * new * v * dv * WIDTH)
    if phase == "decode":
        convolution = convolution_update_terms(
            profile, sequences=b, channels=channels, conv_kernel=conv_kernel, new_tokens=new
        )
        rule = recurrent_rule_terms(
            profile, sequences=b, key_heads=k, value_heads=v, key_dim=dk, value_dim=dv, new_tokens=new,
            state_bytes=state_bytes,
        )  # fmt: skip
        return sum_terms(convolution, rule, norm)
    convolution = convolution_terms(
        profile, new_tokens=new, sequences=b, channels=channels, conv_kernel=conv_kernel, warm=True
    )
    parted = small_terms(profile, 2 * b * new * channels * WIDTH)  # splits, normalises queries and keys
    rule = chunk_rule_terms(
        profile, profile.linear_attention.gdn_chunk, new_tokens=new, sequences=b, key_heads=k, value_heads=v,
        key_dim=dk, value_dim=dv, state_bytes=RULE_STATE_BYTES,
    )  # fmt: skip
    return sum_terms(convolution, parted, rule, cached_states_terms(profile, b * v * dk * dv, state_bytes), norm)


def short_convolution_terms(
    profile: HardwareProfile,
    phase: Phase,
    *,
    new_tokens: ArrayLike = 1,
    sequences: ArrayLike = 1,
    channels: ArrayLike,
    conv_kernel: ArrayLike = 3,
) -> Terms:
    """Terms of a gated short convolution (LFM2): products with two gates around the convolution."""
    new, b, width = floats(new_tokens, sequences, channels)
    gates = small_terms(profile, 6 * b * new * width * WIDTH, kernels=2)
    if phase == "decode":
        convolution = convolution_update_terms(
            profile, sequences=b, channels=width, conv_kernel=conv_kernel, new_tokens=new
        )
    else:
        convolution = convolution_terms(
            profile, new_tokens=new, sequences=b, channels=width, conv_kernel=conv_kernel, warm=True
        )
    return sum_terms(gates, convolution)


def small_terms(profile: HardwareProfile, moved_bytes: ArrayLike, kernels: float = 1) -> Terms:
    """Terms of small kernels that only move bytes (``tuner.cost.compute.elementwise``)."""
    fit = profile.elementwise
    memory = np.asarray(moved_bytes, dtype=float) / (profile.memory_bytes_per_s * fit.memory_efficiency) * MS_PER_S
    overhead = np.asarray(kernels * fit.floor_us * MS_PER_US)
    return Terms(np.zeros_like(memory), np.asarray(memory), overhead, np.asarray(memory + overhead))


def cached_states_terms(profile: HardwareProfile, values: ArrayLike, state_bytes: float) -> Terms:
    """Terms of the two kernels that copy the states of prompts out of the cache (to float32) and back."""
    moved = 2 * np.asarray(values, dtype=float) * (state_bytes + RULE_STATE_BYTES)
    return small_terms(profile, moved, kernels=2)


def floats(*numbers: ArrayLike) -> list[Array]:
    """Numbers or arrays of numbers as arrays."""
    return [np.asarray(number, dtype=float) for number in numbers]
