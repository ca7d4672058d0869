"""Weights in 8-bit and 4-bit floating point by themselves: fp8, with a scale per matrix, output or block, and MXFP4.

After vLLM 0.29's ``fp8.py``, ``fbgemm_fp8.py`` and ``mxfp4.py``. LM heads are not quantised by any of them.
"""

from __future__ import annotations

from collections.abc import Callable

from tuner.ask.formats.document import QuantizationDocument
from tuner.ask.formats.module_names import Module, ModuleList
from tuner.ask.formats.quantization import Quantization
from tuner.ask.formats.weights import USUAL, Scheme, WeightFormat
from tuner.ask.models.matrices import Layer
from tuner.errors import BadInput

FP8_PER_TENSOR = WeightFormat("fp8", Scheme.SCALED, 8, (0, 0), 4)
FP8_PER_OUTPUT = WeightFormat("fp8", Scheme.SCALED, 8, (1, 0), 4)


def read_fp8(document: QuantizationDocument) -> Quantization:
    """fp8 as DeepSeek, Qwen and others publish it: in blocks, or with one scale per matrix (``Fp8Config``)."""
    if stored := document.word("store_dtype"):
        raise BadInput(document.place("store_dtype"), stored, "no store_dtype: what it changes is not priced")
    blocks = document.entries("weight_block_size")
    key = "ignored_layers" if document.entries("ignored_layers") else "modules_to_not_convert"
    one = block_fp8(blocks, document.place("weight_block_size"), Scheme.BLOCK) if blocks else FP8_PER_TENSOR
    return Quantization(_all_but(ModuleList(document.entries(key), document.place(key)), one))


def read_fbgemm_fp8(document: QuantizationDocument) -> Quantization:
    """fp8 with a scale per output, as Meta publishes it (``FBGEMMFp8Config``)."""
    key = "modules_to_not_convert"
    return Quantization(_all_but(ModuleList(document.entries(key), document.place(key)), FP8_PER_OUTPUT))


def read_mxfp4(document: QuantizationDocument) -> Quantization:
    """MXFP4 as gpt-oss has it: routed experts alone, with bfloat16 activations (``Mxfp4Config``)."""
    one = USUAL["mxfp4"]
    return Quantization(lambda module: one if module.layer is Layer.EXPERTS else None, activations=("bfloat16",))


def block_fp8(sides: object, where: str, scheme: Scheme) -> WeightFormat:
    """fp8 with a 32-bit scale per block of so many outputs and inputs; raises BadInput for what is no pair of them."""
    whole = isinstance(sides, list | tuple) and all(type(side) is int and side > 0 for side in sides)
    if not (isinstance(sides, list | tuple) and whole and len(sides) == 2):
        raise BadInput(where, sides, "two whole numbers of at least 1, such as [128, 128]")
    return WeightFormat("fp8_block", scheme, 8, (sides[0], sides[1]), 4)


def _all_but(ignored: ModuleList, one: WeightFormat) -> Callable[[Module], WeightFormat | None]:
    def format_of(module: Module) -> WeightFormat | None:
        outside = module.layer in (Layer.HEAD, Layer.EMBEDDING)
        return None if outside or ignored.has(module) else one

    return format_of
