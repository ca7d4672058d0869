"""AMD Quark, after vLLM 0.29's ``quark.py``: fp8 and int8, with a scale per matrix or output. Its 4-bit floats and
lists of two formats are refused by name."""

from __future__ import annotations

from tuner.ask.formats.document import QuantizationDocument
from tuner.ask.formats.floats import FP8_PER_OUTPUT, FP8_PER_TENSOR
from tuner.ask.formats.module_names import Module, ModuleList
from tuner.ask.formats.quantization import Quantization
from tuner.ask.formats.weights import Scheme, WeightFormat
from tuner.ask.models.matrices import Layer
from tuner.errors import BadInput

_FP8, _INT8 = "fp8_e4m3", "int8"
_FORMATS = {
    (_FP8, "per_tensor"): FP8_PER_TENSOR,
    (_FP8, "per_channel"): FP8_PER_OUTPUT,
    (_INT8, "per_tensor"): WeightFormat("int8", Scheme.SCALED, 8, (0, 0), 4),
    (_INT8, "per_channel"): WeightFormat("int8", Scheme.SCALED, 8, (1, 0), 4),
}
_ALLOWED = "weights and activations both fp8_e4m3 or both int8, the weights per_tensor or per_channel"
_Named = tuple[ModuleList, WeightFormat]


def read_quark(document: QuantizationDocument) -> Quantization:
    """Formats by name (``layer_quant_config``), else that of all; the cache stays in the model's precision, as scales
    for another do not choose it. LM head and embedding are never quantised."""
    if not document.part("export").values:
        raise BadInput(document.place("export"), None, "an object: the engine takes no checkpoint without")
    excluded = ModuleList(document.entries("exclude"), document.place("exclude"))
    everywhere = _format(document.part("global_quant_config"))
    own = document.part("layer_quant_config")
    named: list[_Named] = [(ModuleList([name], own.where), _format(one)) for name, one in own.parts()]

    def format_of(module: Module) -> WeightFormat | None:
        if module.layer in (Layer.HEAD, Layer.EMBEDDING) or excluded.has(module):
            return None
        return next((one for names, one in named if names.has(module)), everywhere)

    return Quantization(format_of)


def _format(group: QuantizationDocument) -> WeightFormat:
    """One format; raises BadInput for what the engine has no scheme for, or this room no price."""
    if group.values.get("bias"):
        raise BadInput(group.place("bias"), group.values["bias"], "nothing: the engine takes no quantised biases")
    for key in ("weight", "input_tensors"):
        if isinstance(group.values.get(key), list):
            raise BadInput(group.place(key), group.values[key], _ALLOWED)
    weights, inputs = group.part("weight"), group.part("input_tensors")
    kind, scheme = weights.word("dtype"), weights.word("qscheme")
    found = _FORMATS.get((kind, scheme))
    symmetric = kind == _FP8 or weights.values.get("symmetric") is True
    if found is None or inputs.word("dtype") != kind or weights.flag("is_dynamic", False) or not symmetric:
        given = f"{kind} {scheme}, activations in {inputs.word('dtype') or 'that of the model'}"
        raise BadInput(weights.where, given, _ALLOWED)
    if not inputs.flag("is_dynamic", False) and inputs.word("qscheme") != "per_tensor":
        raise BadInput(inputs.place("qscheme"), inputs.word("qscheme"), "per_tensor, where scales are static")
    return found
