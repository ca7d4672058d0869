"""NVIDIA ModelOpt, inline or in ``hf_quant_config.json``, after vLLM 0.29's ``modelopt.py``.

One algorithm for all modules but the excluded ones, or with ``MIXED_PRECISION`` one for each module that is listed. LM
heads are quantised like other matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tuner.ask.formats.document import QuantizationDocument
from tuner.ask.formats.floats import FP8_PER_OUTPUT, FP8_PER_TENSOR
from tuner.ask.formats.module_names import Module, ModuleList
from tuner.ask.formats.quantization import Quantization
from tuner.ask.formats.weights import USUAL, Scheme, WeightFormat
from tuner.ask.models.matrices import Layer
from tuner.errors import BadInput

_MIXED = "MIXED_PRECISION"
_NVFP4_ALONE = WeightFormat("nvfp4_wo", Scheme.NVFP4, 4, (1, 16), 1)
ALGORITHMS: Mapping[str, WeightFormat] = {
    "FP8": FP8_PER_TENSOR,
    "FP8_PER_CHANNEL_PER_TOKEN": FP8_PER_OUTPUT,
    "FP8_PB_WO": WeightFormat("fp8_block", Scheme.BLOCK_MODELOPT, 8, (128, 128), 4),
    "NVFP4": USUAL["nvfp4"],
    "W4A16_NVFP4": _NVFP4_ALONE,
    "MXFP8": WeightFormat("mxfp8", Scheme.MXFP8, 8, (1, 32), 1),
}
_BY_MODULE = ("FP8", "FP8_PB_WO", "NVFP4", "W4A16_NVFP4", "MXFP8")  # with others the engine takes plain weights


def read_modelopt(document: QuantizationDocument) -> Quantization:
    """Either form: everything under ``quantization``, or the keys of compressed-tensors beside ``quant_algo``."""
    beside = "quantization" in document.values
    inner = document.part("quantization") if beside else document
    key = "exclude_modules" if beside else "ignore"
    excluded = ModuleList(inner.entries(key), inner.place(key))
    chosen = _by_module(inner) if _algorithm(inner) == _MIXED else _everywhere(inner, document)

    def format_of(module: Module) -> WeightFormat | None:
        return None if module.layer is Layer.EMBEDDING or excluded.has(module) else chosen(module)

    cache = _kv_cache(inner, document)
    return Quantization(format_of, kv_cache=cache, latent_cache=cache)


def _algorithm(inner: QuantizationDocument) -> str:
    return inner.word("quant_algo").upper()


def _everywhere(inner: QuantizationDocument, document: QuantizationDocument) -> Callable[[Module], WeightFormat | None]:
    one = _format(inner, [*ALGORITHMS, _MIXED])
    groups = document.part("config_groups").parts()
    weights_alone = groups and all(not group.part("input_activations").values for _, group in groups)
    if one is ALGORITHMS["NVFP4"] and weights_alone:  # ModelOptNvFp4Config: no scales of activations to load
        one = _NVFP4_ALONE
    return lambda module: one


def _by_module(inner: QuantizationDocument) -> Callable[[Module], WeightFormat | None]:
    """``quantized_layers``: a module, or one that it is a part of, or for routed experts a part of it."""
    layers = [(key, _format(own, _BY_MODULE)) for key, own in inner.part("quantized_layers").parts()]
    if not layers:
        raise BadInput(inner.place("quantized_layers"), None, "the algorithm of each module, with MIXED_PRECISION")
    by_format: dict[WeightFormat, list[str]] = {}
    for key, one in layers:
        by_format.setdefault(one, []).append(key)
    lists = [(ModuleList(keys, inner.place("quantized_layers")), one) for one, keys in by_format.items()]
    return lambda module: next((one for names, one in lists if names.has(module)), None)


def _format(document: QuantizationDocument, allowed: Sequence[str]) -> WeightFormat:
    algorithm = _algorithm(document)
    if algorithm not in allowed or algorithm not in ALGORITHMS:
        raise BadInput(document.place("quant_algo"), document.values.get("quant_algo"), ", ".join(allowed))
    one = ALGORITHMS[algorithm]
    size = document.group_size(one.group or 1)
    if one.scheme is Scheme.NVFP4 and size != one.group:
        raise BadInput(document.place("group_size"), size, f"{one.group} with {algorithm}")
    return one


def _kv_cache(inner: QuantizationDocument, document: QuantizationDocument) -> str:
    """What ``auto`` becomes (``get_kv_cache_quant_algo_string``); the engine ignores what it does not know, and keeps
    the cache in the model's precision. Raises BadInput for a cache in NVFP4, which is not priced."""
    keys = ("kv_cache_scheme", "kv_cache_quant_algo")
    found = next((value for key in keys for one in (inner, document) if (value := one.values.get(key))), None)
    if isinstance(found, Mapping):
        sizes = (found.get("type"), found.get("num_bits"))
        static = found.get("dynamic") is False
        found = "FP8" if sizes == ("float", 8) and static else "NVFP4" if sizes == ("float", 4) else "auto"
    name = found.upper() if isinstance(found, str) else "AUTO"
    if name == "NVFP4":
        raise BadInput(inner.place("kv_cache_quant_algo"), "NVFP4", "FP8, or a cache in the model's own precision")
    return "fp8" if name == "FP8" else "auto"
