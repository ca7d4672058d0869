"""Time of one mixture-of-experts layer on one device: two grouped products over the experts that get tokens.

    t = floor + ||weights of active experts, padded rows x 6 x hidden x inter||_3 + rows in and out of the experts
        + rows routed elsewhere + active experts x overhead

An expert's weights are read once if at least one token is routed to it, and its rows are padded to a tile: the power of
two that its mean load needs (so TensorRT-LLM's kernels choose; Marlin's and Triton's do nearly the same). How loads
spread over experts follows the routing: evenly, at random, or by a power law (benchmarks name its exponent); of the
devices that share the experts the most loaded one is priced, since all wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.kinds import MS_PER_S, MS_PER_US, Array, Terms, fit_for, precision, smooth_max

_QUANTILES = 24
_FEW_TOKENS_SPREAD = 200.0  # heaviest over lightest expert of the power law when there are fewer slots than experts
_TOP_OF = 0.56  # the largest of E draws sits near the quantile 1 - 0.56 / E


_SMALLEST_TILE = 8.0
# Sides that kernels of 4-bit weights are given, rounded up (vLLM's ``fused_moe/oracle/mxfp4.py``).
_PADDED = ("int4", "mxfp4", "mxfp4_fp8")
_HIDDEN_MULTIPLE, _INTER_MULTIPLE = 256, 128


@dataclass(frozen=True, slots=True)
class Routing:
    """How tokens choose experts: ``exponent`` 0 evenly, above 0 by a power law, None at random.

    ``gathered``: when there are no more routed slots than experts, all of them fall on the device that is priced (so
    were the benchmarks of vLLM 0.14 made).
    """

    exponent: float | None = None
    gathered: bool = False


def moe_terms(
    profile: HardwareProfile,
    dtype: str,
    tokens: ArrayLike,
    hidden: ArrayLike,
    inter: ArrayLike,
    topk: ArrayLike,
    experts: ArrayLike,
    moe_tp: ArrayLike = 1,
    moe_ep: ArrayLike = 1,
    routing: Routing | None = None,
) -> Terms:
    """Terms of the routed experts of one layer, gated (three matrices), without router and shared experts.

    ``tokens`` are all that are routed together, ``inter`` is an expert's full intermediate size, cut by ``moe_tp``;
    ``moe_ep`` devices share the ``experts``. Broadcasts over all numbers.
    """
    kind = precision(profile, dtype)
    fit = fit_for(profile.moe, kind, "moe")
    t, width, full, k, count, tp, ep = np.broadcast_arrays(
        *(np.asarray(x, dtype=float) for x in (tokens, hidden, inter, topk, experts, moe_tp, moe_ep))
    )
    shard, here = full / tp, count / ep
    if kind.kind in _PADDED:
        width, shard = _multiple(width, _HIDDEN_MULTIPLE), _multiple(shard, _INTER_MULTIPLE)
    tile = _tile_rows(t * k / here, fit.tile_rows)
    load = _loads(routing or Routing(), t, k, count, ep)
    busy = _busy_share(routing or Routing(), load, t, k, count)
    active = np.maximum(busy.mean(-1) * here, np.minimum(1.0, t * k / ep))
    padded = np.where(load < tile, busy * tile, load + tile / 2).mean(-1) * here
    rows = load.mean(-1) * here
    bandwidth = profile.memory_bytes_per_s
    memory = active * 3 * width * shard * kind.weight_bytes / (bandwidth * fit.memory_efficiency) * MS_PER_S
    compute = 6 * width * shard * padded / (profile.peak_flops_per_s[kind.math] * fit.compute_efficiency) * MS_PER_S
    moved = rows * (4 * width + 6 * shard) / fit.rows_efficiency
    elsewhere = np.maximum(t * k - rows, 0.0) * 4 * width / fit.elsewhere_efficiency
    overhead = (moved + elsewhere) / bandwidth * MS_PER_S + (fit.floor_us + fit.expert_us * active) * MS_PER_US
    return Terms(compute, memory, overhead, np.asarray(smooth_max(memory, compute) + overhead))


def moe_ms(
    profile: HardwareProfile,
    dtype: str,
    tokens: ArrayLike,
    hidden: ArrayLike,
    inter: ArrayLike,
    topk: ArrayLike,
    experts: ArrayLike,
    moe_tp: ArrayLike = 1,
    moe_ep: ArrayLike = 1,
    routing: Routing | None = None,
) -> Array:
    """Milliseconds of the routed experts of one layer; see ``moe_terms``."""
    return moe_terms(profile, dtype, tokens, hidden, inter, topk, experts, moe_tp, moe_ep, routing).total_ms


def _multiple(side: Array, of: int) -> Array:
    return np.asarray(np.ceil(side / of) * of)


def _tile_rows(rows: Array, most: float) -> Array:
    """Rows of the tile that a kernel takes for so many rows per expert, those routed elsewhere included."""
    wanted = np.exp2(np.ceil(np.log2(rows)))
    return np.asarray(np.minimum(np.maximum(wanted, _SMALLEST_TILE), most))[..., None]


def _loads(routing: Routing, t: Array, k: Array, count: Array, ep: Array) -> Array:
    """Tokens per expert of the most loaded device, as equally likely values along a new last axis."""
    slots, here = t * k, count / ep
    mean = slots / count
    if routing.exponent == 0:
        return np.asarray(mean[..., None])
    if routing.exponent is None:
        hot = 1 + np.sqrt(2 * np.log(ep) / np.maximum(mean * here, 1e-9))
        relative, hot = np.ones((*t.shape, 1)), np.where(ep > 1, hot, 1.0)
    else:
        relative, hot = _power_law(routing.exponent, t, slots, count, ep)
    if routing.gathered:
        hot = np.where(slots <= count, ep, hot)
    most = t * np.minimum(k, here) / (mean * here)  # no token can choose more than k of the experts here
    hot = np.minimum(hot, np.minimum(ep, most))
    return np.asarray(np.minimum(relative * (mean * hot)[..., None], t[..., None]))


def _power_law(exponent: float, t: Array, slots: Array, count: Array, ep: Array) -> tuple[Array, Array]:
    """Relative loads (mean 1) at equal quantiles, and how far the most loaded device is above the mean."""
    a = exponent if exponent != 1 else 1.0001
    spread = np.where(slots > count, np.maximum(0.8 * t, 1.5), _FEW_TOKENS_SPREAD)[..., None]

    def load_at(quantile: Array) -> Array:
        return np.asarray((1 - quantile * (1 - spread ** (1 - a))) ** (1 / (1 - a)))

    draws = load_at((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    mean = draws.mean(-1, keepdims=True)
    here = count / ep
    top = (load_at((1 - _TOP_OF / count)[..., None]) / mean)[..., 0] - 1
    spread_of_sums = draws.std(-1) / mean[..., 0] * np.sqrt(2 * np.log(ep) * here)
    hot = np.where(ep > 1, 1 + np.maximum(top, spread_of_sums) / here, 1.0)
    return np.asarray(draws / mean), hot


def _busy_share(routing: Routing, load: Array, t: Array, k: Array, count: Array) -> Array:
    """Probability that an expert of such a load has at least one token."""
    if routing.exponent is None:
        untouched = np.exp(t * np.log1p(-np.minimum(k / count, 0.999999)))
        return np.asarray((1 - untouched)[..., None])
    return np.asarray(np.minimum(load, 1.0))
