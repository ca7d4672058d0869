"""Time of the gated delta rule: in chunks of 64 tokens over prompts, one token at a time in decode.

A unit, one sequence and value head, goes through its chunks one after the other on one multiprocessor (Yang et al.
2412.06464, section 3.3): ``waves x (unit + chunks x time per chunk)``. FlashInfer's kernel streams queries, keys,
values and outputs meanwhile:

    t = floor + ||waves, tokens' bytes||_3 + states' bytes

FlashKDA's and Triton's (flash-linear-attention) are several kernels, which hand values on through memory:

    t = floor + waves + tokens' bytes + states' bytes

None is faster than its products at the device's peak allow.

Decode reads and writes every state once: bytes above a floor. Checks of drafted tokens write a state per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.linear_fits import ChunkFit
from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.causal_convolution import stream_ms
from tuner.cost.compute.kinds import MS_PER_S, MS_PER_US, Terms, smooth_max

CHUNK = 64  # tokens
# FLOPs of a chunk and head of 128: products of queries and keys with keys, with the inverse and with values (5 of
# 64 x 64), and of the state with keys, queries and new values (3).
CHUNK_FLOPS = 5 * 2 * 64 * 64 * 128 + 3 * 2 * 64 * 128 * 128
_MOST_SHARE = 0.7  # of the bf16 peak, which no measured device reaches; others may have less arithmetic per byte
_WIDTH = 2.0  # bytes of an activation


@dataclass(frozen=True, slots=True)
class _Traffic:
    """What crosses memory: values per token, in units of a key and of a value head; per chunk, in units of a state;
    and those per token, of them, that a stage has from the one before it."""

    keys: float
    values: float
    states: float
    handed_keys: float
    handed_values: float


# Counted in the sources of vLLM 0.29: third_party/flash_linear_attention/ops/chunk.py and
# models/kimi_k3/nvidia/ops/third_party/kda/chunk.py. FlashKDA's is that of its inputs and outputs, and one row more.
_TRITON = {False: _Traffic(5, 11, 2, 1, 2), True: _Traffic(0, 36, 2, 0, 5)}
_TRAFFIC = {"flashinfer": _Traffic(2, 2, 0, 2, 2), "flashkda": _Traffic(0, 6, 0, 0, 5)}


def chunk_rule_terms(
    profile: HardwareProfile,
    fit: ChunkFit,
    *,
    new_tokens: ArrayLike,
    sequences: ArrayLike = 1,
    key_heads: ArrayLike,
    value_heads: ArrayLike,
    key_dim: ArrayLike = 128,
    value_dim: ArrayLike = 128,
    state_bytes: float = 4.0,
    channel_gate: bool = False,
    warm: bool = False,
) -> Terms:
    """Terms of the rule over ``sequences`` prompts of ``new_tokens``; ``channel_gate``: one decay a channel (KDA).

    ``state_bytes`` is the width of a state's values. Broadcasts over all numbers.
    """
    new, b, k, v, dk, dv = (
        np.asarray(x, dtype=float) for x in (new_tokens, sequences, key_heads, value_heads, key_dim, value_dim)
    )
    sms = float(profile.sm_count)
    units = b * v
    chunks = np.ceil(new / CHUNK)
    one_launch = fit.kernel == "flashinfer"
    waves = np.ceil(units / sms) if one_launch else np.maximum(units / sms, 1.0)
    size = dk * dv / 128**2
    products = chunks * CHUNK_FLOPS * size / (profile.peak_flops_per_s["bf16"] * _MOST_SHARE) * MS_PER_S
    one_by_one = (fit.unit_us + fit.chunk_us * chunks) * size * MS_PER_US
    serial = waves * (np.maximum(one_by_one, products * sms) if one_launch else one_by_one)
    traffic = _TRAFFIC.get(fit.kernel, _TRITON[channel_gate])
    states = units * dk * dv
    values = b * new * (traffic.keys * k * dk + traffic.values * v * dv) + traffic.states * states * chunks
    handed = b * new * (traffic.handed_keys * k * dk + traffic.handed_values * v * dv)
    # What a stage wrote last is still in the L2 cache for the next; inputs are if they were read just before.
    gain = fit.cache_gain if warm or not one_launch else 0.0
    streamed = stream_ms(profile, values * _WIDTH, fit.memory_efficiency, gain, handed * _WIDTH)
    if not one_launch:
        streamed = np.maximum(streamed, units * products)
    gain = fit.cache_gain if warm else 0.0
    kept = stream_ms(profile, 2 * states * state_bytes, fit.memory_efficiency, gain, states * state_bytes)
    overhead = np.asarray((fit.floor_us + fit.fill_us * np.minimum(new / CHUNK, 1.0)) * MS_PER_US)
    body = smooth_max(serial, streamed) if one_launch else serial + streamed
    return Terms(np.asarray(serial), np.asarray(streamed + kept), overhead, np.asarray(body + kept + overhead))


def recurrent_rule_terms(
    profile: HardwareProfile,
    *,
    sequences: ArrayLike,
    key_heads: ArrayLike,
    value_heads: ArrayLike,
    key_dim: ArrayLike = 128,
    value_dim: ArrayLike = 128,
    new_tokens: ArrayLike = 1,
    state_bytes: float = 4.0,
    fused: bool = False,
    warm: bool = False,
) -> Terms:
    """Terms of the rule for the next ``new_tokens`` of every sequence: its state is read once, written once a token.

    ``fused``: the same kernel does the convolution before and the norm after it.
    """
    new, b, k, v, dk, dv = (
        np.asarray(x, dtype=float) for x in (new_tokens, sequences, key_heads, value_heads, key_dim, value_dim)
    )
    states = b * v * dk * dv * state_bytes * (1 + new)
    tokens = b * new * (2 * k * dk + 2 * v * dv) * _WIDTH
    return recurrent_terms(profile, states + tokens, new, fused=fused, warm=warm)


def recurrent_terms(
    profile: HardwareProfile, moved: ArrayLike, new_tokens: ArrayLike, *, fused: bool = False, warm: bool = False
) -> Terms:
    """Terms of a recurrence that moves ``moved`` bytes, most of them of states that are read and written in place."""
    fit, total = profile.linear_attention.recurrent, np.asarray(moved, dtype=float)
    memory = stream_ms(profile, total, fit.memory_efficiency, fit.cache_gain if warm else 0.0, total / 2)
    latency = np.full_like(memory, fit.latency_us * MS_PER_US)
    more = fit.fused_us * fused + fit.drafts_us * (np.asarray(new_tokens) > 1)
    overhead = np.asarray((fit.floor_us + more) * MS_PER_US)
    return Terms(latency, memory, overhead, np.asarray(smooth_max(latency, memory) + overhead))
