"""Time of mixing a residual that is several streams wide, before a block and after it (manifold hyper-connections).

    t = floor + hidden x time per value of a row + ||bytes, products||_3

``pre`` reads the streams twice (a product gives each token its mixing weights, then they are mixed) and writes the
block's input; ``post`` reads the block's output and the streams, and writes the streams: 2 x streams + 1 values of bf16
per token and hidden value, either way. The product of ``pre`` is [tokens, streams x hidden] by (2 + streams) x streams.
One call each, before and after attention and MLP alike: four a layer. The streams were written just before, so those
of few tokens are in the L2 cache. Every rank does all of it. Source: vLLM 0.29,
``model_executor/kernels/mhc/tilelang.py``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.compressed_fits import HyperConnectionFit
from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.kinds import MS_PER_NS, MS_PER_S, MS_PER_US, Terms, cached_bandwidth, smooth_max

Side = Literal["pre", "post"]
_ASSUMED: dict[Side, HyperConnectionFit] = {
    "pre": HyperConnectionFit(7.0, 0.55, 0.75, 1.5, 0.07),
    "post": HyperConnectionFit(2.0, 0.35, 0.85, 1.0),
}


def hyper_connection_terms(
    profile: HardwareProfile, side: Side, tokens: ArrayLike, hidden: ArrayLike, streams: ArrayLike = 4, turns: int = 1
) -> Terms:
    """Terms of one call for ``tokens`` of a residual of ``streams`` x ``hidden``; broadcasts over all.

    ``turns``: calls with data of their own that take turns, as in benchmarks: they share the cache.
    """
    fit = profile.hyper_connections.get(side, _ASSUMED[side])
    t, width, wide = (np.asarray(x, dtype=float) for x in (tokens, hidden, streams))
    moved = 2 * t * width * (2 * wide + 1)
    bandwidth = cached_bandwidth(
        profile.memory_bytes_per_s * fit.memory_efficiency, turns * moved, profile.l2_bytes, 1.0, fit.cache_gain
    )
    memory = np.asarray(moved / bandwidth * MS_PER_S)
    compute = np.zeros(memory.shape)
    if side == "pre":
        flops = 2 * t * wide * width * (2 + wide) * wide
        compute = flops / (profile.peak_flops_per_s["bf16"] * fit.compute_efficiency) * MS_PER_S
    overhead = np.asarray(fit.floor_us * MS_PER_US + width * fit.value_ns * MS_PER_NS + 0 * t)
    return Terms(compute, memory, overhead, np.asarray(smooth_max(memory, compute) + overhead))
