"""Which quantised matrices tensor parallelism can cut: weights that share a scale must stay together.

Each format has vLLM's own rule (0.29), by kind of layer:

- AWQ and GPTQ (``auto_awq.py``, ``auto_gptq.py``, ``marlin_utils.py``): a rank's inputs come in whole groups, its
  outputs in whole words of 32 bits; sides that miss a kernel's tiles are padded, except with activation order (64
  outputs and 128 inputs). Routed experts fall back to ``moe_wna16.py``, which halves groups down to 32 until they fit;
- packed integers of compressed-tensors (``compressed_tensors_wNa16.py``, ``…_moe_wna16.py``): the same, no fall-back;
- block fp8 (``validate_fp8_block_shape``): inputs of row-parallel and outputs of column-parallel matrices in whole
  blocks, and all but the last of merged outputs on one rank too; routed experts of method fp8 refine their blocks to a
  common divisor of at least 32 (``refine_fp8_moe_block_shape``, from 0.29), those of compressed-tensors and ModelOpt
  do not;
- NVFP4 (groups of 16) and MXFP8 (of 32): whole groups of inputs (``modelopt.py``);
- MXFP4 experts (``gpt_oss.py``) are padded to whole blocks on every rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from tuner.ask.engine_version import NEWEST, EngineVersion
from tuner.ask.formats.weights import Scheme, Storage, WeightFormat
from tuner.ask.model import ModelShape
from tuner.ask.models.matrices import Cut, Layer, Matrix

REFINED_SINCE = EngineVersion(0, 29)
SMALLEST_BLOCK = 32  # into which scales of experts are refined
_WORD_BITS = 32
_TILE_OUTPUTS, _TILE_INPUTS = 64, 128  # GPTQ_MARLIN_MIN_THREAD_N and _K
_PACKED = (Scheme.AWQ, Scheme.GPTQ, Scheme.PACKED)
_BLOCKS = (Scheme.BLOCK, Scheme.BLOCK_COMPRESSED)
_WIDTHS = {
    Layer.ATTENTION: "attention width",
    Layer.LINEAR: "linear attention width",
    Layer.DENSE: "MLP width",
    Layer.SHARED: "shared expert width",
    Layer.EXPERTS: "expert width",
    Layer.HEAD: "vocabulary rows",
}


@dataclass(frozen=True, slots=True)
class Straddle:
    """A kind of layer whose groups a layout would cut, with the ``figure``."""

    layer: Layer
    figure: str


def straddling(model: ModelShape, tp: int, whole_experts: bool, version: EngineVersion = NEWEST) -> Straddle | None:
    """The first kind of layer that so many tensor-parallel ranks cannot have, or None; ``whole_experts``: routed ones
    are not cut (expert parallelism). That widths divide by ``tp`` is a rule of its own, and not looked at here."""
    if not model.weights.grouped:
        return None
    for layer, matrices in _cut(model):
        stored: Storage = getattr(model.weights, layer)
        for one in stored.formats:
            quantised = tuple(matrix for matrix in matrices if stored.has(matrix.names, one))
            if figure := _dense(one, layer, quantised, tp):
                return Straddle(layer, figure)
    if model.experts:
        ranks, width = 1 if whole_experts else tp, model.experts.width or model.hidden
        for one in model.weights.experts.formats:
            if figure := _routed(one, width, model.experts.inter, ranks, version >= REFINED_SINCE):
                return Straddle(Layer.EXPERTS, figure)
    return None


def _cut(model: ModelShape) -> Iterable[tuple[Layer, Sequence[Matrix]]]:
    """Matrices that are cut like those of a dense model, by kind of layer; those of equal blocks once."""
    for block in model.kinds:
        quantised = (one for one in block.dense_matrices(model.hidden) if not (one.plain or one.recut))
        for layer, found in groupby(quantised, key=lambda matrix: matrix.layer):
            yield layer, tuple(found)
    head = Matrix(Layer.HEAD, model.head_names, model.padded_vocab, model.hidden, Cut.OUTPUTS)
    yield Layer.HEAD, (head,)


def _dense(one: WeightFormat, layer: Layer, matrices: Sequence[Matrix], tp: int) -> str | None:
    for index, matrix in enumerate(matrices):
        outputs, inputs = matrix.shard(tp)
        unit = _unit_of_inputs(one, matrix, tp)
        if unit and inputs % unit:
            width = _WIDTHS[layer] if matrix.cut is Cut.INPUTS else "input width"
            ranks = tp if matrix.cut is Cut.INPUTS else 1
            return _words(one, width, matrix.inputs, ranks, f"groups of {unit}")
        following = matrices[index + 1] if index + 1 < len(matrices) else None
        unit = _unit_of_outputs(one, matrix, following, tp)
        if one.act_order:  # Marlin's tiles lie over what is merged
            merged = [p for p in matrices if p is matrix or (p.fused and p.fused == matrix.fused)]
            outputs = sum(p.shard(tp)[0] for p in merged)
        if unit and outputs % unit:
            sort = "blocks" if one.scheme in _BLOCKS else "multiples"
            ranks = tp if matrix.cut is Cut.OUTPUTS else 1
            return _words(one, _outputs_of(matrix, layer), matrix.outputs, ranks, f"{sort} of {unit}")
    return None


def _unit_of_inputs(one: WeightFormat, matrix: Matrix, tp: int) -> int:
    """Inputs in which a rank's part comes; 0: any."""
    by_rows = matrix.cut is Cut.INPUTS and tp > 1
    if one.scheme in _BLOCKS:
        return one.group if by_rows else 0
    group = 0 if one.scheme in _PACKED and one.group >= matrix.inputs else one.group
    if one.act_order and tp > 1:
        return math.lcm(group or 1, _TILE_INPUTS)
    return group


