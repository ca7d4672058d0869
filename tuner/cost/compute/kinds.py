"""What the compute models share: precisions, smooth maxima, and the terms that a kernel's time is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.ask.profile import HardwareProfile
from tuner.errors import BadInput

Array = NDArray[np.float64]
_Fit = TypeVar("_Fit")

MS_PER_S = 1e3
MS_PER_US = 1e-3
MS_PER_NS = 1e-6
MS_PER_PS = 1e-9


@dataclass(frozen=True, slots=True)
class Precision:
    """How one kind of matrix product stores and multiplies its operands.

    ``math`` names the peak of the profile; ``weight_bytes`` is per weight with its scales (16 values share one for
    nvfp4, 32 for mxfp4, 128 for int4 and fp8_block); ``activation_bytes`` is per activation value that is read.
    ``quantised`` kernels are preceded by one that quantises the activations; ``_wo`` are weights alone, widened to
    bf16 on the fly. What a device holds of a checkpoint is another matter (``tuner.ask.formats``).
    """

    kind: str
    math: str
    weight_bytes: float
    activation_bytes: float
    quantised: bool


_PRECISIONS = {
    "bf16": Precision("bf16", "bf16", 2.0, 2.0, False),
    "fp32": Precision("fp32", "fp32", 4.0, 4.0, False),
    "fp8": Precision("fp8", "fp8", 1.0, 1.0, True),
    "fp8_block": Precision("fp8_block", "fp8", 1.0, 1.0, True),
    "nvfp4": Precision("nvfp4", "fp4", 0.5625, 0.5625, True),
    "mxfp4_fp8": Precision("mxfp4_fp8", "fp8", 0.53125, 1.0, True),
    "mxfp4": Precision("mxfp4", "bf16", 0.53125, 2.0, False),
    "int4": Precision("int4", "bf16", 0.53, 2.0, False),
    "int8": Precision("int8", "int8", 1.0, 1.0, True),
    "mxfp8": Precision("mxfp8", "fp8", 1.03125, 1.0, True),
    "fp8_wo": Precision("fp8_wo", "bf16", 1.0, 2.0, False),
    "int8_wo": Precision("int8_wo", "bf16", 1.0, 2.0, False),
    "nvfp4_wo": Precision("nvfp4_wo", "bf16", 0.5625, 2.0, False),
}
_ALIASES = {
    "auto": "bf16", "bfloat16": "bf16", "float16": "bf16", "fp16": "bf16", "half": "bf16",
    "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp8_static": "fp8", "w8a8_fp8": "fp8", "fp8_ds_mla": "fp8",
    "block_fp8": "fp8_block", "fp4": "nvfp4", "w4a4_nvfp4": "nvfp4",
    "w4a16_mxfp4": "mxfp4", "w4a8_mxfp4_mxfp8": "mxfp4_fp8",
    "int4_wo": "int4", "w4a16": "int4", "awq": "int4", "gptq": "int4",
    "w8a8": "int8", "w8a8_int8": "int8",
}  # fmt: skip


def precision(profile: HardwareProfile, dtype: str) -> Precision:
    """The precision that ``dtype`` runs at on this device.

    Where the device has no units for it, vLLM's Marlin kernels widen the weights on the fly and multiply in bf16: the
    weights keep their size, the arithmetic and the activations are bf16's. Raises ``BadInput`` for an unknown name.
    """
    found = _PRECISIONS.get(_ALIASES.get(dtype, dtype))
    if found is None:
        raise BadInput("precision", dtype, ", ".join(sorted({*_PRECISIONS, *_ALIASES})))
    if found.math in profile.peak_flops_per_s:
        return found
    if found.math == "fp32":
        raise BadInput(
            f"profile {profile.name}: peak_flops_per_s.fp32", None, "a number above 0, to compute in float32"
        )
    return Precision(found.kind, "bf16", found.weight_bytes, 2.0, False)


_NEAREST: Mapping[str, tuple[str, ...]] = {
    "bf16": ("mxfp4", "bf16"),
    "fp8": ("fp8", "fp8_block", "bf16"),
    "fp4": ("nvfp4", "fp8", "bf16"),
    "int8": ("fp8", "bf16"),
    "fp32": ("bf16",),
}


def fit_for(fits: Mapping[str, _Fit], kind: Precision, section: str) -> _Fit:
    """The fitted parameters for a precision; one that was not measured borrows those of the nearest that was.

    First the precision itself, then the one that shares its arithmetic: weights that are widened on the fly go with
    mxfp4's kernels, int8 with fp8's.
    """
    for name in (kind.kind, *_NEAREST[kind.math]):
        if name in fits:
            return fits[name]
    raise BadInput(f"profile.{section}", sorted(fits), "parameters for bf16 at least")


@dataclass(frozen=True, slots=True)
class Terms:
    """The parts of a kernel's time in ms, and their total; arrays of one broadcast shape.

    ``compute_ms`` and ``memory_ms`` overlap (a smooth maximum of both enters the total); ``overhead_ms`` is what
    comes on top: launch, prologue, separate small kernels.
    """

    compute_ms: Array
    memory_ms: Array
    overhead_ms: Array
    total_ms: Array

    @property
    def bound(self) -> NDArray[np.str_]:
        """Which part is the largest: ``compute``, ``memory`` or ``overhead``."""
        parts = np.broadcast_arrays(self.compute_ms, self.memory_ms, self.overhead_ms)
        names = np.array(["compute", "memory", "overhead"])
        return np.asarray(names[np.argmax(np.stack(parts), axis=0)])


def sum_terms(*kernels: Terms) -> Terms:
    """Terms of kernels that run one after the other."""
    found = kernels[0]
    for kernel in kernels[1:]:
        found = Terms(
            np.asarray(found.compute_ms + kernel.compute_ms),
            np.asarray(found.memory_ms + kernel.memory_ms),
            np.asarray(found.overhead_ms + kernel.overhead_ms),
            np.asarray(found.total_ms + kernel.total_ms),
        )
    return found


def smooth_max(a: ArrayLike, b: ArrayLike) -> Array:
    """The 3-norm of two non-negative times: their maximum, rounded off where they are close."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return np.asarray(np.cbrt(x * x * x + y * y * y))


def sharp_max(a: ArrayLike, b: ArrayLike) -> Array:
    """The 8-norm of two non-negative times: nearly their maximum."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    for _ in range(3):
        x, y = x * x, y * y
    return np.asarray(np.sqrt(np.sqrt(np.sqrt(x + y))))


def cached_bandwidth(bandwidth: float, moved_bytes: Array, l2_bytes: float, share: float, gain: float) -> Array:
    """Bytes per second when ``moved_bytes`` were used just before: up to 1 + ``gain`` times faster from the L2 cache.

    ``share`` of the cache is what such data can hope for; the change is gradual. Benchmarks that repeat one kernel see
    this, a model that streams all its weights in between does not.
    """
    ratio = moved_bytes / (l2_bytes * share)
    square = ratio * ratio
    return np.asarray(bandwidth * (1 + gain / (1 + square * square)))
