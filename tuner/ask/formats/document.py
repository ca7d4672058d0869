"""Where a checkpoint says how its weights are quantised, in the order in which vLLM looks (0.29:
``transformers_utils/config.py`` and ``model_arch_config_convertor.py``), and typed access to what stands there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import BadInput

BESIDE = "hf_quant_config.json"  # where ModelOpt up to 0.29 writes it


@dataclass(frozen=True, slots=True)
class QuantizationDocument:
    """What a checkpoint says of its quantisation, and ``where`` that stands, for people."""

    values: Mapping[str, Any]
    where: str

    def place(self, key: str) -> str:
        """Where a key of the document stands."""
        return f"{self.where}.{key}"

    @property
    def method(self) -> str:
        """``quant_method`` in lower case as vLLM normalises it; what ModelOpt writes says so by its own keys."""
        given = self.values.get("quant_method")
        if given is not None and not isinstance(given, str):
            raise BadInput(self.place("quant_method"), given, "a name")
        method = (given or "").lower().replace("compressed_tensors", "compressed-tensors")
        if not method and (self._produced_by_modelopt or "quant_algo" in self.values):
            return "modelopt"
        return method

    @property
    def _produced_by_modelopt(self) -> bool:
        producer, inner = self.values.get("producer"), self.values.get("quantization")
        named = isinstance(producer, Mapping) and producer.get("name") == "modelopt"
        return named or (isinstance(inner, Mapping) and "quant_algo" in inner)

    def part(self, key: str) -> QuantizationDocument:
        """An object inside, empty where it is absent."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise BadInput(self.place(key), value, "an object, or nothing")
        return QuantizationDocument(value, self.place(key))

    def parts(self) -> Sequence[tuple[str, QuantizationDocument]]:
        """All that stands inside, by key; each an object."""
        return [(str(key), self.part(key)) for key in self.values]

    def entries(self, key: str) -> Sequence[Any]:
        """A list, empty where it is absent."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise BadInput(self.place(key), value, "a list, or nothing")
        return value

    def whole(self, key: str, absent: int | None = None) -> int:
        """A whole number; ``absent`` where there is none."""
        value = self.values.get(key)
        if value is None and absent is not None:
            return absent
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadInput(self.place(key), value, "a whole number")
        return value

    def group_size(self, absent: int | None = None) -> int:
        """Weights that share a scale, along the inputs; 0: all of them (written -1)."""
        size = self.whole("group_size", absent)
        if size == 0 or size < -1:
            raise BadInput(self.place("group_size"), size, "a whole number of at least 1, or -1 for a scale per output")
        return max(size, 0)

    def flag(self, key: str, absent: bool) -> bool:
        """A truth value; ``absent`` where there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise BadInput(self.place(key), value, "true or false")
        return absent if value is None else value

    def word(self, key: str, absent: str = "") -> str:
        """A text; ``absent`` where there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise BadInput(self.place(key), value, "a text, or nothing")
        return absent if value is None else value


def find_document(
    config: Mapping[str, Any], text: Mapping[str, Any], name: str, directory: Path | None
) -> QuantizationDocument | None:
    """The quantisation of the model ``name`` with that ``config``, of which ``text`` is the language model's part.

    In the checkpoint's ``directory`` what ModelOpt writes beside ``config.json`` counts, unless that has it itself.
    None where nothing is quantised; raises BadInput for a place that holds no object.
    """
    if found := _inside(config, "quantization_config", name):
        return found
    if directory is not None and (directory / BESIDE).is_file():
        return QuantizationDocument(_read(directory / BESIDE), str(directory / BESIDE))
    if (found := _inside(config, "compression_config", name)) or text is config:
        return found
    keys = ("quantization_config", "compression_config")
    return next((found for key in keys if (found := _inside(text, key, name, "text_config."))), None)


def _inside(values: Mapping[str, Any], key: str, name: str, of: str = "") -> QuantizationDocument | None:
    value = values.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise BadInput(f"{name}: {of}{key}", value, "an object, or nothing")
    return QuantizationDocument(value, f"{name}: {of}{key}") if value else None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(str(path), str(error), "a readable JSON file") from None
    if not isinstance(document, dict):
        raise BadInput(str(path), type(document).__name__, "a JSON object")
    return document
