"""Time of attention within an image: every patch sees every patch, nothing is cached.

    t = floor + ||q, k, v, o bytes, waves x query rows x keys x time per pair||_3 + waves x wave overhead

Tiles of query rows go out in waves over the multiprocessors; a partly filled one takes as long as a full one, since
all tiles are alike. Time per pair as in ``tuner.cost.compute.attention``: the 2-norm of its multiplications, of heads
padded to a multiple of 32, and its exponential. Rows and keys of a tile: FlashAttention-3's ``tile_size.h`` and
FlashAttention-2's for heads up to 96, FlashAttention-4's pair of 128 rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.compressed_fits import EncoderFit
from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.kinds import MS_PER_S, MS_PER_US, Terms, smooth_max

_TILES = {"flash_attn_2": (128.0, 64.0), "flash_attn_3": (192.0, 128.0), "flash_attn_4": (256.0, 128.0)}
_HEAD_STEP = 32.0
_ASSUMED = EncoderFit("flash_attn_2", 5.0, 0.7, 0.7, 250.0)


def encoder_attention_terms(
    profile: HardwareProfile, *, patches: ArrayLike, images: ArrayLike = 1, heads: ArrayLike, head_dim: ArrayLike
) -> Terms:
    """Terms of one layer's attention over ``images`` of ``patches`` each, in bf16; broadcasts over all numbers.

    ``heads`` are those of this device, each with keys and values of its own.
    """
    fit = profile.encoder_attention.get("bf16", _ASSUMED)
    n, b, h, dim = (np.asarray(x, dtype=float) for x in (patches, images, heads, head_dim))
    rows, step = _TILES[fit.kernel]
    peak = profile.peak_flops_per_s["bf16"]
    products = 4 * np.ceil(dim / _HEAD_STEP) * _HEAD_STEP / (peak * fit.compute_efficiency)
    pair_ms = np.hypot(products, fit.exp_cost / peak) * MS_PER_S
    waves = np.ceil(b * h * np.ceil(n / rows) / profile.sm_count)
    compute = np.asarray(waves * profile.sm_count * rows * np.ceil(n / step) * step * pair_ms)
    moved = 4 * 2 * b * n * h * dim
    memory = np.asarray(moved / (profile.memory_bytes_per_s * fit.memory_efficiency) * MS_PER_S)
    overhead = np.asarray((fit.floor_us + waves * fit.wave_us) * MS_PER_US)
    return Terms(compute, memory, overhead, np.asarray(smooth_max(memory, compute) + overhead))
