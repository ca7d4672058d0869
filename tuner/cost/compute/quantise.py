"""Time of a kernel that only quantises activations to fp8: vLLM's ``scaled_fp8_quant``, a block of threads per row.

    cast with given scales        t = floor + ||bytes, rows per slot x (row + width x value)||_3
    with a scale found per row    t = that, of more bytes and a longer row, + launch

vLLM leaves this to torch.compile where it can, and the norm or activation before then writes fp8 itself; elsewhere, and
without compilation, this kernel runs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.elementwise import elementwise_ms
from tuner.cost.compute.kinds import MS_PER_PS, MS_PER_S, MS_PER_US, Array, cached_bandwidth, smooth_max

_BYTES = 3  # of a value: 16 bits read, 8 written
_WARM_SHARE = 0.7  # of the L2 cache that activations just written keep


def quantise_rows_ms(
    profile: HardwareProfile, rows: ArrayLike, width: ArrayLike, *, find_scales: bool = True, warm: bool = False
) -> Array:
    """Milliseconds to quantise [rows, width] activations to fp8, with a scale found for each row or a given one.

    ``warm``: they are in the L2 cache. A device without a fit is priced as a kernel that moves as many bytes.
    """
    m, k = np.asarray(rows, dtype=float), np.asarray(width, dtype=float)
    fit = profile.quantise.get("fp8")
    if fit is None:
        return elementwise_ms(profile, _BYTES * m * k)
    bandwidth: float | Array = profile.memory_bytes_per_s * fit.memory_efficiency
    if warm:
        bandwidth = cached_bandwidth(float(bandwidth), _BYTES * m * k, profile.l2_bytes, _WARM_SHARE, fit.cache_gain)
    memory = _BYTES * m * k / bandwidth * MS_PER_S
    row_us, value_ps, floor_us = fit.row_us, fit.value_ps, fit.floor_us
    if find_scales:
        row_us, value_ps, floor_us = row_us + fit.scale_row_us, value_ps + fit.scale_value_ps, floor_us + fit.scale_us
        memory = memory * (1 + fit.scale_traffic)
    per_slot = np.maximum(m / (profile.sm_count * fit.slots), 1.0)
    compute = per_slot * (row_us * MS_PER_US + k * value_ps * MS_PER_PS)
    return np.asarray(smooth_max(memory, compute) + floor_us * MS_PER_US)
