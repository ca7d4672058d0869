"""From a checkpoint's configuration to how each kind of layer is stored. What is not understood is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from typing import TYPE_CHECKING

from tuner.ask.formats.compressed_tensors import read_compressed_tensors
from tuner.ask.formats.document import QuantizationDocument
from tuner.ask.formats.floats import read_fbgemm_fp8, read_fp8, read_mxfp4
from tuner.ask.formats.integers import read_auto_round, read_awq, read_gptq
from tuner.ask.formats.modelopt import read_modelopt
from tuner.ask.formats.module_names import Module, in_layer, of_tower, outside
from tuner.ask.formats.quantization import Quantization
from tuner.ask.formats.quark import read_quark
from tuner.ask.formats.weights import PLAIN, Storage, WeightFormat, Weights
from tuner.ask.models.matrices import Layer, Matrix
from tuner.errors import BadInput

if TYPE_CHECKING:
    from tuner.ask.model import ModelShape
    from tuner.ask.models.blocks import Block

Place = tuple[tuple[str, ...], WeightFormat]
"""A matrix, by its names inside a block, and a format that it has in some layer."""

_READERS: Mapping[str, Callable[[QuantizationDocument], Quantization]] = {
    **dict.fromkeys(("awq", "auto_awq", "awq_marlin"), read_awq),
    **dict.fromkeys(("gptq", "auto_gptq", "gptq_marlin"), read_gptq),
    **dict.fromkeys(("auto-round", "inc"), read_auto_round),
    **dict.fromkeys(("modelopt", "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8"), read_modelopt),
    **dict.fromkeys(("mxfp4", "gpt_oss_mxfp4"), read_mxfp4),
    "fp8": read_fp8,
    "fbgemm_fp8": read_fbgemm_fp8,
    "compressed-tensors": read_compressed_tensors,
    "quark": read_quark,
}


def read_quantization(document: QuantizationDocument) -> Quantization:
    """What the document says; raises BadInput for a method that is not priced, or a value that cannot be."""
    reader = _READERS.get(document.method)
    if reader is None:
        raise BadInput(document.place("quant_method"), document.values.get("quant_method"), ", ".join(_READERS))
    return reader(document)


def stored_weights(model: ModelShape, quantization: Quantization, precision: str, where: str) -> Weights:
    """How the ``model`` is stored: each kind of layer with the share of its weights in every format.

    What is not quantised is in the ``precision`` that the model computes in. Raises BadInput, at the ``where`` of the
    quantisation, for matrices in several formats that the engine merges into one.
    """
    counted: dict[Layer, dict[WeightFormat, int]] = {layer: {} for layer in Layer}
    places: dict[Layer, set[Place]] = {layer: set() for layer in Layer}

    def count(layer: Layer, module: Module, weights: int, names: tuple[str, ...] = ()) -> WeightFormat:
        found = quantization.format_of(module) or PLAIN[precision]
        counted[layer][found] = counted[layer].get(found, 0) + weights
        places[layer].add((names, found))
        return found

    matrices = [tuple(_quantisable(block, model.hidden)) for block in model.kinds]
    for index, kind in enumerate(model.order):
        merged: dict[tuple[Layer, str], tuple[Module, WeightFormat]] = {}
        for matrix in matrices[kind]:
            module = in_layer(matrix, model.kinds[kind].prefix, index, model.nested)
            one = count(matrix.layer, module, matrix.weights, matrix.names)
            if matrix.fused:
                first = merged.setdefault((matrix.layer, matrix.fused), (module, one))
                _require_alike(first, (module, one), matrix.fused, where)
    for tower in model.towers:
        for index, block in enumerate(tower.layers):
            for matrix in _quantisable(block, tower.hidden):
                count(Layer.TOWER, of_tower(in_layer(matrix, block.prefix, index, False).names), matrix.weights)
        for matrix in tower.around:
            if not matrix.plain:
                count(Layer.TOWER, of_tower(matrix.names), matrix.weights)
    head = model.embedding_names if model.tied_embeddings else model.head_names
    count(Layer.HEAD, outside(Layer.EMBEDDING if model.tied_embeddings else Layer.HEAD, head, model.nested), 1)
    count(Layer.EMBEDDING, outside(Layer.EMBEDDING, model.embedding_names, model.nested), 1)
    plain = Weights.plainly(precision)
    stored = {layer.value: _storage(formats, places[layer]) for layer, formats in counted.items() if formats}
    return Weights(**{name: stored.get(name, getattr(plain, name)) for name in Layer}, plain=PLAIN[precision])


def _require_alike(
    first: tuple[Module, WeightFormat], second: tuple[Module, WeightFormat], merged: str, where: str
) -> None:
    """The engine merges both into one matrix: no format of it says there are two (``is_layer_skipped``,
    ``should_ignore_layer``, ``_resolve_quant_algo``)."""
    if first[1] != second[1]:
        given = " and ".join(f"{module.names[0]} in {one.kind}" for module, one in (first, second))
        raise BadInput(where, given, f"one format for what the engine merges into {merged}")


def _quantisable(block: Block, hidden: int) -> Iterator[Matrix]:
    """Matrices of a layer that may be quantised; routed experts are spoken for by the first of them."""
    yield from (matrix for matrix in block.dense_matrices(hidden) if not matrix.plain)
    if block.experts is not None:
        yield from block.experts.expert(hidden)


def _storage(formats: Mapping[WeightFormat, int], places: Set[Place]) -> Storage:
    """Formats by their share, the largest first; ``places`` where a matrix lacks one of them."""
    total = sum(formats.values())
    parts = tuple((one, count / total) for one, count in sorted(formats.items(), key=lambda item: -item[1]))
    everywhere = len(places) == len(formats) * len({names for names, _ in places})
    return Storage(parts, frozenset() if everywhere else frozenset(places))
