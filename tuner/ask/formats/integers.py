"""Integers of 4 or 8 bits in groups: AWQ, GPTQ and auto-round, after vLLM 0.29's ``auto_awq.py``, ``auto_gptq.py`` and
``inc/``. Both pack weights into words of 32 bits and keep 16-bit scales; a packed zero point stands beside each scale
in the checkpoint, in GPTQ's even where it says nothing (``sym``), with the group of every input (``g_idx``)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tuner.ask.formats.document import QuantizationDocument
from tuner.ask.formats.module_names import Module, ModuleList, expression
from tuner.ask.formats.quantization import Quantization
from tuner.ask.formats.weights import Scheme, WeightFormat
from tuner.ask.models.matrices import Layer
from tuner.errors import BadInput

GPTQ_GROUPS = (0, 32, 64, 128)  # MARLIN_SUPPORTED_GROUP_SIZES, which AutoGPTQLinearMethod verifies; 0: per output
_KINDS = {4: "int4", 8: "int8_wo"}


def read_awq(document: QuantizationDocument) -> Quantization:
    """AWQ: 4 bits, asymmetric or not (``AutoAWQConfig``)."""
    found = _awq(document, "w_bit" if "w_bit" in document.values else "bits")
    ignored = ModuleList(document.entries("modules_to_not_convert"), document.place("modules_to_not_convert"))
    head = document.flag("lm_head", False)
    return Quantization(lambda module: found if _linear(module, head) and not ignored.has(module) else None)


def read_gptq(document: QuantizationDocument) -> Quantization:
    """GPTQ: 4 or 8 bits, symmetric, with rules by module in ``dynamic`` (``AutoGPTQConfig``)."""
    usual, head = _gptq(document), document.flag("lm_head", False)
    rules = _dynamic(document, usual)
    chosen = ModuleList(_flat(document), document.place("modules_in_block_to_quantize"))
    limited = bool(_flat(document))

    def format_of(module: Module) -> WeightFormat | None:
        if not _linear(module, head) or (limited and not chosen.has(module)):
            return None
        return next((one for pattern, one in rules if any(pattern.match(name) for name in module.names)), usual)

    return Quantization(format_of)


def read_auto_round(document: QuantizationDocument) -> Quantization:
    """Integers of auto-round, packed as GPTQ or AWQ do, with other sizes for some modules (``INCConfig``)."""
    kind = document.word("data_type", "int")
    packing = document.word("packing_format", "auto_round:auto_gptq")
    if kind != "int" or not packing.endswith(("gptq", "awq")):
        given = f"{kind} as {packing}"
        raise BadInput(document.place("data_type"), given, "int, packed as auto_round:auto_gptq or auto_round:auto_awq")
    reader = _awq if packing.endswith("awq") else _gptq
    usual, extra = reader(document, "bits"), document.part("extra_config")
    rules = [(_named(key, extra), _overridden(own, document, reader)) for key, own in extra.parts()]

    def format_of(module: Module) -> WeightFormat | None:
        ruled = [one for named, one in rules if named.has(module)]
        return ruled[0] if ruled else (usual if _linear(module, False) else None)

    return Quantization(format_of)


def _linear(module: Module, head: bool) -> bool:
    return module.layer is not Layer.EMBEDDING and (head or module.layer is not Layer.HEAD)


def _awq(document: QuantizationDocument, bits_key: str = "bits") -> WeightFormat:
    bits = document.whole(bits_key)
    if bits != 4:
        raise BadInput(document.place(bits_key), bits, "4: no kernel of the engine reads another AWQ")
    size = "q_group_size" if "q_group_size" in document.values else "group_size"
    group = QuantizationDocument({"group_size": document.values.get(size, 128)}, document.where).group_size()
    zero = document.flag("zero_point", True)
    return WeightFormat("int4", Scheme.AWQ, 4, (1, group), 2, 4 if zero else 0)


def _gptq(document: QuantizationDocument, bits_key: str = "bits") -> WeightFormat:
    bits, group = document.whole(bits_key), document.group_size(128)
    if bits not in _KINDS:
        raise BadInput(document.place(bits_key), bits, "4-bit or 8-bit weights: no kernel of the engine reads others")
    if not document.flag("sym", True):
        raise BadInput(document.place("sym"), False, "true: the engine reads no asymmetric GPTQ")
    if group not in GPTQ_GROUPS:
        raise BadInput(document.place("group_size"), group, "-1, 32, 64 or 128: Marlin's groups")
    act_order = document.flag("desc_act", False) and group > 0  # one group has no order (AutoGPTQConfig)
    return WeightFormat(_KINDS[bits], Scheme.GPTQ, bits, (1, group), 2, bits, 4, act_order)


def _dynamic(
    document: QuantizationDocument, usual: WeightFormat
) -> Sequence[tuple[re.Pattern[str], WeightFormat | None]]:
    """GPTQModel's rules: expressions of modules, ``-:`` for those that are not quantised, else with other settings."""
    found: list[tuple[re.Pattern[str], WeightFormat | None]] = []
    for key, own in document.part("dynamic").parts():
        pattern = expression(key.removeprefix("-:").removeprefix("+:"), own.where)
        merged = QuantizationDocument({**document.values, **own.values}, own.where)
        found.append((pattern, None if key.startswith("-:") else _gptq(merged) if own.values else usual))
    return found


def _flat(document: QuantizationDocument) -> Sequence[object]:
    """``modules_in_block_to_quantize``, a list or a list of lists."""
    listed = document.entries("modules_in_block_to_quantize")
    return [one for item in listed for one in (item if isinstance(item, list) else [item])]


def _named(key: str, extra: QuantizationDocument) -> ModuleList:
    """Modules of one key of ``extra_config``: a name, or an expression that is searched for."""
    return ModuleList([f"re:.*(?:{key})" if set(key) & set("*+?^$()[]{}|\\") else key], extra.place(key))


def _overridden(own: QuantizationDocument, document: QuantizationDocument, reader: object) -> WeightFormat | None:
    if own.whole("bits", 16) >= 16:
        return None
    merged = QuantizationDocument({**document.values, **own.values}, own.where)
    return _awq(merged) if reader is _awq else _gptq(merged)
