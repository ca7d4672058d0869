"""Which file of this folder reads which architecture: a reader is ``read`` of the file, which is loaded when needed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from tuner.ask.models.described import Reader

READERS: Mapping[str, str] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
}


def reader_of(architecture: str) -> Reader | None:
    """The reader of an architecture as ``config.json`` names it; None where there is none."""
    file = READERS.get(architecture)
    if file is None:
        return None
    found: Reader = import_module(f"tuner.ask.models.families.{file}").read
    return found