def _unit_of_outputs(one: WeightFormat, matrix: Matrix, following: Matrix | None, tp: int) -> int:
    """Outputs in which a rank's part comes; 0: any."""
    if one.scheme in _BLOCKS:
        merged = matrix.fused is not None and following is not None and following.fused == matrix.fused
        split = matrix.cut is Cut.OUTPUTS and tp > 1
        return one.block[0] if split or merged else 0
    if one.scheme not in _PACKED:
        return 0
    if one.act_order and tp > 1:
        return _TILE_OUTPUTS
    return _WORD_BITS // one.bits if one.zero_bits or one.scheme is Scheme.AWQ else 0


def _outputs_of(matrix: Matrix, layer: Layer) -> str:
    if matrix.cut is Cut.INPUTS:
        return "hidden size"
    return "attention outputs" if layer is Layer.ATTENTION else _WIDTHS[layer]


def _routed(one: WeightFormat, hidden: int, width: int, ranks: int, refines: bool) -> str | None:
    """What stands against cutting routed experts of that ``width`` over so many ranks, or None; ``refines``: vLLM does
    so with blocks of fp8."""
    shard, named = width // ranks, _WIDTHS[Layer.EXPERTS]
    if one.scheme is Scheme.BLOCK:
        side, inputs = one.block
        common = math.gcd(side, inputs, shard, hidden)
        if shard % side == 0 and (ranks == 1 or shard % inputs == 0):
            return None
        if not refines:
            return _words(one, named, width, ranks, f"blocks of {side}, which vLLM refines from {REFINED_SINCE} on")
        if common >= SMALLEST_BLOCK:
            return None
        return _words(one, named, width, ranks, f"blocks of {side}, nor of a divisor of at least {SMALLEST_BLOCK}")
    unit, of_hidden = one.group, one.group
    if one.scheme in (Scheme.BLOCK_COMPRESSED, Scheme.BLOCK_MODELOPT):
        unit, of_hidden = math.lcm(one.block[0], one.group if ranks > 1 else 1), 0
    elif one.scheme is Scheme.MXFP4:  # padded on every rank
        return None
    elif one.act_order:
        unit = max(_TILE_OUTPUTS, one.group)
    elif one.scheme in (Scheme.AWQ, Scheme.GPTQ):
        unit = of_hidden = _halved(one.group, shard, hidden)
    if unit and shard % unit:
        return _words(one, named, width, ranks, f"groups of {unit}")
    if of_hidden and hidden % of_hidden:
        return _words(one, "hidden size", hidden, 1, f"groups of {of_hidden}")
    return None


def _halved(group: int, shard: int, hidden: int) -> int:
    """The group that ``moe_wna16.py`` takes: halved until both sides come in whole groups, but no smaller than 32."""
    while group > SMALLEST_BLOCK and (shard % group or hidden % group):
        group //= 2
    return group


def _words(one: WeightFormat, width: str, size: int, ranks: int, units: str) -> str:
    cut = f" by tp={ranks}" if ranks > 1 else ""
    return f"{width} {size} does not divide{cut} in {units} ({one.scheme.value})"
