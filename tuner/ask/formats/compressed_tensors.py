"""compressed-tensors (LLM Compressor): groups of modules, each with a format of its own, after vLLM 0.29's
``compressed_tensors.py`` and its schemes. What the engine has no scheme for is refused by name."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.ask.formats.document import QuantizationDocument
from tuner.ask.formats.floats import FP8_PER_OUTPUT, FP8_PER_TENSOR, block_fp8
from tuner.ask.formats.module_names import Module, ModuleList
from tuner.ask.formats.quantization import Quantization
from tuner.ask.formats.weights import USUAL, Scheme, WeightFormat
from tuner.ask.models.matrices import Layer
from tuner.errors import BadInput

_CLASSES = {  # classes of modules that targets name, and the kinds of layers that they are
    "Linear": (Layer.ATTENTION, Layer.LINEAR, Layer.DENSE, Layer.SHARED, Layer.EXPERTS),
    "RoutedExperts": (Layer.EXPERTS,),
    "FusedMoE": (Layer.EXPERTS,),
    "ParallelLMHead": (Layer.HEAD,),
    "Embedding": (Layer.EMBEDDING,),
}
_PACKED = {4: "int4", 8: "int8_wo"}
_ALLOWED = (
    "weights that the engine reads: packed integers of 4 or 8 bits without activations, int8 or fp8 with or without "
    "them, 4-bit floats in groups of 16 or 32, 8-bit floats in groups of 32"
)
_Group = tuple[ModuleList, frozenset[Layer], WeightFormat]


def read_compressed_tensors(document: QuantizationDocument) -> Quantization:
    """All ``config_groups``: a module belongs to the first that has its name, else to the first of its class."""
    sparse = document.part("sparsity_config")
    if targets := sparse.entries("targets"):  # _parse_sparsity_config
        raise BadInput(sparse.place("targets"), targets, "nothing: the engine reads no sparse weights any more")
    groups = [_group(group, document.word("format")) for _, group in document.part("config_groups").parts()]
    kept = [group for group in groups if group is not None]
    if not kept:
        raise BadInput(document.place("config_groups"), document.values.get("config_groups"), "at least one group")
    ignored = ModuleList(document.entries("ignore"), document.place("ignore"))

    def format_of(module: Module) -> WeightFormat | None:
        if ignored.has(module):
            return None
        named = (one for names, _, one in kept if names.has(module))
        alike = (one for _, layers, one in kept if module.layer in layers)
        return next(named, None) or next(alike, None)

    return Quantization(format_of, kv_cache=_kv_cache(document))


def _group(group: QuantizationDocument, everywhere: str) -> _Group | None:
    """Names, kinds of layers and format of one group; None for one of attention, which the engine skips."""
    targets = group.entries("targets") or ("Linear",)
    if len(targets) == 1 and str(targets[0]).endswith("Attention"):
        return None
    names: list[object] = [target for target in targets if str(target) not in _CLASSES]
    layers: Sequence[Layer] = [layer for target in targets for layer in _CLASSES.get(str(target), ())]
    own = group.word("format", everywhere)
    return ModuleList(names, group.place("targets")), frozenset(layers), format_of_group(group, own)


def format_of_group(group: QuantizationDocument, packing: str) -> WeightFormat:
    """The format of a group's ``weights`` beside its ``input_activations`` (``_get_scheme_from_parts``)."""
    weights, activations = group.part("weights"), group.part("input_activations")
    bits, kind, act_bits = weights.whole("num_bits", 8), weights.word("type", "int"), activations.whole("num_bits", 0)
    if kind == "float" and bits == 4:
        found = _float4(weights, act_bits)
    elif kind == "float" and bits == 8:
        found = _float8(weights, act_bits)
    else:
        found = _integer(weights, act_bits) if kind == "int" else None
    if found is None:
        given = f"{kind}{bits} {weights.word('strategy')} {packing}, activations of {act_bits or 16} bits"
        raise BadInput(weights.where, " ".join(given.split()), _ALLOWED)
    return found


def _float4(weights: QuantizationDocument, act_bits: int) -> WeightFormat | None:
    """NVFP4 in groups of 16, MXFP4 in groups of 32."""
    match weights.group_size(16):
        case 16 if act_bits in (0, 4):
            return USUAL["nvfp4"] if act_bits else WeightFormat("nvfp4_wo", Scheme.NVFP4, 4, (1, 16), 1)
        case 32:
            return USUAL["mxfp4"]
        case _:
            return None


def _float8(weights: QuantizationDocument, act_bits: int) -> WeightFormat | None:
    if act_bits not in (0, 8):
        return None
    strategy = weights.word("strategy", "group" if weights.values.get("group_size") else "tensor")
    if strategy == "block":
        sides = weights.values.get("block_structure") or [128, 128]
        return block_fp8(sides, weights.place("block_structure"), Scheme.BLOCK_COMPRESSED)
    if strategy == "group":
        return WeightFormat("mxfp8", Scheme.MXFP8, 8, (1, 32), 1) if weights.group_size() == 32 else None
    found = {"tensor": FP8_PER_TENSOR, "channel": FP8_PER_OUTPUT}.get(strategy)
    if found is None or act_bits:
        return found
    return WeightFormat("fp8_wo", found.scheme, found.bits, found.block, found.scale_bytes)


def _integer(weights: QuantizationDocument, act_bits: int) -> WeightFormat | None:
    """Packed weights alone (``CompressedTensorsWNA16``), or int8 with int8 activations."""
    bits, grouped = weights.whole("num_bits", 8), bool(weights.values.get("group_size"))
    strategy = weights.word("strategy", "group" if grouped else "channel")
    symmetric, order = weights.flag("symmetric", True), weights.values.get("actorder")
    if act_bits == 8 and bits == 8 and symmetric and strategy in ("tensor", "channel"):
        return WeightFormat("int8", Scheme.SCALED, 8, (1, 0) if strategy == "channel" else (0, 0), 4)
    if act_bits or bits not in _PACKED or strategy not in ("group", "channel"):
        return None
    group = weights.group_size() if strategy == "group" else 0
    by_order = order in ("group", "dynamic", True)  # static and weight order leave the groups as they are
    zero_bits, index_bytes = 0 if symmetric else bits, 4 if by_order else 0
    return WeightFormat(_PACKED[bits], Scheme.PACKED, bits, (1, group), 2, zero_bits, index_bytes, by_order)


def _kv_cache(document: QuantizationDocument) -> str:
    """What ``auto`` becomes: fp8 where the checkpoint has scales for it (``attention.py``; latent attention does not
    look). Raises BadInput for another cache, as ``CompressedTensorsKVCacheMethod`` does."""
    scheme = document.part("kv_cache_scheme")
    if not scheme.values:
        return "auto"
    kind, bits = scheme.word("type", "float"), scheme.whole("num_bits", 8)
    strategy, symmetric = scheme.word("strategy", "tensor"), scheme.flag("symmetric", True)
    if (kind, bits, symmetric) != ("float", 8, True) or strategy not in ("tensor", "attn_head"):
        given = f"{kind}{bits} {strategy}{'' if symmetric else ' asymmetric'}"
        raise BadInput(scheme.where, given, "symmetric 8-bit floating point by tensor or attn_head")
    return "fp8"
