"""Which formats of weights a device has kernels for (vLLM 0.29), where that depends on the device.

On GPUs from compute capability 8.0 every format that is read has one: Marlin widens what the device cannot multiply.
Only the refined blocks of fp8 experts (``tuner.ask.shard_rules``) need Triton's kernels, and those fp8 in hardware. On
ROCm (``_POSSIBLE_*`` of ``model_executor/kernels/linear``) some are emulated or missing. On CPUs
(``model_executor/kernels/linear``, ``fused_moe/experts/cpu_moe.py``) few formats have one.
"""

from __future__ import annotations

import math

from tuner.ask.formats.weights import Scheme, WeightFormat
from tuner.ask.model import ModelShape
from tuner.ask.models.matrices import Layer
from tuner.ask.profile import HardwareProfile

_FP8_CAPABILITY = 8.9
_CPU_SIDES = 32  # CPUWNA16LinearKernel: inputs and outputs of a rank come in multiples of it
_ON_CPUS = ("bf16", "fp32", "int4", "int8", "fp8", "fp8_block")  # blocks with AMX
_ONLY_EXPERTS_ON_CPUS = ("mxfp4",)


def without_kernel(model: ModelShape, tp: int, whole_experts: bool, profile: HardwareProfile) -> str | None:
    """The figure of the first format that the device cannot multiply, cut over ``tp`` ranks, or None."""
    if not profile.kind.own_memory:
        return _on_cpu(model, tp)
    if lacking := profile.kind.unpriced_formats:
        for layer in Layer:
            for one in getattr(model.weights, layer).formats:
                if one.kind in lacking:
                    return (
                        f"vLLM multiplies no {_named(one)} weights on {profile.name}, but widens them first: no price"
                    )
    capability = profile.compute_capability
    if model.experts is None or capability is None or capability >= _FP8_CAPABILITY:
        return None
    width = model.experts.inter if whole_experts else model.experts.inter // tp
    for one in model.weights.experts.formats:
        if one.scheme is Scheme.BLOCK and width % math.lcm(*one.block):
            blocks = f"expert width {width} in refined blocks of fp8 by tp={tp}"
            return f"{blocks} needs compute capability {_FP8_CAPABILITY}, {profile.name} has {capability}"
    return None


def _on_cpu(model: ModelShape, tp: int) -> str | None:
    matrices = [matrix for block in model.kinds for matrix in block.dense_matrices(model.hidden) if not matrix.plain]
    for layer in Layer:
        allowed = (*_ON_CPUS, *_ONLY_EXPERTS_ON_CPUS) if layer is Layer.EXPERTS else _ON_CPUS
        for one in getattr(model.weights, layer).formats:
            if one.kind not in allowed:
                return f"no kernel for {_named(one)} weights on a CPU; it has one for {', '.join(allowed)}"
            for matrix in (matrix for matrix in matrices if matrix.layer is layer):
                ragged = next((side for side in matrix.shard(tp) if side % _CPU_SIDES), None)
                if one.kind == "int4" and ragged is not None:
                    return f"{_named(one)} weights on a CPU need sides of multiples of {_CPU_SIDES}, not {ragged}"
    return None


def _named(one: WeightFormat) -> str:
    return one.kind if one.scheme in (Scheme.PLAIN, Scheme.SCALED) else f"{one.scheme.value} {one.kind}"
