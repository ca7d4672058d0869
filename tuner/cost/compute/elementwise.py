"""Small kernels that only move bytes: norms, rotary embedding, activation, sampling."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.kinds import MS_PER_S, MS_PER_US, Array

_LOGIT_PASSES = 4  # of float32 logits: cast, penalties, soft-max, arg-max or random draw
_SAMPLING_KERNELS = 6


def elementwise_ms(profile: HardwareProfile, moved_bytes: ArrayLike, kernels: float = 1) -> Array:
    """Milliseconds for ``kernels`` launches that together read and write ``moved_bytes`` on one device."""
    fit = profile.elementwise
    seconds = np.asarray(moved_bytes, dtype=float) / (profile.memory_bytes_per_s * fit.memory_efficiency)
    return np.asarray(kernels * fit.floor_us * MS_PER_US + seconds * MS_PER_S)


def sampling_ms(profile: HardwareProfile, rows: ArrayLike, vocab: int) -> Array:
    """Milliseconds to draw one token for each of ``rows`` sequences from ``vocab`` logits."""
    moved = _LOGIT_PASSES * 4.0 * vocab * np.asarray(rows, dtype=float)
    return elementwise_ms(profile, moved, kernels=_SAMPLING_KERNELS)
