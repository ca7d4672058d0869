"""Time of a matrix product [m, k] x [k, n]: tiles over streaming multiprocessors against bytes over memory.

    t = floor + ||memory, waves x (k-loop of a tile + tile overhead)||_3 + epilogue

Where a product takes quantised activations, making them is a step of its own (``quantise_ms``).

Kernels differ in how they cut the output into tiles, so the profile names the kernel. cuBLAS picks among tile shapes
and splits the k loop when there are fewer tiles than multiprocessors; CUTLASS's scaled-fp8 kernels have a fixed tile
per range of m and never split. Tile tables after vLLM's csrc/quantization/w8a8/cutlass dispatch headers (0.24).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.kernel_fits import GemmFit
from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.elementwise import elementwise_ms
from tuner.cost.compute.kinds import (
    MS_PER_NS,
    MS_PER_PS,
    MS_PER_S,
    MS_PER_US,
    Array,
    Precision,
    Terms,
    cached_bandwidth,
    fit_for,
    precision,
    sharp_max,
    smooth_max,
)

# Kernels that pick their tile: (rows, columns, share of the peak that a tile of that size can reach).
_CHOSEN_TILES: dict[str, tuple[tuple[int, int, float], ...]] = {
    "cublas": ((256, 128, 1.0), (128, 128, 1.0), (128, 64, 0.8), (64, 64, 0.6), (32, 64, 0.45), (16, 64, 0.3)),
    "block": ((128, 128, 1.0), (64, 128, 0.8), (64, 64, 0.6), (64, 32, 0.4)),
    "untiled": ((1, 1, 1.0),),
}
# CUTLASS and friends: (largest m, tile rows, tile columns, rows that tiles come in).
_FIXED_TILES: dict[str, tuple[tuple[float, int, int, int], ...]] = {
    "cutlass_hopper": ((16, 16, 64, 16), (64, 64, 64, 64), (128, 64, 128, 64), (np.inf, 128, 128, 256)),
    "cutlass_blackwell": ((16, 16, 64, 16), (64, 64, 64, 64), (256, 128, 64, 128), (np.inf, 128, 128, 256)),
    "cutlass_ada": ((16, 16, 64, 16), (32, 32, 64, 32), (64, 64, 64, 64), (256, 64, 128, 64), (np.inf, 128, 128, 128)),
}
_ALIGNED_ROWS = 4  # TMA wants 16-byte rows of scales: other m take slower paths
_UNALIGNED_FROM = 128
_SMALL_M = 32  # below it Hopper's block-scaled products run a kernel with a shorter launch path
_WARM_SHARE = 0.1  # of the L2 cache that weights of a repeated product keep
_K_STEP_NS = 0.65  # least time per step of k of a scaled-fp8 or fp4 tile, the same on Ada, Hopper and Blackwell
_UNALIGNED_PENALTY = 0.14  # of Hopper's CUTLASS kernels; Blackwell's and Ada's show none
_QUANTISE_FP8_PS = 2.2  # per activation value where two kernels do it: alike on Ada, Hopper and Blackwell
_QUANTISE_FP8_US = 3.0  # their least time: 1.9 to 2.4 to cast, 0.6 to 1.2 to find the scale, measured on all of them
_APART = ("fp8", "int8")  # what quantises for these is none of the fitted floor of the product


def gemm_terms(
    profile: HardwareProfile,
    dtype: str,
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    *,
    eager: bool = False,
    warm: bool = False,
) -> Terms:
    """Terms of one product of ``m`` rows with a [k, n] weight, per device; broadcasts over m, n, k.

    ``eager``: as tables of kernels have it, launched by the host one by one, without CUDA graphs and compilation:
    kernels with a long launch path take at least that, and quantising the activations is part of it. ``warm``: the same
    product ran just before, so that small weights are in the L2 cache.
    """
    kind = precision(profile, dtype)
    fit = fit_for(profile.gemm, kind, "gemm")
    rows, cols, depth = (np.maximum(np.asarray(x, dtype=float), 1.0) for x in (m, n, k))
    moved = kind.weight_bytes * depth * cols + kind.activation_bytes * rows * depth + 2 * rows * cols
    bandwidth: float | Array = profile.memory_bytes_per_s * fit.memory_efficiency
    if warm and fit.cache_gain:
        bandwidth = cached_bandwidth(float(bandwidth), moved, profile.l2_bytes, _WARM_SHARE, fit.cache_gain)
    memory = moved / bandwidth * MS_PER_S
    compute = _tiled_ms(profile, kind, fit, rows, cols, depth)
    overhead = np.full(np.broadcast_shapes(rows.shape, depth.shape), fit.floor_us * MS_PER_US)
    if eager:
        overhead = overhead + _quantise_ms(profile, kind, rows * depth, eager)
    total = smooth_max(memory, compute) + overhead
    if eager and fit.host_us:
        total = sharp_max(total, _host_ms(fit, rows))
    return Terms(compute, np.asarray(memory), np.asarray(overhead), np.asarray(total))


def gemm_ms(
    profile: HardwareProfile,
    dtype: str,
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    *,
    eager: bool = False,
    warm: bool = False,
) -> Array:
    """Milliseconds of one matrix product; see ``gemm_terms``."""
    return gemm_terms(profile, dtype, m, n, k, eager=eager, warm=warm).total_ms


def quantise_ms(profile: HardwareProfile, dtype: str, values: ArrayLike) -> Array:
    """Milliseconds to quantise ``values`` activations for a product of this precision; 0 where it takes them as they
    are. Once per input: products that share one are fused into one.

    vLLM 0.29 leaves whole-tensor and per-token scales to torch.compile, which may write fp8 in the kernel of the norm
    or activation before; for scaled blocks it runs a kernel of its own (``quant_fp8``), which passes may fuse. Runs of
    fp8 models show a kernel's time either way: without it they would need half as many small kernels again as others.
    """
    return _quantise_ms(profile, precision(profile, dtype), np.asarray(values, dtype=float), eager=False)


def _tiled_ms(profile: HardwareProfile, kind: Precision, fit: GemmFit, m: Array, n: Array, k: Array) -> Array:
    peak = profile.peak_flops_per_s[kind.math] * fit.compute_efficiency
    rows = np.rint(m)  # of sequences times tokens of each, which floats may miss by a hair: that is no tile more
    m = np.where(np.abs(m - rows) <= 1e-12 * rows, rows, m)
    if fit.kernel in _CHOSEN_TILES:
        axes = (-1, *(1,) * max(m.ndim, n.ndim, k.ndim))  # all tiles at once, along an axis before those of the product
        tm, tn, share = (np.reshape(column, axes) for column in np.transpose(_CHOSEN_TILES[fit.kernel]))
        tiles = np.ceil(m / tm) * np.ceil(n / tn)
        return np.asarray(_waves_ms(profile, fit, k, peak * share, tm, tn, tiles).min(axis=0))
    table = _FIXED_TILES[fit.kernel]
    index = np.searchsorted([limit for limit, *_ in table], m)
    tm, tn, step = (np.array([row[i] for row in table], dtype=float)[index] for i in (1, 2, 3))
    tiles = np.ceil(m / step) * (step / tm) * np.ceil(n / tn)
    ms = _waves_ms(profile, fit, k, peak, tm, tn, tiles) + fit.epilogue_ps * MS_PER_PS * m * n
    if fit.kernel != "cutlass_hopper":
        return np.asarray(ms)
    unaligned = (m % _ALIGNED_ROWS != 0) & (m > _UNALIGNED_FROM)
    return np.asarray(ms * (1 + _UNALIGNED_PENALTY * unaligned))


def _waves_ms(
    profile: HardwareProfile, fit: GemmFit, k: Array, peak: float | Array, tm: Array, tn: Array, tiles: Array
) -> Array:
    """Tiles dealt out to multiprocessors in waves; each wave runs its k loop and pays a prologue and an epilogue."""
    sms = float(profile.sm_count)
    per_k = 2e3 * tm * tn / (peak / sms)
    if fit.kernel not in ("cublas", "untiled"):
        per_k = np.hypot(per_k, (fit.k_step_ns or _K_STEP_NS) * MS_PER_NS)
    split = np.asarray(1.0)
    if fit.split_k:
        split = np.clip(sms / tiles, 1.0, np.maximum(1.0, k / fit.split_k))
    fill = tiles * split / sms
    waves = np.ceil(fill - 1e-9)
    if fit.wave_rounding < 1:
        waves = np.maximum(1.0, fill * (waves / fill) ** fit.wave_rounding)
    return np.asarray(waves / split * k * per_k + waves * fit.wave_us * MS_PER_US)


def _quantise_ms(profile: HardwareProfile, kind: Precision, values: Array, eager: bool) -> Array:
    """The step before the product: one pass over memory, but vLLM's stand-alone fp8 kernels are slower than that."""
    if not kind.quantised:
        return np.zeros(values.shape)
    if eager and kind.math == "fp8":
        floor_us = _QUANTISE_FP8_US if kind.kind in _APART else 0.0
        return np.asarray(floor_us * MS_PER_US + _QUANTISE_FP8_PS * MS_PER_PS * values)
    moved = (2 + kind.activation_bytes) * values
    return elementwise_ms(profile, moved, kernels=float(kind.kind in _APART))


def _host_ms(fit: GemmFit, m: Array) -> Array:
    host = np.where((m < _SMALL_M) & (fit.host_small_us > 0), fit.host_small_us, fit.host_us)
    unaligned = (m % _ALIGNED_ROWS != 0) & ((m >= _SMALL_M) | (fit.host_small_us == 0))
    return np.asarray((host + fit.host_unaligned_us * unaligned) * MS_PER_US)
